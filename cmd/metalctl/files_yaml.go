package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/metalctl/metalctl/fleet"
)

// strictly reads a document into v: an unknown key or a wrong type is an error with file, line and column.
func strictly(file string, body ast.Node, v any) error {
	// The library panics on a tag of one's own before what should be a list (goccy/go-yaml 1.19.2).
	err := fleet.Catch(func() error { return yaml.NodeToValue(body, v, yaml.Strict()) })
	var broken *fleet.Panic
	switch {
	case errors.As(err, &broken):
		return fleet.Errorf(fleet.Invalid, "MC-FILE-VALUE", "%s:%d: the document cannot be read; tags (!name) are not known here", file, body.GetToken().Position.Line)
	case err != nil:
		return yamlError(file, err)
	}
	return nil
}

// yamlError puts the file's name before the line and column that the YAML library tells.
func yamlError(name string, err error) error {
	var y yaml.Error
	if errors.As(err, &y) {
		pos := y.GetToken().Position
		return fleet.Errorf(fleet.Invalid, "MC-FILE-YAML", "%s:%d:%d: %s", name, pos.Line, pos.Column, y.GetMessage())
	}
	return fleet.Errorf(fleet.Invalid, "MC-FILE-YAML", "%s: %w", name, err)
}

// fileKeys are the keys of a fleet file whose names differ from the API's fields.
var fileKeys = strings.NewReplacer("erase_level", "erase.level", "after_tenant", "burnin.after_tenant", "origins[", "image_origins[", "denied[", "image_denied[")

// valueFaults refuses a document by the lines of what is wrong with it, before anything of its file is sent.
func valueFaults(file string, body ast.Node, what string, found []fleet.FieldError) error {
	if len(found) == 0 {
		return nil
	}
	e := fleet.Errorf(fleet.Invalid, "MC-FILE-VALUE", "%s:%d: the %s is not valid", file, startOf(body).Line, strings.TrimSpace(what))
	line := func(f fleet.FieldError) int { return lineOf(body, fileKeys.Replace(f.Field)) }
	slices.SortStableFunc(found, func(a, b fleet.FieldError) int { return line(a) - line(b) })
	for _, f := range found {
		field := fileKeys.Replace(f.Field)
		e.Fields = append(e.Fields, fleet.FieldError{Field: fmt.Sprintf("%s:%d: %s", file, line(f), field), Message: f.Message})
	}
	return e
}

// lineOf is the line of a field such as expect.limits[2].unit, or of what it is missing in.
func lineOf(body ast.Node, field string) int {
	for at := field; at != ""; {
		if p, err := yaml.PathString("$." + at); err == nil {
			if n, err := p.FilterNode(body); err == nil && n != nil && n.GetToken() != nil {
				return startOf(n).Line
			}
		}
		at = at[:max(0, strings.LastIndexAny(at, ".["))]
	}
	return startOf(body).Line
}

// startOf is where a node begins: the token of a mapping is its first colon, and of a block on lines of its own that may be any.
func startOf(n ast.Node) *token.Position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken().Position
	}
	return n.GetToken().Position
}
