package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// A Problem says in one word why a device is not connected as it should be.
type Problem string

// The problems.
const (
	NoProblem          Problem = ""
	Unreachable        Problem = "unreachable"            // nothing answers at that address
	BadCredentialFiles Problem = "credentials_unreadable" // a file of user name, password, CA or certificate
	TLSUntrusted       Problem = "tls_untrusted"          // the broker's certificate is from another CA
	TLSExpired         Problem = "tls_expired"            // the broker's certificate, or the clock is wrong
	TLSHostname        Problem = "tls_hostname"           // the broker's certificate is for another name
	TLSClient          Problem = "tls_client_certificate" // the broker does not take ours
	TLSFailed          Problem = "tls_failed"             // what listens there speaks no TLS, or none that fits
	RefusedProtocol    Problem = "refused_protocol"       // CONNACK 1
	RefusedClientID    Problem = "refused_client_id"      // CONNACK 2
	RefusedUnavailable Problem = "refused_unavailable"    // CONNACK 3
	RefusedCredentials Problem = "refused_credentials"    // CONNACK 4
	RefusedAuthority   Problem = "refused_not_authorised" // CONNACK 5
	NoAnswer           Problem = "no_answer"              // a connection, but no CONNACK
	SubscribeDenied    Problem = "subscribe_denied"       // connected, but no commands can arrive
	ConnectionLost     Problem = "connection_lost"        // was connected
	Takeover           Problem = "takeover"               // another client with the same id keeps taking the connection
)

// trouble is a problem with what is known about it.
type trouble struct {
	Problem Problem
	Reason  string // what happened
	Hint    string // what a person can do
}

// diagnose names why a connection to c.Broker could not be made. code is the
// CONNACK's, 0 if there was none.
func diagnose(c Config, err error, code byte) trouble {
	broker := Redact(c.Broker)
	switch code {
	case 1:
		return trouble{RefusedProtocol, "the broker refused the protocol version (CONNACK 1)", "the broker must speak MQTT 3.1.1: enable it there"}
	case 2:
		return trouble{RefusedClientID, fmt.Sprintf("the broker refused the client id %q (CONNACK 2)", c.ClientID), "allow this id on the broker (its clientid rules), or set another one here"}
	case 3:
		return trouble{RefusedUnavailable, "the broker says it is not available (CONNACK 3)", "look at the broker's log; this device tries again by itself"}
	case 4:
		return trouble{RefusedCredentials, "the broker refused user name or password (CONNACK 4)", "check " + credentialSource(c) + "; they are read again at every attempt"}
	case 5:
		return trouble{RefusedAuthority, "the broker says this device is not authorised (CONNACK 5)", "check " + credentialSource(c) + ", and that the broker's list of users knows this device"}
	}

	var (
		verify    *tls.CertificateVerificationError
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		hostname  x509.HostnameError
		handshake *handshakeError
		record    tls.RecordHeaderError
		name      *net.DNSError
		path      *fs.PathError
		network   net.Error
	)
	switch {
	case errors.As(err, &path):
		return trouble{BadCredentialFiles, err.Error(), "check that the file exists and that the daemon's user may read it"}
	case errors.As(err, &verify) && errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return trouble{TLSExpired, fmt.Sprintf("the broker's certificate is valid from %s to %s, and this device's clock says %s", day(invalid.Cert.NotBefore), day(invalid.Cert.NotAfter), day(time.Now())), "renew the certificate on the broker, or correct the clock here (timedatectl)"}
	case errors.As(err, &verify) && errors.As(err, &unknown):
		return trouble{TLSUntrusted, "the broker's certificate is signed by an authority that this device does not know", "set ca_file to the certificate of the broker's CA" + fileNote(c.CAFile)}
	case errors.As(err, &verify) && errors.As(err, &hostname):
		return trouble{TLSHostname, hostname.Error(), "write the broker's name in its URL as it stands in the certificate"}
	case errors.As(err, &record):
		return trouble{TLSFailed, "what listens at " + broker + " does not speak TLS", "write mqtt:// for a plain port, or the broker's TLS port (8883)"}
	case err != nil && strings.Contains(err.Error(), "remote error: tls:"):
		_, alert, _ := strings.Cut(err.Error(), "remote error: tls: ")
		return trouble{TLSClient, "the broker ended the TLS connection: " + alert, certificateHint(c)}
	case errors.As(err, &verify):
		return trouble{TLSFailed, err.Error(), "check the broker's certificate"}
	case errors.As(err, &handshake):
		return trouble{TLSFailed, "the TLS handshake with " + broker + " failed: " + handshake.err.Error(), "if that is a plain port (1883) write mqtt://; else check the broker's TLS settings and log"}
	case errors.As(err, &name):
		return trouble{Unreachable, fmt.Sprintf("the name %s cannot be resolved", name.Name), "check the broker's URL and this device's DNS"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return trouble{Unreachable, "nothing listens at " + broker, "check the port in the broker's URL, and that the broker runs"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		if _, secure, _ := parseBroker(c.Broker); secure {
			// The broker's alert may be lost when it resets the connection.
			return trouble{TLSClient, "the broker closed the connection right after the TLS handshake, as one does that does not take the client's certificate", certificateHint(c)}
		}
		return trouble{NoAnswer, "what listens at " + broker + " closed the connection without an answer", "if that port speaks TLS write mqtts://; else look at the broker's log (limit of connections, client id)"}
	case errors.Is(err, os.ErrDeadlineExceeded) && !isDial(err):
		return trouble{NoAnswer, "what listens at " + broker + " does not answer", "check that it is an MQTT broker; if that port speaks TLS write mqtts://"}
	case errors.As(err, &network):
		return trouble{Unreachable, err.Error(), "check the broker's address, the network and the firewall between"}
	case err == nil:
		return trouble{NoAnswer, "the broker gave no valid answer", "check that what listens at " + broker + " is an MQTT broker"}
	}
	return trouble{BadCredentialFiles, err.Error(), "check the files that the configuration names for the broker"}
}

// certificateHint says what the broker may have against our certificate.
func certificateHint(c Config) string {
	hint := "set cert_file and key_file to a client certificate that the broker's CA signed" + fileNote(c.CertFile)
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil || pair.Leaf == nil {
		return hint
	}
	if now := time.Now(); now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		return fmt.Sprintf("renew the client certificate %s: it is valid from %s to %s, and this device's clock says %s", c.CertFile, day(pair.Leaf.NotBefore), day(pair.Leaf.NotAfter), day(now))
	}
	return hint + "; the broker's log says more"
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func fileNote(path string) string {
	if path == "" {
		return " (not set)"
	}
	return " (now " + path + ")"
}

// credentialSource names where user name and password come from.
func credentialSource(c Config) string {
	var from []string
	if c.UsernameFile != "" {
		from = append(from, c.UsernameFile)
	}
	if c.PasswordFile != "" {
		from = append(from, c.PasswordFile)
	}
	if len(from) == 0 && hasUser(c.Broker) {
		from = append(from, "user and password in the broker's URL")
	}
	if len(from) == 0 {
		return "username_file and password_file: none is set"
	}
	return strings.Join(from, " and ")
}
