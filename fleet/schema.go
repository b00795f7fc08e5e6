package fleet

import (
	"encoding/json"

	"github.com/invopop/jsonschema"
)

// payloadSchema is the JSON Schema of a payload type, of one piece.
func payloadSchema(v any) *jsonschema.Schema {
	r := jsonschema.Reflector{DoNotReference: true, ExpandedStruct: true, Anonymous: true}
	return r.Reflect(v)
}

// commandSchema is the JSON Schema of a command with these arguments.
func commandSchema(args any) json.RawMessage {
	s := payloadSchema(args)
	envelope := payloadSchema(Envelope{})
	for p := envelope.Properties.Oldest(); p != nil; p = p.Next() {
		s.Properties.Set(p.Key, p.Value)
	}
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a schema made of a Go type
	}
	return text
}
