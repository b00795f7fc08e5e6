package main

import (
	"crypto/subtle"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// guard keeps strangers out: a page on another site cannot reach the API through a name that it points here
// (DNS rebinding), nor send a form; on an address that others reach everything but /healthz and the login
// needs the token, and a request that changes something needs it everywhere.
func (d *daemon) guard(c WebConfig, next http.Handler) http.Handler {
	open := isLoopback(c.Listen)
	hosts := append([]string{"localhost"}, c.Hosts...)
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")

		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		login := r.URL.Path == "/login" || r.URL.Path == "/style.css"
		switch {
		case r.URL.Path == "/healthz" && reads:
		case !knownHost(r.Host, hosts):
			http.Error(w, "this page is not known by that name; add it to web.hosts", http.StatusMisdirectedRequest)
			return
		case crossOrigin.Check(r) != nil:
			http.Error(w, "another site may not do this", http.StatusForbidden)
			return
		case login, open && reads, d.hasToken(r):
		case reads && r.URL.Path == "/":
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		default:
			h.Set("WWW-Authenticate", "Bearer")
			http.Error(w, "give the token that \"fovea token\" prints: Authorization: Bearer TOKEN", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knownHost says whether a Host header may name this server. An address cannot be pointed elsewhere by a
// stranger's name server, so each is as good as another.
func knownHost(header string, hosts []string) bool {
	host := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(strings.TrimSuffix(host, "."), "[]"))
	return net.ParseIP(host) != nil || slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

const tokenCookie = "fovea_token"

// hasToken says whether a request carries the token, as a header or as the cookie that login gives.
func (d *daemon) hasToken(r *http.Request) bool {
	given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if given == "" {
		if cookie, err := r.Cookie(tokenCookie); err == nil {
			given = cookie.Value
		}
	}
	return subtle.ConstantTimeCompare([]byte(given), []byte(d.token)) == 1
}

// login exchanges the token for a cookie.
func (d *daemon) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	given := strings.TrimSpace(r.PostFormValue("token"))
	if subtle.ConstantTimeCompare([]byte(given), []byte(d.token)) != 1 {
		http.Redirect(w, r, "/login?wrong", http.StatusSeeOther)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: tokenCookie, Value: given, Path: "/", HttpOnly: true, Secure: r.TLS != nil,
		SameSite: http.SameSiteStrictMode, MaxAge: int((30 * 24 * time.Hour).Seconds()),
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
