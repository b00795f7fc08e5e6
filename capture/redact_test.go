package capture

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"rtsp://admin:geheim@10.0.0.7:554/s":                        "rtsp://admin:***@10.0.0.7:554/s",
		"rtsp://admin:ge@heim@10.0.0.7/s":                           "rtsp://admin:***@10.0.0.7/s",
		"rtsp://10.0.0.7:554/user=admin_password=geheim_channel=1":  "rtsp://10.0.0.7:554/user=admin_password=***",
		"http://h/v?user=a&password=geheim&channel=1":               "http://h/v?user=a&password=***&channel=1",
		"http://h/v?PWD=geheim":                                     "http://h/v?PWD=***",
		"http://h/v?access_token=geheim#x":                          "http://h/v?access_token=***",
		`rtspsrc location=rtsp://h/x user-id=a user-pw="ge heim" !`: `rtspsrc location=rtsp://h/x user-id=a user-pw=*** !`,
		"rtsp://10.0.0.7:554/s":                                     "rtsp://10.0.0.7:554/s",
		"/srv/pass/clip=1.mp4":                                      "/srv/pass/clip=1.mp4",
		"two: rtsp://a:b@c and http://d:e@f/g":                      "two: rtsp://a:***@c and http://d:***@f/g",
	} {
		if got := Redact(text); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}

func TestRedactorKnowsItsSecretsAnywhere(t *testing.T) {
	c := Config{Source: "rtsp://u:p%40ss+w%2Frd@h/s?token=t0k3n", Username: "u", Password: "se:cr@t ü"}
	r := newRedactor(c)
	for _, secret := range []string{"p@ss+w/rd", "p%40ss+w%2Frd", "se:cr@t ü", "se%3Acr%40t%20%C3%BC", "se%3Acr%40t+%C3%BC", "t0k3n"} {
		text := "Error in '" + secret + "': no"
		if got := r.clean(text); strings.Contains(got, secret) || !strings.HasPrefix(got, "Error in '***") {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if got := newRedactor(Config{Source: "/a"}).clean("nothing to hide"); got != "nothing to hide" {
		t.Errorf("%q", got)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("admin", "geheim")
	f.Add("a", "p@:w")
	f.Fuzz(func(t *testing.T, user, password string) {
		for _, s := range user + password {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@:!$.-", s) {
				t.Skip()
			}
		}
		if strings.ContainsAny(user, "@:") || len(password) < 4 {
			t.Skip()
		}
		got, want := Redact("cannot open rtsp://"+user+":"+password+"@host/path"), "cannot open rtsp://"+user+":***@host/path"
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
