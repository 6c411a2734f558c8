package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"golang.org/x/term"
)

// view is how a kind of object is printed: columns for tables, and how to read them off an object.
type view[T any] struct {
	columns []column[T]
	name    func(T) string
}

// column is one column of a table; wide ones are shown by -o wide, csv and when piped.
type column[T any] struct {
	head string
	wide bool
	text func(T) string
}

// print writes items in the format that -o asks for. JSON is exactly the API's shape: one object where single, else a list.
func (v view[T]) print(p *program, items []T, single bool) error {
	format := p.flags.output
	piped := format == ""
	if piped {
		format = "table"
	}
	switch format {
	case "json":
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		if single {
			return enc.Encode(items[0])
		}
		if items == nil {
			items = []T{}
		}
		return enc.Encode(items)
	case "jsonl":
		enc := json.NewEncoder(p.stdout)
		for _, it := range items {
			if err := enc.Encode(it); err != nil {
				return err
			}
		}
		return nil
	case "yaml":
		return printYAML(p.stdout, items, single)
	case "name":
		for _, it := range items {
			if _, err := fmt.Fprintln(p.stdout, v.name(it)); err != nil {
				return err
			}
		}
		return nil
	case "csv":
		return v.printCSV(p.stdout, items)
	case "table", "wide":
		rows := v.rows(items, format == "wide")
		if piped && !isTerminal(p.stdout) {
			return printTabs(p.stdout, rows[1:])
		}
		return printTable(p.stdout, rows)
	}
	return usageError("-o %s: want table, wide, json, jsonl, yaml, name or csv", format)
}

func (v view[T]) rows(items []T, wide bool) [][]string {
	head := []string{}
	for _, c := range v.columns {
		if !c.wide || wide {
			head = append(head, c.head)
		}
	}
	rows := [][]string{head}
	for _, it := range items {
		var row []string
		for _, c := range v.columns {
			if !c.wide || wide {
				row = append(row, printable(c.text(it)))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (v view[T]) printCSV(w io.Writer, items []T) error {
	cw := csv.NewWriter(w)
	if err := cw.WriteAll(v.rows(items, true)); err != nil {
		return fmt.Errorf("write csv: %w", err)
	}
	return nil
}

// printYAML goes through JSON, so that names and secrets are those of the API.
func printYAML[T any](w io.Writer, items []T, single bool) error {
	var value any = items
	if single {
		value = items[0]
	}
	j, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	y, err := yaml.JSONToYAML(j)
	if err != nil {
		return fmt.Errorf("encode yaml: %w", err)
	}
	_, err = w.Write(y)
	return err
}

func printTabs(w io.Writer, rows [][]string) error {
	for _, r := range rows {
		if _, err := fmt.Fprintln(w, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// printTable aligns columns by their width in characters.
func printTable(w io.Writer, rows [][]string) error {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// printable escapes control characters: names and messages come from BMCs and switches. Line breaks stay.
func printable(s string) string {
	clean := func(r rune) bool { return r == utf8.RuneError || (unicode.IsControl(r) && r != '\n') }
	if strings.IndexFunc(s, clean) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			fmt.Fprintf(&b, "\\x%02x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// isTerminal reports whether w is a person's screen.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
