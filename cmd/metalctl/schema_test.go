//go:build !ramdisk

package main

import (
	"encoding"
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
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/goccy/go-yaml"

	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fixtures/rack"
	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
)

// fileKind is one of fileKinds.
type fileKind struct {
	kind, title string
	documents   []reflect.Type
}

// fileKinds are the kinds of files that people write, and reports, and what each document of them is read into.
var fileKinds = []fileKind{
	{"fault", "What is wrong with a machine that is not there (agent inspect --fault, fault: in lab.yaml)", []reflect.Type{reflect.TypeFor[profiles.Faults]()}},
	{"fleet", "Nodes, classes, burn-in profiles, images, fabrics, partitions, switches, networks and the site of a fleet (node enroll -f, class apply -f, profile apply -f, site apply -f, fabric apply -f, switch apply -f, network apply -f)",
		[]reflect.Type{reflect.TypeFor[nodeFile](), reflect.TypeFor[classFile](), reflect.TypeFor[imageFile](), reflect.TypeFor[profileFile](), reflect.TypeFor[siteFile](),
			reflect.TypeFor[fabricFile](), reflect.TypeFor[partitionFile](), reflect.TypeFor[switchFile](), reflect.TypeFor[networkFile]()}},
	{"lab", "A simulated rack (sim up -f)", []reflect.Type{reflect.TypeFor[rack.Lab]()}},
	{"machine", "A machine that is not there, in a folder of its own (agent inspect --fixture)", []reflect.Type{reflect.TypeFor[profiles.Machine]()}},
	{"report", "The report of a burn-in (agent burn --json, burnin report --format json)", []reflect.Type{reflect.TypeFor[fleet.BurnReport]()}},
	{"server", "The server's configuration (server --config)", []reflect.Type{reflect.TypeFor[serverConfig]()}},
}

// schemaMaker turns types that YAML is read into to those that huma reads as JSON: with the names that the YAML library takes, and the comments of the sources.
type schemaMaker struct {
	comments map[string]string // by package path, type and field
	made     map[reflect.Type]reflect.Type
	names    map[reflect.Type]string // of what was made
	busy     map[reflect.Type]bool
	again    map[string]string // "Function.below" of a type that holds itself, and that type's name
}

// schemaSources are the folders of those types.
var schemaSources = map[string]string{module + "/cmd/metalctl": ".", module + "/fleet": "../../fleet", module + "/fixtures/rack": "../../fixtures/rack", module + "/fixtures/profiles": "../../fixtures/profiles"}

func newSchemaMaker(t *testing.T) *schemaMaker {
	t.Helper()
	m := &schemaMaker{comments: map[string]string{}, made: map[reflect.Type]reflect.Type{}, names: map[reflect.Type]string{}, busy: map[reflect.Type]bool{}, again: map[string]string{}}
	for pkg, dir := range schemaSources {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.TypeSpec); ok {
					m.readComments(pkg+"."+s.Name.Name, s.Type)
				}
				return true
			})
		}
	}
	return m
}

func (m *schemaMaker) readComments(of string, t ast.Expr) {
	switch x := t.(type) {
	case *ast.ArrayType:
		m.readComments(of, x.Elt)
	case *ast.StructType:
		above := "" // a comment may speak of the fields that follow, too
		for _, f := range x.Fields.List {
			text := strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
			for _, n := range f.Names {
				if text != "" {
					above = text
				} else if slices.Contains(strings.FieldsFunc(above, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), n.Name) {
					text = above
				}
				m.comments[of+"."+n.Name] = text
				m.readComments(of+"."+n.Name, f.Type)
			}
		}
	}
}

// yamlName is what the YAML library calls a field; "" where it does not read it.
func yamlName(f reflect.StructField) string {
	for _, key := range []string{"yaml", "json"} {
		if tag, ok := f.Tag.Lookup(key); ok {
			name, _, _ := strings.Cut(tag, ",")
			return strings.TrimPrefix(name, "-")
		}
	}
	return strings.ToLower(f.Name)
}

