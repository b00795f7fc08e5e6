package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// A page that a stranger visits cannot reach the daemon through his browser, and others on the network need
// the token.
func TestGuard(t *testing.T) {
	d := &daemon{token: "right"}
	said := http.NewServeMux()
	said.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "inside") })
	said.HandleFunc("POST /login", d.login)
	loopback := WebConfig{Listen: "127.0.0.1:8080", Hosts: []string{"fovea.example"}}
	network := WebConfig{Listen: "0.0.0.0:8443", TLSCert: "x", TLSKey: "x"}

	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	for _, c := range []struct {
		name         string
		web          WebConfig
		method, path string
		host         string
		header       http.Header
		want         int
	}{
		{"read on loopback", loopback, "GET", "/api/status", "127.0.0.1:8080", nil, 200},
		{"by its name", loopback, "GET", "/", "localhost:8080", nil, 200},
		{"by its IPv6 address", loopback, "GET", "/", "[::1]:8080", nil, 200},
		{"by a configured name", loopback, "GET", "/", "Fovea.example", nil, 200},
		{"DNS rebinding", loopback, "GET", "/api/status", "evil.example:8080", nil, 421},
		{"DNS rebinding with a trailing dot", loopback, "GET", "/", "evil.example.", nil, 421},
		{"rebound write with the token", loopback, "POST", "/api/reload", "evil.example", bearer("right"), 421},
		{"no host", loopback, "GET", "/", "", nil, 421},
		{"write without the token", loopback, "POST", "/api/reload", "localhost", nil, 401},
		{"write with another token", loopback, "POST", "/api/reload", "localhost", bearer("wrong"), 401},
		{"write with half the token", loopback, "POST", "/api/reload", "localhost", bearer("righ"), 401},
		{"write with the token", loopback, "POST", "/api/reload", "localhost", bearer("right"), 200},
		{"any other method", loopback, "DELETE", "/api/reload", "localhost", nil, 401},
		{"another site's form", loopback, "POST", "/api/reload", "localhost", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Cookie": {tokenCookie + "=right"}}, 403},
		{"another origin's form", loopback, "POST", "/api/reload", "localhost", http.Header{"Origin": {"http://evil.example"}, "Cookie": {tokenCookie + "=right"}}, 403},
		{"its own form", loopback, "POST", "/api/reload", "localhost", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Cookie": {tokenCookie + "=right"}}, 200},
		{"health for anybody", network, "GET", "/healthz", "evil.example", nil, 200},
		{"health is read only", network, "POST", "/healthz", "10.0.0.7", nil, 401},
		{"the page sends to the login", network, "GET", "/", "10.0.0.7", nil, 303},
		{"the login is open", network, "GET", "/login", "10.0.0.7", nil, 200},
		{"read from the network", network, "GET", "/api/status", "10.0.0.7", nil, 401},
		{"pictures from the network", network, "GET", "/api/cameras/door/view", "10.0.0.7", nil, 401},
		{"metrics from the network", network, "GET", "/metrics", "10.0.0.7", nil, 401},
		{"metrics with the token", network, "GET", "/metrics", "10.0.0.7", bearer("right"), 200},
		{"page with the cookie", network, "GET", "/", "10.0.0.7", http.Header{"Cookie": {tokenCookie + "=right"}}, 200},
		{"page with a wrong cookie", network, "GET", "/", "10.0.0.7", http.Header{"Cookie": {tokenCookie + "=x"}}, 303},
		{"the token is no query", network, "GET", "/api/status?token=right", "10.0.0.7", nil, 401},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Host = c.host
		for name, values := range c.header {
			r.Header[name] = values
		}
		w := httptest.NewRecorder()
		d.guard(c.web, said).ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.want, w.Body)
		}
		if inside := w.Body.String() == "inside"; inside != (c.want == 200) {
			t.Errorf("%s: answered %q", c.name, w.Body)
		}
		if !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'self'") {
			t.Errorf("%s: no content security policy", c.name)
		}
	}
}

func TestLogin(t *testing.T) {
	d := &daemon{token: "right"}
	for token, want := range map[string]string{"right": "/", " right\n": "/", "wrong": "/login?wrong", "": "/login?wrong", strings.Repeat("x", 10000): "/login?wrong"} {
		r := httptest.NewRequest("POST", "https://10.0.0.7/login", strings.NewReader(url.Values{"token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		d.login(w, r)
		if got := w.Header().Get("Location"); got != want {
			t.Errorf("%.20q sends to %s, want %s", token, got, want)
		}
		cookies := w.Result().Cookies()
		if (len(cookies) == 1) != (want == "/") {
			t.Errorf("%.20q gives cookies %v", token, cookies)
		}
		for _, c := range cookies {
			if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode {
				t.Errorf("cookie %v", c)
			}
		}
	}
}
