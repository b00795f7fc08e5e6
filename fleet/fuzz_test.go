package fleet

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// FuzzCommand throws any message on any topic at a device: it never panics, a
// message on a well-formed command topic gets an answer, and nothing but a
// verb that was asked for runs.
func FuzzCommand(f *testing.F) {
	f.Add("gate-1/cmd/adapt/a1", []byte(`{"force":true}`), false, false)
	f.Add("gate-1/cmd/health/a1", []byte(`{"expires_at":"2030-01-01T00:00:00Z"}`), false, false)
	f.Add("gate-1/cmd/cancel/a1", []byte(`{"id":"x","issued_at":null}`), false, true)
	f.Add("gate-1/cmd/auto/set", []byte("ON"), false, false)
	f.Add("gate-1/cmd/adapt/set", []byte("PRESS"), true, false)
	f.Add("all/cmd/health/a1", []byte(``), false, false)
	f.Add("gate-1/cmd/\xff/\x00", []byte("{"), false, false)
	f.Add("gate-1/cmd/adapt/a1/state", []byte(`null`), false, false)
	f.Fuzz(func(t *testing.T, topic string, payload []byte, retained, duplicate bool) {
		synctest.Test(t, func(t *testing.T) {
			k := newDesk(t, Config{}, NewCommandLog(), NewQueue(100))
			defer k.close()
			topic = "fovea/" + topic
			k.receive(arrival{topic: topic, payload: payload, retained: retained, duplicate: duplicate})
			time.Sleep(6 * time.Second)
			synctest.Wait()
			p := parseTopic("fovea", topic)
			allowed := utf8.ValidString(topic) && !strings.ContainsAny(topic, "\x00+#")
			if allowed && p.kind == commandTopic && len(topic) <= topicLimit && (p.device == "gate-1" || p.device == Everyone) {
				said := k.broker.states(t, k.topics.CommandState(p.verb, p.cmdID))
				if len(said) == 0 {
					t.Fatalf("%q got no answer", topic)
				}
				if last := said[len(said)-1]; last.State == PhaseFailed && (last.Reason == "" || !utf8.ValidString(last.Reason)) {
					t.Errorf("no reason: %+v", last)
				}
			}
			for id, n := range k.ran {
				if n != 1 || p.kind != commandTopic && p.kind != setTopic || id != p.cmdID && p.kind == commandTopic || retained {
					t.Errorf("%q ran %d times for %q", id, n, topic)
				}
			}
		})
	})
}

// FuzzPackets feeds any bytes to what stands between the network and the MQTT
// library.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0, 0x30, 5, 0, 1, 't', 'x', 'y'})
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		out := readAll(in)
		if len(out) > len(in) {
			t.Errorf("%d bytes became %d", len(in), len(out))
		}
	})
}

// bytesConn is a connection that delivers these bytes, a few at a time.
type bytesConn struct {
	net.Conn
	rest []byte
}

func (c *bytesConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 3)], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func readAll(in []byte) []byte {
	out, _ := io.ReadAll(newCutConn(&bytesConn{rest: in}))
	return out
}
