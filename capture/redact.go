package capture

import (
	"net/url"
	"regexp"
	"strings"
)

const hidden = "***"

// Patterns of secrets in text that no URL parser may see: log lines, pipelines.
var (
	// user:PASSWORD@ of a URL. A password may hold an @ itself, so everything
	// up to the last one before the path goes.
	userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@"']*):([^\s/"']*)@`)
	// password=..., user-pw="...", &token=..., also within a path as some recorders have it.
	assignment = regexp.MustCompile(`(?i)([a-z_-]*(?:passw(?:or)?d|passwd|pass|pwd|pw|token|secret|api_?key|signature))=("[^"]*"|'[^']*'|[^\s&;,/"']+)`)
)

// Redact removes what looks like a secret from a source or any text about one:
// passwords in URLs, and values of password, token, key and the like.
func Redact(text string) string {
	text = userinfo.ReplaceAllString(text, "${1}:"+hidden+"@")
	return assignment.ReplaceAllString(text, "${1}="+hidden)
}

// redactor removes one camera's own secrets, wherever they stand, and then
// whatever Redact knows.
type redactor struct{ secrets *strings.Replacer }

func newRedactor(c Config) redactor {
	var pairs []string
	hide := func(secret string) {
		if len(secret) < 3 { // would tear ordinary words apart, and Redact finds it in its place
			return
		}
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword("", secret).String()[1:]} {
			pairs = append(pairs, form, hidden)
		}
	}
	hide(c.Password)
	for _, m := range assignment.FindAllStringSubmatch(c.Source, -1) {
		hide(strings.Trim(m[2], `"'`))
	}
	for _, m := range userinfo.FindAllStringSubmatch(c.Source, -1) {
		hide(m[2]) // as it is written there
	}
	if u, err := url.Parse(c.Source); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok {
			hide(password)
		}
	}
	return redactor{strings.NewReplacer(pairs...)}
}

func (r redactor) clean(text string) string { return Redact(r.secrets.Replace(text)) }
