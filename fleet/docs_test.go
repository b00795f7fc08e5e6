package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"text/template"
	"time"

	"github.com/invopop/jsonschema"
)

// payloads are the types that have a schema of their own, by file name.
var payloads = map[string]any{
	"health": Health{}, "model": ModelCard{}, "camera-state": CameraState{}, "event": Event{}, "auto-source": AutoSource{},
	"command-state": CommandState{}, "adapt-result": AdaptResult{}, "verb": VerbCard{},
}

// verbArgs are the contract's arguments; a daemon offers its verbs with these.
var verbArgs = map[Verb]any{
	VerbAdapt: AdaptArgs{}, VerbCancel: CancelArgs{}, VerbPromote: PromoteArgs{}, VerbRollback: RollbackArgs{},
	VerbAuto: AutoArgs{}, VerbSnapshot: SnapshotArgs{}, VerbHealth: NoArgs{}, VerbReload: NoArgs{},
}

// topicDocs are the rows of the page's first table. TestDocs compares them with
// what a device really publishes.
var topicDocs = []struct {
	topic    string
	qos      byte
	retained bool
	payload  string
}{
	{docTopics.Availability(), 1, true, "`online`, or `offline`, which is also the last will"},
	{docTopics.Status(), 1, true, "[Health](#status)"},
	{docTopics.Model(), 1, true, "the model card"},
	{docTopics.CameraAvailability("<cam>"), 1, true, "`online`, `offline`"},
	{docTopics.CameraState("<cam>"), 0, true, "what the camera shows"},
	{docTopics.CameraImage("<cam>"), 0, false, "[a picture](#pictures), when asked for"},
	{docTopics.Event(), 1, false, "what happened"},
	{docTopics.Auto(), 1, true, "`ON`, `OFF`: automatic adaptation"},
	{docTopics.AutoSource(), 1, true, "who set it"},
	{docTopics.Verb("<verb>"), 1, true, "what the verb takes; empty if the device does not offer it"},
	{docTopics.CommandState("<verb>", "<id>"), 1, true, "[the answer](#the-answer)"},
	{docTopics.Set("<verb>"), 1, false, "to the device: a dashboard's press"},
	{docTopics.Command("<verb>", "<id>"), 1, false, "to the device: [a command](#commands)"},
	{docTopics.fleetWide().Command("<verb>", "<id>"), 1, false, "to all devices: a command"},
}

// deviceACL is what Mosquitto is told of the rights of devices; TestRights tries
// it.
const deviceACL = `pattern write fovea/%u/#
pattern read fovea/%u/cmd/#
pattern read fovea/all/cmd/#
pattern read homeassistant/status
pattern write homeassistant/+/%u/#
`

var docTopics = Topics{Root: "fovea", Device: "<dev>"}

// TestDocs compares docs/mqtt.md and docs/schema with the code; -update writes
// them.
func TestDocs(t *testing.T) {
	src := parseSource(t)
	page := template.Must(template.New("mqtt.md.tmpl").Funcs(template.FuncMap{
		"topics": topicTable,
		"verbs":  func() string { return verbTable(src) },
		"fields": func(name string) string { return table("field | type | meaning", src.fields(name, "")) },
		"consts": func(kind string) string { return table("word | meaning", src.consts(kind)) },
		"remote": func() string { return words(RemoteByDefault) }, "everyone": func() string { return words(fleetWideVerbs) },
		"filters": func() string {
			d := haDevice(t, DiscoveryDevice, nil)
			d.topics = docTopics
			return "`" + strings.Join(d.filters(), "`, `") + "`"
		},
		"pressEvery": func() int { return int(pressEvery.Seconds()) }, "acl": func() string { return deviceACL }, "queueLimit": func() int { return QueueLimit }, "imageLimit": func() int { return ImageLimit >> 10 },
		"memoryLimit": func() int { return memoryLimit }, "memoryAge": func() string { return days(memoryAge) },
		"retainedAge": func() string { return days(retainedAge) }, "retainedLimit": func() int { return retainedLimit },
	}).ParseFiles("testdata/mqtt.md.tmpl"))
	var text bytes.Buffer
	if err := page.Execute(&text, nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "../docs/mqtt.md", text.Bytes())

	for name, v := range payloads {
		r := jsonschema.Reflector{DoNotReference: true, ExpandedStruct: true, Anonymous: true, AllowAdditionalProperties: true, CommentMap: src.comments}
		schema := r.Reflect(v)
		schema.Title = name
		out, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "../docs/schema/"+name+".json", append(out, '\n'))
	}
	for verb, args := range verbArgs {
		var out bytes.Buffer
		if err := json.Indent(&out, commandSchema(args), "", "  "); err != nil {
			t.Fatal(err)
		}
		golden(t, "../docs/schema/cmd-"+string(verb)+".json", append(out.Bytes(), '\n'))
	}
}

