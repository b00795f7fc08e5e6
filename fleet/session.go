package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// arrival is a message from the broker, its payload cut after commandLimit+1
// bytes.
type arrival struct {
	topic     string
	payload   []byte
	retained  bool
	duplicate bool
	delayed   bool // a fleet-wide command that has waited its turn
}

// session is one connection from CONNECT to its end, with a client of its own:
// the library's reconnection and its store are not used, since what must be
// sent again is in the outbox.
type session struct {
	client mqtt.Client
	gone   chan struct{} // closed when the connection is lost
	why    error         // of the loss; read after gone
}

// will is what the broker publishes when a client vanishes.
type will struct{ topic, payload string }

// connectError is a failed attempt, with the CONNACK's code if there was one.
type connectError struct {
	code byte
	err  error
}

func (e *connectError) Error() string {
	if e.code != 0 {
		return fmt.Sprintf("connect: refused with code %d", e.code)
	}
	return fmt.Sprintf("connect: %v", e.err)
}

func (e *connectError) Unwrap() error { return e.err }

// connect makes a session. receive is called for each arriving message, one
// after the other, and must not wait. The error is a *connectError.
func connect(ctx context.Context, c Config, w *will, receive func(arrival)) (*session, error) {
	cred, err := readCredentials(c)
	if err != nil {
		return nil, &connectError{err: err}
	}
	broker, _, err := parseBroker(c.Broker)
	if err != nil {
		return nil, &connectError{err: err}
	}

	s := &session{gone: make(chan struct{})}
	var (
		mu      sync.Mutex // the library opens the connection in a goroutine of its own
		conn    *cutConn
		openErr error
	)
	opts := mqtt.NewClientOptions().
		AddBroker("tcp://" + broker.Host).
		SetClientID(c.ClientID).
		SetUsername(cred.username).
		SetPassword(cred.password).
		SetCleanSession(true).
		SetProtocolVersion(4).
		SetKeepAlive(c.KeepAlive).
		SetPingTimeout(10 * time.Second).
		SetConnectTimeout(connectLimit).
		SetWriteTimeout(ackLimit).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetOrderMatters(true).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			opened, err := dial(ctx, broker.Host, cred.tls)
			mu.Lock()
			defer mu.Unlock()
			conn, openErr = opened, err
			if err != nil {
				return nil, err
			}
			return opened, nil
		}).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			payload := m.Payload()
			receive(arrival{
				topic:     m.Topic(),
				payload:   payload[:min(len(payload), commandLimit+1)],
				retained:  m.Retained(),
				duplicate: m.Duplicate(),
			})
		}).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			s.why = err
			close(s.gone)
		})
	if w != nil {
		opts.SetWill(w.topic, w.payload, 1, true)
	}
	s.client = mqtt.NewClient(opts)

	token := s.client.Connect().(*mqtt.ConnectToken)
	if err := await(ctx, token, 2*connectLimit+5*time.Second); err != nil {
		s.client.Disconnect(0)
		if ctx.Err() != nil {
			return nil, &connectError{err: ctx.Err()}
		}
		mu.Lock()
		defer mu.Unlock()
		failed := &connectError{err: err}
		switch code := token.ReturnCode(); {
		case openErr != nil:
			failed.err = openErr
		case code >= 1 && code <= 5:
			failed.code = code
		case conn != nil && conn.whyReadFailed() != nil:
			failed.err = conn.whyReadFailed() // the library keeps it to itself
		}
		return nil, failed
	}
	return s, nil
}

// errNoAnswer says that the broker did not answer in time.
var errNoAnswer = errors.New("no answer from the broker")

// await waits for a token, never without a limit.
func await(ctx context.Context, token mqtt.Token, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%w within %v", errNoAnswer, limit)
	}
}

// errDenied lists the subscriptions that the broker refused.
type errDenied []string

func (e errDenied) Error() string {
	return fmt.Sprintf("the broker refused to subscribe %q", []string(e))
}

// subscribe asks for all filters. The error is errDenied if the
// broker refused some of them.
func (s *session) subscribe(ctx context.Context, qos byte, filters ...string) error {
	want := map[string]byte{}
	for _, f := range filters {
		want[f] = qos
	}
	token := s.client.SubscribeMultiple(want, nil).(*mqtt.SubscribeToken)
	err := await(ctx, token, ackLimit)
	var denied errDenied
	for f, granted := range token.Result() {
		if granted > 2 {
			denied = append(denied, f)
		}
	}
	if denied != nil {
		return denied
	}
	return err
}

func (s *session) send(m outgoing) func(time.Duration) error {
	token := s.client.Publish(m.topic, m.qos, m.retained, m.payload)
	return func(limit time.Duration) error {
		timer := time.NewTimer(max(limit, 0))
		defer timer.Stop()
		select {
		case <-token.Done():
			return token.Error()
		case <-s.gone:
			return errLost
		case <-timer.C:
			return fmt.Errorf("%w within %v", errNoAnswer, ackLimit)
		}
	}
}

func (s *session) lost() <-chan struct{} { return s.gone }

// close says goodbye, so that the broker does not publish the will.
func (s *session) close() { s.client.Disconnect(250) }