// of makes the type that huma reads; at is where its comments are.
func (m *schemaMaker) of(t reflect.Type, at, name string) reflect.Type {
	if t.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return t
	}
	switch t.Kind() {
	case reflect.Pointer: // what may be left out may not be null
		return m.of(t.Elem(), at, name)
	case reflect.Slice:
		return reflect.SliceOf(m.of(t.Elem(), at, name))
	case reflect.Map:
		return reflect.MapOf(t.Key(), m.of(t.Elem(), at, name))
	case reflect.Struct:
	default:
		return t
	}
	if made := m.made[t]; made != nil {
		return made
	}
	if t.Name() != "" {
		at, name = t.PkgPath()+"."+t.Name(), t.Name()
	}
	m.busy[t] = true
	var fields []reflect.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		key := yamlName(f)
		if !f.IsExported() || key == "" {
			continue
		}
		elem := f.Type
		for elem.Kind() == reflect.Slice || elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		made := reflect.TypeFor[[]any]()
		if m.busy[elem] {
			m.again[name+"."+key] = elem.Name()
		} else {
			made = m.of(f.Type, at+"."+f.Name, name+f.Name)
		}
		_, yamlTag := f.Tag.Lookup("yaml")
		json := f.Tag.Get("json")
		required := f.Tag.Get("required") == "true" || t.PkgPath() == module+"/fleet" && !yamlTag && !strings.Contains(json, "omitempty") && !strings.Contains(json, "omitzero")
		tag := fmt.Sprintf(`json:%q required:"%t" doc:%q`, key, required, m.comments[at+"."+f.Name])
		if words := f.Tag.Get("enum"); words != "" {
			tag += fmt.Sprintf(` enum:%q`, words)
		}
		fields = append(fields, reflect.StructField{Name: f.Name, Type: made, Tag: reflect.StructTag(tag)})
	}
	delete(m.busy, t)
	made := reflect.StructOf(fields)
	m.made[t], m.names[made] = made, strings.ToUpper(name[:1])+name[1:]
	return made
}

// schema writes the JSON Schema of one kind of file, and the registry that checks values by it.
func (m *schemaMaker) schema(t *testing.T, title string, documents []reflect.Type) (huma.Registry, *huma.Schema, string) {
	t.Helper()
	reg := huma.NewMapRegistry("#/$defs/", func(t reflect.Type, hint string) string {
		if name := m.names[t]; name != "" {
			return name
		}
		return huma.DefaultSchemaNamer(t, hint)
	})
	root := &huma.Schema{}
	for _, d := range documents {
		root.OneOf = append(root.OneOf, reg.Schema(m.of(d, "", ""), true, d.Name()))
	}
	for place, name := range m.again {
		def, key, _ := strings.Cut(place, ".")
		if s := reg.Map()[def]; s != nil {
			s.Properties[key].Items = &huma.Schema{Ref: "#/$defs/" + name}
		}
	}
	if e := reg.Map()["ClassExpect"]; e != nil {
		for path, words := range fleet.ExpectWords {
			wordsOf(t, reg, e, path, words)
		}
		var checks []string
		for _, c := range fleet.LimitChecks {
			checks = append(checks, c.Name)
		}
		wordsOf(t, reg, e, "limits.check", checks)
	}
	for was, made := range m.made { // a count may stand for the whole
		if s := reg.Map()[m.names[made]]; s != nil && reflect.PointerTo(was).Implements(reflect.TypeFor[json.Unmarshaler]()) && s.Properties["count"] != nil {
			whole := *s
			*s = huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeInteger, Description: "the count alone"}, &whole}}
		}
	}
	if s := reg.Map()["ClassBurn"]; s != nil { // its profile alone may stand for the whole
		whole := *s
		*s = huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, Description: "the profile alone, or none"}, &whole}}
	}
	if s := reg.Map()["BurnStage"]; s != nil {
		for _, name := range fleet.StressorNames() {
			s.Properties["stress"].Items.Enum = append(s.Properties["stress"].Items.Enum, name)
		}
	}
	if s := reg.Map()["BurnReport"]; s != nil {
		for _, at := range []*huma.Schema{s.Properties["verdict"], reg.Map()["Check"].Properties["outcome"]} {
			at.Enum = []any{"pass", "warn", "fail", "error", "skip"}
		}
		for _, curve := range []string{"mean", "min", "max"} { // null: nothing was sampled then
			reg.Map()["Series"].Properties[curve].Items.Nullable = true
		}
	}
	for _, s := range reg.Map() {
		s.PrecomputeMessages()
		for _, one := range s.OneOf {
			one.PrecomputeMessages()
		}
	}
	out := map[string]any{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, "$defs": reg.Map()}
	if len(root.OneOf) == 1 {
		root = root.OneOf[0]
		out["$ref"] = root.Ref
	} else {
		out["oneOf"] = root.OneOf
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return reg, root, string(b) + "\n"
}

