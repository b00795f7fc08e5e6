package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// connectLimit is how long opening the connection may take, and then the
	// broker's answer.
	connectLimit = 10 * time.Second
	// packetLimit is how much of an arriving message is read. It leaves more
	// than commandLimit of payload behind the longest topic.
	packetLimit = 192 << 10
)

// credentials are what a connection proves itself with, read from their files
// at every attempt, so that renewed ones are taken without a restart.
type credentials struct {
	username, password string
	tls                *tls.Config // nil: plain TCP
}

func readCredentials(c Config) (credentials, error) {
	u, secure, err := parseBroker(c.Broker)
	if err != nil {
		return credentials{}, err
	}
	cred := credentials{username: u.User.Username()}
	cred.password, _ = u.User.Password()
	for _, f := range []struct {
		path string
		into *string
	}{{c.UsernameFile, &cred.username}, {c.PasswordFile, &cred.password}} {
		if f.path == "" {
			continue
		}
		text, err := os.ReadFile(f.path)
		if err != nil {
			return credentials{}, err
		}
		*f.into = strings.TrimRight(string(text), "\r\n")
	}
	if !secure {
		return cred, nil
	}

	cred.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return credentials{}, err
		}
		cred.tls.RootCAs = x509.NewCertPool()
		if !cred.tls.RootCAs.AppendCertsFromPEM(pem) {
			return credentials{}, fmt.Errorf("%s: no certificate in PEM form", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return credentials{}, fmt.Errorf("%s and %s: %w", c.CertFile, c.KeyFile, err)
		}
		cred.tls.Certificates = []tls.Certificate{pair}
	}
	return cred, nil
}

// dial opens a connection to host within connectLimit.
func dial(ctx context.Context, host string, secure *tls.Config) (*cutConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		t := tls.Client(conn, secure)
		if err := t.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, &handshakeError{err}
		}
		conn = t
	}
	return newCutConn(conn), nil
}

// handshakeError is a TLS handshake that failed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// cutConn passes on MQTT packets but cuts messages at packetLimit: MQTT 3.1.1
// allows 256 MB and its client library reads them into memory whole.
type cutConn struct {
	net.Conn
	from *bufio.Reader

	header []byte // of the current packet, not yet passed on
	pass   int    // bytes of it to pass on after the header
	skip   int    // bytes of it to leave out after those

	mu      sync.Mutex
	readErr error
}

func newCutConn(conn net.Conn) *cutConn {
	return &cutConn{Conn: conn, from: bufio.NewReader(conn)}
}

// Read is called by one goroutine.
func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if err != nil {
		c.mu.Lock()
		if c.readErr == nil {
			c.readErr = err
		}
		c.mu.Unlock()
	}
	return n, err
}

// whyReadFailed is the first error of Read.
func (c *cutConn) whyReadFailed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readErr
}

func (c *cutConn) read(p []byte) (int, error) {
	for len(p) > 0 {
		switch {
		case len(c.header) > 0:
			n := copy(p, c.header)
			c.header = c.header[n:]
			return n, nil
		case c.pass > 0:
			n, err := c.from.Read(p[:min(len(p), c.pass)])
			c.pass -= n
			return n, err
		case c.skip > 0:
			n, err := c.from.Discard(min(c.skip, packetLimit))
			c.skip -= n
			if err != nil {
				return 0, err
			}
		default:
			if err := c.next(); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

// next reads the fixed header of a packet: type and flags, then the length in
// groups of seven bits, lowest first, at most four (MQTT 3.1.1, 2.2).
func (c *cutConn) next() error {
	kind, err := c.from.ReadByte()
	if err != nil {
		return err
	}
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := c.from.ReadByte()
		if err != nil {
			return err
		}
		if shift > 21 {
			return errors.New("mqtt: malformed length of a packet")
		}
		length |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
	}
	const publish = 3
	if length > packetLimit && kind>>4 != publish {
		return fmt.Errorf("mqtt: a packet of type %d with %d bytes", kind>>4, length)
	}
	c.pass = min(length, packetLimit)
	c.skip = length - c.pass
	c.header = append(c.header[:0], kind)
	for rest := c.pass; ; {
		b := byte(rest & 0x7f)
		if rest >>= 7; rest > 0 {
			c.header = append(c.header, b|0x80)
			continue
		}
		c.header = append(c.header, b)
		return nil
	}
}