// TestTopicTable publishes everything there is and compares QoS and retain
// flags with the page.
func TestTopicTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{Images: true}, NewCommandLog(), NewQueue(100))
		defer k.close()
		k.say(func(s *Status) { s.Connected = true })
		k.SetHealth(Health{})
		k.SetModel(ModelCard{})
		k.SetCamera("yard", true)
		k.SetCameraState("yard", CameraState{})
		k.SetAuto(true, AutoSource{Source: SourceConfig})
		k.Emit(Event{Type: CameraBack})
		k.PublishImage("yard", []byte{0xff})
		k.ask(t, VerbHealth, "h", "")
		documented := map[topicKind]int{}
		for i, row := range topicDocs {
			documented[parseTopic("fovea", row.topic).kind] = i
		}
		seen := 0
		for topic := range k.broker.got {
			kind := parseTopic("fovea", topic).kind
			i, ok := documented[kind]
			if !ok {
				t.Errorf("%s is not in the table", topic)
				continue
			}
			if row := topicDocs[i]; row.qos != k.broker.qos[topic] || row.retained != k.broker.flags[topic] {
				t.Errorf("%s: QoS %d, retained %v; the table says %+v", topic, k.broker.qos[topic], k.broker.flags[topic], row)
			}
			delete(documented, kind)
			documented[kind] = i
			seen |= 1 << kind
		}
		for kind, i := range documented {
			if kind != setTopic && kind != commandTopic && seen&(1<<kind) == 0 {
				t.Errorf("%s was not published", topicDocs[i].topic)
			}
		}
	})
}

func topicTable() string {
	var rows [][]string
	for _, r := range topicDocs {
		retained := "no"
		if r.retained {
			retained = "yes"
		}
		rows = append(rows, []string{"`" + r.topic + "`", fmt.Sprint(r.qos), retained, r.payload})
	}
	return table("topic | QoS | retained | payload", rows)
}

func verbTable(src *source) string {
	meaning := map[string]string{}
	for _, row := range src.consts("Verb") {
		meaning[strings.Trim(row[0], "`")] = row[1]
	}
	var rows [][]string
	for _, v := range Verbs {
		var fields []string
		for _, f := range src.fields(reflect.TypeOf(verbArgs[v]).Name(), "") {
			fields = append(fields, f[0]+": "+f[2])
		}
		rows = append(rows, []string{"`" + string(v) + "`", meaning[string(v)], strings.Join(fields, "; ")})
	}
	return table("verb | what it does | fields", rows)
}

func table(head string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s", head, strings.Repeat("---|", strings.Count(head, "|")+1))
	for _, r := range rows {
		fmt.Fprintf(&b, "\n| %s |", strings.Join(r, " | "))
	}
	return b.String()
}

func words(verbs []Verb) string {
	var all []string
	for _, v := range verbs {
		all = append(all, "`"+string(v)+"`")
	}
	return strings.Join(all, ", ")
}

