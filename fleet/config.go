package fleet

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Config is how a device meets its broker. The zero value of a field is the
// default that its comment names.
type Config struct {
	Device string // [a-z0-9-]{1,63}, not "all"; required
	Root   string // of all topics; "" is fovea

	// Broker is mqtt://host[:1883] or mqtts://host[:8883] (tcp and ssl, tls are
	// the same words). It may carry user:password@; files are better.
	Broker       string
	ClientID     string // "" is fovea-<device>: the same at every connect, and no other client's
	UsernameFile string // read at every connect; a trailing newline is cut
	PasswordFile string
	CAFile       string // PEM; "" is the system's
	CertFile     string // PEM, with KeyFile: the client's certificate
	KeyFile      string
	KeepAlive    time.Duration // 0 is 30 s: the broker says offline after 1.5 times this

	Allow      []Verb        // verbs taken from remote; nil is RemoteByDefault, empty is none
	Images     bool          // whether pictures may be published at all
	StateEvery time.Duration // least time between two states of a camera with the same label; 0 is 1 s
	FleetDelay time.Duration // longest random delay before a fleet-wide command is answered; 0 is 5 s

	// TimeSynced says whether the clock can be believed; nil is that it can.
	TimeSynced func() bool

	HomeAssistant HomeAssistant
}

// withDefaults returns c with its zero fields filled, or all its faults at
// once, each naming its field.
func (c Config) withDefaults() (Config, error) {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&c.Root, "fovea")
	def(&c.ClientID, "fovea-"+c.Device)
	for d, value := range map[*time.Duration]time.Duration{
		&c.KeepAlive: 30 * time.Second, &c.StateEvery: time.Second, &c.FleetDelay: 5 * time.Second,
	} {
		if *d <= 0 {
			*d = value
		}
	}
	if c.Allow == nil {
		c.Allow = RemoteByDefault
	}
	if c.TimeSynced == nil {
		c.TimeSynced = func() bool { return true }
	}
	c.HomeAssistant = c.HomeAssistant.withDefaults()

	var faults []error
	fault := func(field string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("mqtt: %s: %w", field, err))
		}
	}
	fault("device", CheckName(c.Device))
	fault("root", CheckRoot(c.Root))
	_, _, err := parseBroker(c.Broker)
	fault("broker", err)
	if (c.CertFile == "") != (c.KeyFile == "") {
		fault("cert_file", errors.New("a client certificate needs both cert_file and key_file"))
	}
	if c.PasswordFile != "" && c.UsernameFile == "" && !hasUser(c.Broker) {
		fault("password_file", errors.New("a password needs a user name: set username_file, or user@ in the broker's URL"))
	}
	for _, v := range c.Allow {
		if !slices.Contains(Verbs, v) {
			fault("allow", fmt.Errorf("there is no verb %q: use %v", v, Verbs))
		}
	}
	fault("home_assistant", c.HomeAssistant.check())
	return c, errors.Join(faults...)
}

func hasUser(broker string) bool {
	u, err := url.Parse(broker)
	return err == nil && u.User.Username() != ""
}

// parseBroker returns the parsed URL with a port, and whether it speaks TLS.
func parseBroker(broker string) (u *url.URL, secure bool, err error) {
	u, err = url.Parse(broker)
	if err != nil {
		// url.Error quotes the whole URL, the password in it too.
		return nil, false, errors.New("not a URL: write mqtt://host:1883 or mqtts://host:8883, with % escapes in user and password")
	}
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl", "tls":
		secure, port = true, "8883"
	default:
		return nil, false, fmt.Errorf("%q is not a scheme of brokers: write mqtt://host:1883 or mqtts://host:8883", u.Scheme)
	}
	if host := u.Hostname(); host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return nil, false, errors.New("no host: write mqtt://host:1883 or mqtts://host:8883")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return nil, false, errors.New("a broker's URL ends after the port")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, secure, nil
}

// Redact returns a broker's URL without its password, for logs and pages. Of
// what is not a URL it returns nothing.
func Redact(broker string) string {
	u, err := url.Parse(broker)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}