// wordsOf bounds the property at a path to some words.
func wordsOf(t *testing.T, reg huma.Registry, s *huma.Schema, path string, words []string) {
	t.Helper()
	for _, key := range strings.Split(path, ".") {
		if s = s.Properties[key]; s == nil {
			t.Fatalf("there is no %s in ClassExpect", path)
		}
		if s.Items != nil {
			s = s.Items
		}
		if s.Ref != "" {
			s = reg.SchemaFromRef(s.Ref)
		}
	}
	for _, w := range words {
		s.Enum = append(s.Enum, w)
	}
}

// TestDocsSchemas compares the schemas with the types, and holds them to files that the program takes and to some that it refuses.
func TestDocsSchemas(t *testing.T) {
	good, bad := schemaSamples(t)
	var kinds []string
	for _, k := range fileKinds {
		kinds = append(kinds, k.kind)
		t.Run(k.kind, func(t *testing.T) {
			reg, schema, text := newSchemaMaker(t).schema(t, k.title, k.documents)
			golden(t, filepath.Join("schemas", k.kind+".json"), text)
			check := func(text string) []error {
				var all []error
				for doc := range strings.SplitSeq(text, "\n---\n") {
					var v any
					j, err := yaml.YAMLToJSON([]byte(doc))
					if err == nil {
						err = json.Unmarshal(j, &v)
					}
					if err != nil {
						t.Fatalf("%v in %s", err, doc)
					}
					res := &huma.ValidateResult{}
					huma.Validate(reg, schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, v, res)
					all = append(all, res.Errors...)
				}
				return all
			}
			if len(good[k.kind]) == 0 || len(bad[k.kind]) == 0 {
				t.Fatal("no samples")
			}
			for name, text := range good[k.kind] {
				if errs := check(text); len(errs) > 0 {
					t.Errorf("%s is taken by the program, and not by the schema: %v", name, errs)
				}
			}
			for _, text := range bad[k.kind] {
				if errs := check(text); len(errs) == 0 {
					t.Errorf("taken: %s", text)
				}
			}
		})
	}
	rows, err := schemaRows()
	if err != nil {
		t.Fatal(err)
	}
	if got := namesOf(rows, func(r schemaRow) string { return r.Kind }); !slices.Equal(got, kinds) {
		t.Errorf("schemas of %v, kinds %v", got, kinds)
	}
}

