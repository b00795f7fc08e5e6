package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Validate refuses an id that no command can have.
func (a *CancelArgs) Validate() error {
	if a.ID == "" {
		return nil
	}
	if err := CheckID(a.ID); err != nil {
		return &Error{Code: Invalid, Field: "id", Reason: err.Error()}
	}
	return nil
}

// Validate refuses negative versions.
func (a *PromoteArgs) Validate() error { return checkVersion(a.Version) }

// Validate refuses negative versions.
func (a *RollbackArgs) Validate() error {
	if a.Version == nil {
		return nil
	}
	return checkVersion(*a.Version)
}

func checkVersion(v int64) error {
	if v < 0 {
		return &Error{Code: Invalid, Field: "version", Reason: "versions start at 0, the base model"}
	}
	return nil
}

// Validate wants to be told on or off.
func (a *AutoArgs) Validate() error {
	if a.On == nil {
		return &Error{Code: Invalid, Field: "on", Reason: `say {"on":true} or {"on":false}, or ON or OFF on the set topic`}
	}
	return nil
}

// Validate refuses what cannot be a camera.
func (a *SnapshotArgs) Validate() error {
	if a.Camera == "" {
		return nil
	}
	if err := CheckName(a.Camera); err != nil {
		return &Error{Code: Invalid, Field: "camera", Reason: err.Error()}
	}
	return nil
}

// fromDashboard turns what a dashboard sends into the JSON of a command.
func fromDashboard(payload []byte) []byte {
	switch string(payload) {
	case "PRESS":
		return nil
	case "ON":
		return []byte(`{"on":true}`)
	case "OFF":
		return []byte(`{"on":false}`)
	}
	return payload
}

// decodeCommand reads a command's payload: an object with the fields of
// Envelope and those of zero, the verb's arguments, or nothing at all. It
// returns the arguments as the type of zero has them. The error is an *Error
// with Invalid and the field.
func decodeCommand(payload []byte, zero any) (Envelope, any, error) {
	var envelope Envelope
	args := reflect.New(reflect.TypeOf(zero))
	fields := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(payload)) > 0 {
		if err := decodeStrictly(payload, &fields); err != nil {
			return Envelope{}, nil, invalid("", err)
		}
	}
	for _, f := range []struct {
		name string
		into **time.Time
	}{{"expires_at", &envelope.ExpiresAt}, {"issued_at", &envelope.IssuedAt}} {
		if err := json.Unmarshal(orNull(fields[f.name]), f.into); err != nil {
			return Envelope{}, nil, &Error{Code: Invalid, Field: f.name, Reason: "write a time as 2026-11-24T18:30:00Z (RFC 3339)"}
		}
		delete(fields, f.name)
	}

	names := jsonNames(reflect.TypeOf(zero))
	for name := range fields {
		if !slices.Contains(names, name) {
			known := append([]string{"expires_at", "issued_at"}, names...)
			return Envelope{}, nil, &Error{Code: Invalid, Field: cut(name, 64), Reason: "there is no such field: use " + strings.Join(known, ", ")}
		}
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return Envelope{}, nil, invalid("", err)
	}
	if err := decodeStrictly(rest, args.Interface()); err != nil {
		return Envelope{}, nil, invalid("", err)
	}
	if v, ok := args.Interface().(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return Envelope{}, nil, invalid("", err)
		}
	}
	return envelope, args.Elem().Interface(), nil
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

// decodeStrictly takes one JSON value and nothing after it.
func decodeStrictly(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the JSON object")
	}
	return nil
}

// invalid makes an *Error of what decoding said.
func invalid(field string, err error) error {
	var (
		already *Error
		kind    *json.UnmarshalTypeError
		syntax  *json.SyntaxError
	)
	switch {
	case errors.As(err, &already):
		return already
	case errors.As(err, &kind) && kind.Field != "":
		return &Error{Code: Invalid, Field: kind.Field, Reason: fmt.Sprintf("a JSON %s is not what is wanted (%s)", kind.Value, kind.Type)}
	case errors.As(err, &kind):
		return &Error{Code: Invalid, Field: field, Reason: fmt.Sprintf("the payload must be a JSON object or empty, not a JSON %s", kind.Value)}
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &Error{Code: Invalid, Field: field, Reason: "the payload is not JSON: " + err.Error()}
	}
	return &Error{Code: Invalid, Field: field, Reason: err.Error()}
}

// jsonNames are the names of a struct's fields as JSON has them.
func jsonNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}
