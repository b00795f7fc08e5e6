package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// BrokerUser is the user name of the embedded broker.
const BrokerUser = "fovea"

// Broker is an MQTT broker inside the daemon, for a first run without one. It
// listens on loopback alone, has one user, and forgets its retained messages
// when it stops: devices publish theirs again.
type Broker struct {
	password string
	file     string
	log      *slog.Logger

	mu     sync.Mutex
	addr   string
	server *mochi.Server // nil: stopped
}

// NewBroker returns a broker that is not started. addr is host:port on
// loopback; port 0 takes a free one at the first Start and keeps it. The
// password is read from passwordFile, or made and written there with mode 0600
// if there is none.
func NewBroker(addr, passwordFile string, log *slog.Logger) (*Broker, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: address %q: write host:port, such as 127.0.0.1:1883", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("embedded broker: address %q is not loopback: it has no TLS and no rights; for other machines run Mosquitto and set its URL", addr)
	}
	password, err := ownPassword(passwordFile)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	return &Broker{addr: addr, password: password, file: passwordFile, log: log}, nil
}

// ownPassword reads the file, closing it to others, or makes it.
func ownPassword(file string) (string, error) {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		password := rand.Text()
		return password, os.WriteFile(file, []byte(password+"\n"), 0o600)
	case err != nil:
		return "", err
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("%s is empty: write a password into it, or delete it to have one made", file)
	}
	return password, os.Chmod(file, 0o600)
}

// Start begins to listen. Started already, it does nothing.
func (b *Broker) Start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	capabilities := mochi.NewDefaultServerCapabilities()
	capabilities.MaximumMessageExpiryInterval = 0 // retained messages stay
	capabilities.MaximumPacketSize = 1 << 20
	capabilities.MaximumClients = 256
	server := mochi.New(&mochi.Options{
		Capabilities: capabilities,
		Logger:       slog.New(onlyWarnings{b.log.Handler()}),
	})
	if err := server.AddHook(&oneUser{password: []byte(b.password)}, nil); err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	tcp := listeners.NewTCP(listeners.Config{ID: "loopback", Address: b.addr})
	if err := server.AddListener(tcp); err != nil {
		return fmt.Errorf("embedded broker: %w: choose another port", err)
	}
	b.addr = tcp.Address()
	if err := server.Serve(); err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	b.server = server
	b.log.Info("mqtt: embedded broker started", "addr", b.addr, "user", BrokerUser, "password_file", b.file)
	return nil
}

// Stop ends all connections and waits for them. It may be started again.
func (b *Broker) Stop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil {
		return nil
	}
	err := b.server.Close()
	b.server = nil
	if err != nil {
		return fmt.Errorf("embedded broker: stop: %w", err)
	}
	return nil
}

// URL is what Config.Broker takes, without the password; PasswordFile is
// Config.PasswordFile.
func (b *Broker) URL() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return "mqtt://" + BrokerUser + "@" + b.addr
}

// PasswordFile is where the password stands.
func (b *Broker) PasswordFile() string { return b.file }

// oneUser admits BrokerUser with the password, to all topics.
type oneUser struct {
	mochi.HookBase
	password []byte
}

func (*oneUser) ID() string { return "one-user" }

func (*oneUser) Provides(hook byte) bool {
	return hook == mochi.OnConnectAuthenticate || hook == mochi.OnACLCheck
}

func (u *oneUser) OnConnectAuthenticate(_ *mochi.Client, p packets.Packet) bool {
	return bytes.Equal(p.Connect.Username, []byte(BrokerUser)) && subtle.ConstantTimeCompare(p.Connect.Password, u.password) == 1
}

func (*oneUser) OnACLCheck(*mochi.Client, string, bool) bool { return true }

// onlyWarnings keeps the broker's own talk out of the daemon's log. What it says of a client has no message, only an error.
type onlyWarnings struct{ slog.Handler }

func (h onlyWarnings) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "" {
		r.Message = "mqtt: a client of the embedded broker"
	}
	return h.Handler.Handle(ctx, r)
}

func (h onlyWarnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

func (h onlyWarnings) WithAttrs(a []slog.Attr) slog.Handler {
	return onlyWarnings{h.Handler.WithAttrs(a)}
}

func (h onlyWarnings) WithGroup(name string) slog.Handler {
	return onlyWarnings{h.Handler.WithGroup(name)}
}
