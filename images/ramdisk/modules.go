package ramdisk

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// module is a kernel module with what depmod would know about it.
type module struct {
	name    string // with underscores
	path    string // inside lib/modules/RELEASE, without a compression suffix
	data    []byte
	aliases []string
	depends []string
	pre     []string // soft dependencies
}

// moduleTree finds and reads the modules of one kernel.
type moduleTree struct {
	files   Files
	paths   map[string]string // by name
	builtin map[string]bool
	read    map[string]*module
}

// moduleSuffixes are the forms that distributions install modules in.
var moduleSuffixes = []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"}

func moduleName(file string) (string, bool) {
	for _, s := range moduleSuffixes {
		if name, ok := strings.CutSuffix(path.Base(file), s); ok {
			return underscored(name), true
		}
	}
	return "", false
}

func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

func openModules(files Files) (*moduleTree, error) {
	t := &moduleTree{files: files, paths: map[string]string{}, builtin: map[string]bool{}, read: map[string]*module{}}
	names, err := files.List()
	if err != nil {
		return nil, fmt.Errorf("list kernel modules: %w", err)
	}
	for _, p := range names {
		if name, ok := moduleName(p); ok {
			t.paths[name] = p
		}
	}
	if len(t.paths) == 0 {
		return nil, fmt.Errorf("list kernel modules: there are none")
	}
	list, err := files.Read("modules.builtin")
	if err != nil {
		return nil, fmt.Errorf("read the list of built-in modules: %w", err)
	}
	for _, line := range strings.Fields(string(list)) {
		if name, ok := moduleName(line); ok {
			t.builtin[name] = true
		}
	}
	return t, nil
}

// get reads a module and its metadata.
func (t *moduleTree) get(name string) (*module, error) {
	if m, ok := t.read[name]; ok {
		return m, nil
	}
	p, ok := t.paths[name]
	if !ok {
		return nil, fmt.Errorf("kernel module %s: %w", name, fs.ErrNotExist)
	}
	raw, err := t.files.Read(p)
	if err != nil {
		return nil, fmt.Errorf("read kernel module %s: %w", name, err)
	}
	m := &module{name: name, path: p}
	if path.Ext(p) != ".ko" {
		m.path = strings.TrimSuffix(p, path.Ext(p))
	}
	if m.data, err = expand(p, raw); err != nil {
		return nil, fmt.Errorf("expand kernel module %s: %w", name, err)
	}
	if err := m.readInfo(); err != nil {
		return nil, fmt.Errorf("read kernel module %s: %w", name, err)
	}
	t.read[name] = m
	return m, nil
}

// maxModule bounds a decompressed module in bytes.
const maxModule = 64 << 20

// expand undoes a distribution's compression: the agent's loader takes plain modules, and the ramdisk is compressed anyway.
func expand(name string, raw []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch path.Ext(name) {
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(raw))
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(raw))
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		return raw, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(out) > maxModule {
		err = fmt.Errorf("it has more than %d bytes", maxModule)
	}
	return out, err
}

// readInfo reads the .modinfo section: strings of the form key=value, each ended by a zero byte.
func (m *module) readInfo() error {
	f, err := elf.NewFile(bytes.NewReader(m.data))
	if err != nil {
		return err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return fmt.Errorf("it has no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return err
	}
	for _, kv := range bytes.Split(info, []byte{0}) {
		key, value, _ := strings.Cut(string(kv), "=")
		switch key {
		case "alias":
			m.aliases = append(m.aliases, value)
		case "depends":
			for _, d := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				m.depends = append(m.depends, underscored(d))
			}
		case "softdep":
			m.pre = append(m.pre, softPre(value)...)
		}
	}
	return nil
}

// softPre returns the modules that a softdep line wants before.
func softPre(line string) (pre []string) {
	before := false
	for _, word := range strings.Fields(line) {
		switch word {
		case "pre:":
			before = true
		case "post:":
			before = false
		default:
			if real, ok := softAliases[word]; before && ok {
				pre = append(pre, real...)
			} else if before {
				pre = append(pre, underscored(word))
			}
		}
	}
	return pre
}

// closure is the modules that were asked for, with everything they need.
type closure struct {
	modules map[string]*module
	missing []string // asked for, neither a module nor built in
}

func (t *moduleTree) closure(names []string) (*closure, error) {
	c := &closure{modules: map[string]*module{}}
	var visit func(name string, hard bool) error
	visit = func(name string, hard bool) error {
		if c.modules[name] != nil || t.builtin[name] {
			return nil
		}
		if _, ok := t.paths[name]; !ok {
			if hard {
				return fmt.Errorf("kernel module %s: %w", name, fs.ErrNotExist)
			}
			return nil
		}
		m, err := t.get(name)
		if err != nil {
			return err
		}
		c.modules[name] = m
		for _, d := range m.depends {
			if err := visit(d, true); err != nil {
				return fmt.Errorf("%s needs %w", name, err)
			}
		}
		for _, d := range m.pre {
			if err := visit(d, false); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		name = underscored(name)
		if _, ok := t.paths[name]; !ok && !t.builtin[name] {
			c.missing = append(c.missing, name)
		}
		if err := visit(name, false); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// order returns everything that m needs, in the order in which to load it; m itself is not in it.
func (c *closure) order(m *module) (out []*module) {
	seen := map[string]bool{m.name: true}
	var visit func(m *module)
	visit = func(m *module) {
		for _, d := range append(append([]string(nil), m.pre...), m.depends...) {
			if dm := c.modules[d]; dm != nil && !seen[d] {
				seen[d] = true
				visit(dm)
				out = append(out, dm)
			}
		}
	}
	visit(m)
	return out
}

// install puts the modules and their tables into the archive below lib/modules/release. modules.dep lists, as depmod does,
// what a module needs with the first to load last.
func (c *closure) install(a *archive, release string, builtin []byte) {
	root := "lib/modules/" + release + "/"
	names := make([]string, 0, len(c.modules))
	for name := range c.modules {
		names = append(names, name)
	}
	sort.Strings(names)
	var dep, alias strings.Builder
	for _, name := range names {
		m := c.modules[name]
		a.file(root+m.path, 0o644, m.data)
		dep.WriteString(m.path + ":")
		needs := c.order(m)
		for i := len(needs) - 1; i >= 0; i-- {
			dep.WriteString(" " + needs[i].path)
		}
		dep.WriteByte('\n')
		for _, al := range m.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", al, name)
		}
	}
	a.file(root+"modules.dep", 0o644, []byte(dep.String()))
	a.file(root+"modules.alias", 0o644, []byte(alias.String()))
	a.file(root+"modules.builtin", 0o644, builtin)
}
