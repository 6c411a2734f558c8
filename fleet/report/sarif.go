package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// The parts of SARIF 2.1.0 (OASIS, 2020-03) that say what a burn-in found.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool              sarifTool         `json:"tool"`
		AutomationDetails sarifID           `json:"automationDetails"`
		Invocations       []sarifInvocation `json:"invocations"`
		Artifacts         []sarifArtifact   `json:"artifacts"`
		Results           []sarifResult     `json:"results"`
		Properties        map[string]any    `json:"properties,omitempty"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string         `json:"id"`
		Name             string         `json:"name"`
		ShortDescription sarifText      `json:"shortDescription"`
		FullDescription  sarifText      `json:"fullDescription"`
		Help             sarifHelp      `json:"help"`
		Default          sarifDefault   `json:"defaultConfiguration"`
		Properties       map[string]any `json:"properties,omitempty"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifHelp struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown"`
	}
	sarifID struct {
		ID string `json:"id"`
	}
	sarifInvocation struct {
		ExecutionSuccessful bool                `json:"executionSuccessful"`
		StartTimeUTC        string              `json:"startTimeUtc,omitempty"`
		EndTimeUTC          string              `json:"endTimeUtc,omitempty"`
		Notifications       []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifArtifact struct {
		Location sarifURI  `json:"location"`
		About    sarifText `json:"description"`
	}
	sarifURI struct {
		URI   string `json:"uri"`
		Index *int   `json:"index,omitempty"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   map[string]any    `json:"properties"`
	}
	sarifLocation struct {
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifURI    `json:"artifactLocation"`
		Region   sarifRegion `json:"region"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name               string `json:"name"`
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
)

// SARIFFile is the artifact that a node's results point at: code scanning shows no result that has no file. Keep the JSON report there in the repository
// whose code scanning shows it, or keep nothing there.
func SARIFFile(r fleet.BurnReport) string {
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._", c) {
			return c
		}
		return '-'
	}, nodeName(&r))
	return "burn-in/" + name + ".json"
}

// SARIF writes what did not pass as SARIF 2.1.0, a run for each report, in the form that GitHub's code scanning takes: a failure is an error, a warning and
// what could not be told are warnings, all else is left out, as code scanning shows everything that it is given. A rule is a fault's code, with its page as
// help. A result's fingerprint is made of machine, part and rule, so that the same fault of the same part is one alert over many runs, and a new one when
// the part was replaced.
func SARIF(w io.Writer, reports ...fleet.BurnReport) error {
	l := sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{}}
	for i := range reports {
		l.Runs = append(l.Runs, sarifOf(&reports[i]))
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(l); err != nil {
		return fmt.Errorf("write SARIF: %w", err)
	}
	return nil
}

func sarifOf(r *fleet.BurnReport) sarifRun {
	file := SARIFFile(*r)
	run := sarifRun{
		Tool:              sarifTool{sarifDriver{Name: "burn-in by metalctl", Version: plain(r.Program), InformationURI: "https://github.com/metalctl/metalctl", Rules: []sarifRule{}}},
		AutomationDetails: sarifID{"metalctl-burn-in/" + plain(nodeName(r)) + "/" + r.BeganAt.UTC().Format(time.RFC3339)},
		Artifacts:         []sarifArtifact{{sarifURI{URI: file}, sarifText{"the burn-in report of " + plain(nodeName(r))}}},
		Results:           []sarifResult{},
		Properties:        map[string]any{"verdict": r.Verdict, "profile": plain(r.Profile), "headline": plain(r.Headline)},
	}
	for _, p := range properties(r) {
		if strings.HasPrefix(p.Name, "machine.") {
			run.Properties[p.Name] = p.Value
		}
	}
	inv := sarifInvocation{ExecutionSuccessful: r.Finished && r.Verdict != fleet.CouldNotTell, StartTimeUTC: r.BeganAt.UTC().Format(time.RFC3339), EndTimeUTC: r.EndedAt.UTC().Format(time.RFC3339)}
	if !r.Finished {
		inv.Notifications = append(inv.Notifications, sarifNotification{"error", sarifText{"the burn-in did not finish: " + plain(cmp.Or(r.Stopped, "stages are still to come"))}})
	}
	run.Invocations = []sarifInvocation{inv}
	for _, c := range worstFirst(r.Checks) {
		if rank(c.Outcome) >= rank(fleet.Pass) {
			continue
		}
		rule := cmp.Or(c.Code, c.ID)
		i := slices.IndexFunc(run.Tool.Driver.Rules, func(s sarifRule) bool { return s.ID == rule })
		if i < 0 {
			i = len(run.Tool.Driver.Rules)
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, ruleOf(rule, c))
		}
		run.Results = append(run.Results, resultOf(r, c, rule, i, file))
	}
	return run
}

