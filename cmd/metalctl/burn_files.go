package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/report"
)

// reportForm is a form of a report.
type reportForm struct {
	name, doc string
	write     func(io.Writer, ...fleet.BurnReport) error
}

// reportForms are all that there are.
var reportForms = []reportForm{
	{"json", "file for the report as JSON, the source of all other forms", func(w io.Writer, all ...fleet.BurnReport) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if len(all) == 1 {
			return e.Encode(all[0])
		}
		return e.Encode(all)
	}},
	{"junit", "file for the report as JUnit XML: a suite per node, a case per check and component", report.JUnit},
	{"sarif", "file for the report as SARIF 2.1.0", report.SARIF},
	{"html", "file for the report as one page with plots", func(w io.Writer, all ...fleet.BurnReport) error {
		if len(all) != 1 {
			return usageError("--html takes the report of one node")
		}
		return report.HTML(w, all[0])
	}},
}

// reportFiles are the files that reports are written to, by form.
type reportFiles map[string]*string

func (f *reportFiles) flags(c *cobra.Command) {
	*f = reportFiles{}
	for _, form := range reportForms {
		(*f)[form.name] = c.Flags().String(form.name, "", form.doc)
	}
}

// check refuses files that could not be written, before hours are spent.
func (f reportFiles) check() error {
	for _, form := range reportForms {
		if name := *f[form.name]; name != "" {
			if info, err := os.Stat(filepath.Dir(name)); err != nil || !info.IsDir() {
				return usageError("--%s %s: there is no such folder", form.name, name)
			}
		}
	}
	return nil
}

// write writes the files, prints what the reports come to, and returns the verdict as an exit code.
func (f reportFiles) write(p *program, all ...fleet.BurnReport) error {
	for _, form := range reportForms {
		name := *f[form.name]
		if name == "" {
			continue
		}
		if err := writeReport(name, form.write, all); err != nil {
			return fmt.Errorf("write the report as %s: %w", form.name, err)
		}
	}
	for _, r := range all {
		if err := printReport(p, r); err != nil {
			return err
		}
	}
	return verdictError(all...)
}

// writeReport writes a file whole, or leaves what was there.
func writeReport(name string, write func(io.Writer, ...fleet.BurnReport) error, all []fleet.BurnReport) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".report-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := write(tmp, all...); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

// verdictError is the verdict as an exit code: nil for a pass, maybe with warnings.
func verdictError(all ...fleet.BurnReport) error {
	code, failed := exitDone, 0
	for _, r := range all {
		at := exitDone
		switch {
		case r.Verdict == fleet.Fail:
			at = exitNodeFailed
		case r.Stopped == "aborted":
			at = exitTimeout
		case r.Verdict != fleet.Pass && r.Verdict != fleet.Warn:
			at = exitUnsure
		}
		if at != exitDone {
			failed++
		}
		if code == exitDone || at == exitNodeFailed {
			code = max(code, at)
		}
		if at == exitNodeFailed {
			code = at
		}
	}
	switch {
	case code == exitDone:
		return nil
	case len(all) > 1 && failed < len(all):
		code = exitSomeFailed
	}
	return &exitError{code: code}
}

// printReport prints what a report comes to on stdout, in the form that -o asks for.
func printReport(p *program, r fleet.BurnReport) error {
	if p.flags.output == "json" {
		return reportForms[0].write(p.stdout, r)
	}
	return reportText(p, r)
}

// reportText is a report for a terminal.
func reportText(p *program, r fleet.BurnReport) error {
	return report.Text(p.stdout, r, p.textOptions())
}
