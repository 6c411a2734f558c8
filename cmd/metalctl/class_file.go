//go:build !ramdisk

package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/metalctl/metalctl/fleet"
)

// classFile is kind Class of a fleet file.
type classFile struct {
	Kind   string            `json:"kind" enum:"Class" required:"true"`
	Name   string            `json:"name" required:"true"`
	Expect fleet.ClassExpect `json:"expect,omitzero"`
	// BurnIn is the profile that a new node has to pass, or the word none.
	BurnIn classBurn `json:"burnin" required:"true"`
	// Erase is what cleaning has to reach (NIST SP 800-88).
	Erase struct {
		Level string `json:"level" enum:"clear,purge" required:"true"`
		// AcceptFormat lets an NVMe Format with secure erase count as a purge.
		AcceptFormat bool `json:"accept_format,omitempty"`
	} `json:"erase" required:"true"`
	// Clean is what cleaning is to reach beyond the disks.
	Clean fleet.CleanPolicy `json:"clean,omitzero"`
	// PowerOffAvailable powers nodes off while nobody uses them; otherwise the agent stays up.
	PowerOffAvailable bool `json:"power_off_available,omitempty"`
	// Packs are what the agent fetches before it works, each NAME@VERSION, or sha256: and a digest.
	Packs []string `json:"packs,omitempty"`
	// Ramdisk pins what its nodes boot.
	Ramdisk string `json:"ramdisk,omitempty"`
	// Power is what one of its nodes draws; what is left out is the site's.
	Power fleet.ClassPower `json:"power,omitzero"`
}

// classBurn is a word in a file where only the profile is given.
type classBurn struct {
	// Profile is what a new node has to pass, or the word none.
	Profile string `json:"profile" required:"true"`
	// AfterTenant is the profile that runs after every tenancy; handover where it is left out.
	AfterTenant string `json:"after_tenant,omitempty"`
}

func (b classBurn) MarshalJSON() ([]byte, error) {
	type whole classBurn
	if b.AfterTenant == "" {
		return json.Marshal(b.Profile)
	}
	return json.Marshal(whole(b))
}

// UnmarshalYAML keeps line and column in what the reader says.
func (b *classBurn) UnmarshalYAML(read func(any) error) error {
	type whole classBurn
	*b = classBurn{}
	if read(&b.Profile) == nil {
		return nil
	}
	return read((*whole)(b))
}

func (c classFile) class() fleet.Class {
	return fleet.Class{
		Name: c.Name, Expect: c.Expect,
		BurnIn: c.BurnIn.Profile, AfterTenant: c.BurnIn.AfterTenant, EraseLevel: c.Erase.Level, AcceptFormat: c.Erase.AcceptFormat, Clean: c.Clean, PowerOffAvailable: c.PowerOffAvailable, Packs: c.Packs, Ramdisk: c.Ramdisk, Power: c.Power,
	}
}

// printClassFile writes a class as the file that `class apply` takes.
func printClassFile(w io.Writer, c fleet.Class) error {
	f := classFile{Kind: "Class", Name: c.Name, Expect: c.Expect, BurnIn: classBurn{c.BurnIn, c.AfterTenant}, Clean: c.Clean, PowerOffAvailable: c.PowerOffAvailable, Packs: c.Packs, Ramdisk: c.Ramdisk, Power: c.Power}
	f.Erase.Level, f.Erase.AcceptFormat = c.EraseLevel, c.AcceptFormat
	j, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode class %s: %w", c.Name, err)
	}
	y, err := yaml.JSONToYAML(j)
	if err != nil {
		return fmt.Errorf("encode class %s: %w", c.Name, err)
	}
	_, err = w.Write(append([]byte(editorLine), y...))
	return err
}

// shipped are classes to begin with, one for each GPU server that is built in as a profile.
//
//go:embed classes/*.yaml
var shipped embed.FS

// classTemplate is one of them.
type classTemplate struct {
	class fleet.Class
	text  []byte // as it was written, with comments
}

// classTemplates are all that ship, by name.
func classTemplates() ([]classTemplate, error) {
	files, err := shipped.ReadDir("classes")
	if err != nil {
		return nil, err
	}
	var out []classTemplate
	for _, f := range files {
		b, err := shipped.ReadFile(path.Join("classes", f.Name()))
		if err != nil {
			return nil, err
		}
		ff, err := parseFleetFile(f.Name(), b, nil) // a class names no files
		if err != nil {
			return nil, err
		}
		for _, c := range ff.classes {
			out = append(out, classTemplate{c, b})
		}
	}
	return out, nil
}

func classTemplateOf(name string) (classTemplate, error) {
	all, err := classTemplates()
	if err != nil {
		return classTemplate{}, err
	}
	var names []string
	for _, t := range all {
		if t.class.Name == name {
			return t, nil
		}
		names = append(names, t.class.Name)
	}
	return classTemplate{}, fleet.Errorf(fleet.NotFound, "MC-CLASS-UNKNOWN", "no class %q ships with metalctl; there are %s", name, strings.Join(names, ", ")).WithHint("metalctl class list --origin template")
}
