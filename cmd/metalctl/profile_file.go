package main

import (
	"embed"
	"fmt"
	"path"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/metalctl/metalctl/fleet"
)

// profileFile is kind Profile of a fleet file.
type profileFile struct {
	Kind string `json:"kind" enum:"Profile" required:"true"`
	Name string `json:"name" required:"true"`
	// Doc says in one sentence when to use it.
	Doc string `json:"doc,omitempty"`
	// Rounds is how often the stages are run, one round after the other.
	Rounds int `json:"rounds" required:"true"`
	// Stages are run in this order. Each is a step of its own, so that a crash costs one of them.
	Stages []fleet.BurnStage `json:"stages" required:"true"`
	// Limits are used before those of the class.
	Limits []fleet.Limit `json:"limits,omitempty"`
}

// profileOf reads a document of kind Profile.
func profileOf(file string, body ast.Node) (fleet.BurnProfile, error) {
	var f profileFile
	if err := strictly(file, body, &f); err != nil {
		return fleet.BurnProfile{}, err
	}
	p := fleet.BurnProfile{Name: f.Name, Doc: f.Doc, Rounds: f.Rounds, Stages: f.Stages, Limits: f.Limits}
	return p, valueFaults(file, body, "profile "+p.Name, p.Validate())
}

// profileFiles are the profiles that ship.
//
//go:embed profiles/*.yaml
var profileFiles embed.FS

// standardProfiles are the profiles that ship, by name.
func standardProfiles() ([]fleet.BurnProfile, error) {
	files, err := profileFiles.ReadDir("profiles")
	if err != nil {
		return nil, err
	}
	var out []fleet.BurnProfile
	for _, f := range files {
		b, err := profileFiles.ReadFile(path.Join("profiles", f.Name()))
		if err != nil {
			return nil, err
		}
		p, err := parseProfile(f.Name(), b)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// parseProfile reads a file with one profile.
func parseProfile(name string, data []byte) (fleet.BurnProfile, error) {
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		return fleet.BurnProfile{}, yamlError(name, err)
	}
	if len(doc.Docs) != 1 || doc.Docs[0].Body == nil {
		return fleet.BurnProfile{}, fleet.Errorf(fleet.Invalid, "MC-FILE-VALUE", "%s: want one document of kind Profile", name)
	}
	p, err := profileOf(name, doc.Docs[0].Body)
	if err != nil {
		return p, fmt.Errorf("profile: %w", err)
	}
	return p, nil
}