// writtenReport is a report as it is written.
func writtenReport(t testing.TB, sick string) []byte {
	t.Helper()
	b, err := json.Marshal(reports.Of(reports.Options{Hours: 1, Sick: sick, Buckets: 2}))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spoiled makes of a document all that it becomes by one wrong thing somewhere: a key too many, one too few that must be there, a value of another type. Of a
// list the first entry is spoiled.
func spoiled(v any, required func(path string, key string) bool, path string, yield func(what string)) {
	switch x := v.(type) {
	case map[string]any:
		x["no_such_key"] = 1.0
		yield(path + ": a key too many")
		delete(x, "no_such_key")
		for _, k := range slices.Sorted(maps.Keys(x)) {
			was := x[k]
			if required(path, k) {
				delete(x, k)
				yield(path + "." + k + ": is missing")
			}
			x[k] = map[string]any{"no_such_key": 1.0}
			yield(path + "." + k + ": is another object")
			x[k] = was
			spoiled(was, required, path+"."+k, yield)
		}
	case []any:
		if len(x) == 0 {
			return
		}
		was := x[0]
		x[0] = []any{[]any{}}
		yield(path + "[0]: is a list")
		x[0] = was
		spoiled(was, required, path+"[]", yield)
	}
}

// TestReportSchemaRefuses spoils a report in every place that the schema knows, and nothing of that is taken.
func TestReportSchemaRefuses(t *testing.T) {
	i := slices.IndexFunc(fileKinds, func(k fileKind) bool { return k.kind == "report" })
	reg, schema, _ := newSchemaMaker(t).schema(t, fileKinds[i].title, fileKinds[i].documents)
	var v any
	if err := json.Unmarshal(writtenReport(t, reports.Hot), &v); err != nil {
		t.Fatal(err)
	}
	taken := func() bool {
		res := &huma.ValidateResult{}
		huma.Validate(reg, schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, v, res)
		return len(res.Errors) == 0
	}
	if !taken() {
		t.Fatal("the report itself is not taken")
	}
	n := 0
	must := func(path, key string) bool {
		return path == "" && slices.Contains([]string{"version", "profile", "verdict", "checks", "machine", "stages"}, key) ||
			path == ".checks[]" && slices.Contains([]string{"id", "component", "outcome"}, key) || path == ".series[]" && key != ""
	}
	spoiled(v, must, "", func(what string) {
		if n++; taken() {
			t.Errorf("taken: %s", what)
		}
	})
	if n < 100 {
		t.Errorf("only %d places were spoiled", n)
	}
	if !taken() {
		t.Error("the report was not put right again, so that less was shown than it seems")
	}
}

func schemaSamples(t *testing.T) (good map[string]map[string]string, bad map[string][]string) {
	t.Helper()
	good = map[string]map[string]string{
		"fleet":   {"goodFleet": goodFleet, "an image": "kind: Image\nname: x\nformat: raw\nsha256: " + strings.Repeat("a", 64)},
		"lab":     {"profile": "machines:\n  - {name: h1, class: eight, profile: hgx-h200, fault: gpu-lost, disks: [{size_bytes: 268435456}], bmc: {pace: -1, no_media: true}, faults: [{path: /x, status: 503}]}"},
		"fault":   {},
		"machine": {},
		"report":  {},
		"server":  {"nothing": "{}"},
	}
	for _, sick := range []string{reports.Healthy, reports.Silent, reports.Hot, reports.Platform} {
		good["report"]["sick: "+sick] = string(writtenReport(t, sick))
	}
	bad = map[string][]string{
		"fleet": {"kind: Class\nname: x", "kind: Toaster\nname: x", "kind: Class\nname: x\nburnin: none\nerase: {level: purge}\nexpect: {gpus: {cuont: 8}}",
			"kind: Class\nname: x\nburnin: none\nerase: {level: purge}\nexpect: {topology: {rail: FAR}}", "kind: Class\nname: x\nburnin: none\nerase: {level: purge}\nexpect: {limits: [{check: nvme-used, value: 80, unit: percent}]}"},
		"lab":     {"machines: [{nmae: x}]", "machines: [{name: x, cpus: many}]"},
		"fault":   {"version: 1\nfaults: [{name: x, words: y, absnet: true}]"},
		"machine": {"version: 1\nname: x\npci: [{bus: '0000:10', functions: [{at: '10:01.0', below: [{prat: root}]}]}]"},
		"report":  {"{}", "[]"},
		"server":  {"lisetn: 127.0.0.1:1", "backup_keep: many"},
	}
	for kind, files := range map[string]string{"machine": "../../fixtures/profiles/data/*.yaml", "fault": "../../fixtures/profiles/faults/*.yaml", "fleet": "classes/*.yaml"} {
		found, err := filepath.Glob(files)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", files, err)
		}
		for _, f := range found {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			good[kind][f] = string(b)
		}
	}
	b, err := yaml.Marshal(defaultServerConfig())
	if err != nil {
		t.Fatal(err)
	}
	good["server"]["the defaults"] = string(b)
	class, err := classTemplateOf("hgx-h200")
	if err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	class.class.Expect.GPUs = fleet.ExpectGPUs{Count: 8} // printed as a number
	if err := printClassFile(&printed, class.class); err != nil {
		t.Fatal(err)
	}
	good["fleet"]["printed"] = printed.String()
	if !maps.EqualFunc(good, bad, func(a map[string]string, b []string) bool { return len(a) > 0 && len(b) > 0 }) {
		t.Fatal("a kind has no samples")
	}
	return good, bad
}