func days(d time.Duration) string {
	if d == 24*time.Hour {
		return "24 hours"
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// source is what this package's files say of types, fields and constants.
type source struct {
	structs  map[string]*ast.StructType
	values   map[string][][]string // by type: value, comment
	comments map[string]string     // for the schemas
}

func parseSource(t *testing.T) *source {
	t.Helper()
	s := &source{structs: map[string]*ast.StructType{}, values: map[string][][]string{}, comments: map[string]string{}}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	const pkg = "github.com/seed-a98b2d25/fovea/fleet"
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				st, ok := n.Type.(*ast.StructType)
				if !ok {
					break
				}
				s.structs[n.Name.Name] = st
				for _, f := range st.Fields.List {
					for _, ident := range f.Names {
						if c := oneLine(f.Comment.Text()); c != "" {
							s.comments[pkg+"."+n.Name.Name+"."+ident.Name] = c
						}
					}
				}
			case *ast.ValueSpec:
				kind, ok := n.Type.(*ast.Ident)
				if !ok || len(n.Values) != 1 {
					break
				}
				lit, ok := n.Values[0].(*ast.BasicLit)
				if ok && lit.Kind == token.STRING && lit.Value != `""` {
					s.values[kind.Name] = append(s.values[kind.Name], []string{"`" + strings.Trim(lit.Value, `"`) + "`", oneLine(n.Comment.Text())})
				}
			}
			return true
		})
	}
	return s
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (s *source) consts(kind string) [][]string { return s.values[kind] }

// fields are rows of a struct's fields as JSON has them, those of the structs
// inside behind a dot.
func (s *source) fields(name, prefix string) [][]string {
	var rows [][]string
	for _, f := range s.structs[name].Fields.List {
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		key, _, _ := strings.Cut(tag.Get("json"), ",")
		kind, inner := s.kind(f.Type)
		meaning := oneLine(f.Comment.Text())
		if meaning == "" {
			for _, part := range strings.Split(tag.Get("jsonschema"), ",") {
				if d, ok := strings.CutPrefix(part, "description="); ok {
					meaning = d
				}
			}
		}
		if enum := enums(tag); enum != "" {
			meaning = strings.TrimSuffix(enum+"; "+meaning, "; ")
		}
		rows = append(rows, []string{"`" + prefix + key + "`", kind, meaning})
		switch {
		case inner != "" && kind == "object by id":
			rows = append(rows, s.fields(inner, prefix+key+".<id>.")...)
		case inner != "":
			rows = append(rows, s.fields(inner, prefix+key+".")...)
		}
	}
	return rows
}

func enums(tag reflect.StructTag) string {
	var all []string
	for _, part := range strings.Split(tag.Get("jsonschema"), ",") {
		if v, ok := strings.CutPrefix(part, "enum="); ok {
			all = append(all, "`"+v+"`")
		}
	}
	return strings.Join(all, ", ")
}

// kind is what JSON makes of a type, and the struct inside if there is one.
func (s *source) kind(e ast.Expr) (kind, inner string) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return s.kind(e.X)
	case *ast.ArrayType:
		k, _ := s.kind(e.Elt)
		return "list of " + k + "s", ""
	case *ast.MapType:
		if k, in := s.kind(e.Value); in == "" {
			return "object of " + k + "s", ""
		} else {
			return "object by id", in
		}
	case *ast.SelectorExpr:
		if e.Sel.Name == "Time" {
			return "time", ""
		}
		return "any", ""
	case *ast.Ident:
		if _, ok := s.structs[e.Name]; ok {
			return "object", e.Name
		}
		switch {
		case e.Name == "bool":
			return "boolean", ""
		case strings.HasPrefix(e.Name, "int"), strings.HasPrefix(e.Name, "uint"):
			return "integer", ""
		case strings.HasPrefix(e.Name, "float"):
			return "number", ""
		}
		return "string", ""
	}
	return "?", ""
}

// TestSchemasFit: what a device publishes has exactly the fields of the
// schemas.
func TestSchemasFit(t *testing.T) {
	for name := range payloads {
		text, err := os.ReadFile("../docs/schema/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var schema struct {
			Properties map[string]any
			Required   []string
		}
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		v, err := json.Marshal(payloads[name])
		if err != nil {
			t.Fatal(err)
		}
		var written map[string]any
		if err := json.Unmarshal(v, &written); err != nil {
			t.Fatal(err)
		}
		// The zero value writes what is not omitted: exactly the required ones.
		if got, want := slices.Sorted(maps.Keys(written)), slices.Sorted(slices.Values(schema.Required)); !slices.Equal(got, want) {
			t.Errorf("%s: writes %v, the schema requires %v", name, got, want)
		}
	}
}