// level is what code scanning is told of an outcome.
func level(o fleet.Outcome) string {
	if o == fleet.Fail {
		return "error"
	}
	return "warning"
}

// ruleOf explains a code by its page, and what has no code by what is measured.
func ruleOf(id string, c fleet.Check) sarifRule {
	title, text := "", ""
	if page, ok := fleet.Codes[id]; ok {
		title, text = page.Title, page.Text
	} else if m, ok := fleet.FindMeasured(c.ID); ok {
		title, text = m.Doc, m.Doc
	}
	title = cmp.Or(title, plain(id))
	text = cmp.Or(text, title)
	return sarifRule{
		ID: plain(id), Name: plain(id), ShortDescription: sarifText{title}, FullDescription: sarifText{text},
		Help:       sarifHelp{text, "**" + title + "**\n\n" + text + "\n\nMore: `metalctl help " + plain(id) + "`"},
		Default:    sarifDefault{level(c.Outcome)},
		Properties: map[string]any{"tags": []string{"hardware", plain(family(c.Component))}, "precision": "high"},
	}
}

func resultOf(r *fleet.BurnReport, c fleet.Check, rule string, index int, file string) sarifResult {
	zero := 0
	res := sarifResult{
		RuleID: plain(rule), RuleIndex: index, Level: level(c.Outcome), Message: sarifText{plain(message(c))},
		Locations: []sarifLocation{{
			Physical: sarifPhysical{sarifURI{URI: file, Index: &zero}, sarifRegion{1}},
			Logical:  []sarifLogical{{Name: plain(c.Component), FullyQualifiedName: plain(nodeName(r) + "/" + c.Component), Kind: cmp.Or(plain(kind(c.Component)), "component")}},
		}},
		Properties: map[string]any{"outcome": c.Outcome, "check": plain(c.ID), "component": plain(c.Component)},
	}
	set := func(name, value string) {
		if value != "" {
			res.Properties[name] = plain(value)
		}
	}
	p, _ := part(r, c.Component)
	set("serial", p.Serial)
	set("firmware", p.Firmware)
	set("do", c.Do)
	set("replace", c.Replace)
	set("engine", c.Engine)
	set("stage", c.Stage)
	if c.Value != nil {
		res.Properties["value"], res.Properties["unit"] = jsonNumber(*c.Value), plain(c.Unit)
	}
	if l := c.Limit; l != nil {
		res.Properties["limit"] = map[string]any{"value": jsonNumber(l.Value), "least": l.Least, "unit": plain(l.Unit), "against": plain(l.Against), "source": plain(l.Source)}
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{identity(r), p.Serial, c.Component, rule, c.ID}, "\x00")))
	print := hex.EncodeToString(sum[:16])
	// The first is what GitHub tells alerts apart by, the second what others may.
	res.Fingerprints = map[string]string{"primaryLocationLineHash": print + ":1", "metalctl/v1": print}
	return res
}

// jsonNumber is a value that JSON can hold; what is no number is said in words.
func jsonNumber(v float64) any {
	if number(v) == "none" {
		return "none"
	}
	return v
}

// message is a check in one paragraph: code scanning shows nothing else in its list.
func message(c fleet.Check) string {
	s := []string{cmp.Or(c.Words, c.ID+" of "+c.Component+": "+outcomeWords(c.Outcome))}
	if c.Value != nil && c.Limit != nil {
		s = append(s, "Measured "+measured(c)+", wanted "+limitWords(c.Limit)+".")
	}
	if c.Do != "" && c.Do != "none" {
		s = append(s, "What to do: "+adviceWords(c.Do)+".")
	}
	if c.Replace != "" {
		s = append(s, "Part: "+c.Replace+".")
	}
	if len(c.Evidence) > 0 {
		s = append(s, "Evidence: "+strings.Join(c.Evidence, "; ")+".")
	}
	if len(s) > 1 && !strings.HasSuffix(s[0], ".") {
		s[0] += "."
	}
	return strings.Join(s, " ")
}
