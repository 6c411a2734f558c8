package report

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Documents of JUnit, in the order of elements that its schemas ask for.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Timestamp  string          `xml:"timestamp,attr"`
	Hostname   string          `xml:"hostname,attr"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
	SystemOut  *junitText      `xml:"system-out,omitempty"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Name      string       `xml:"name,attr"`
	Classname string       `xml:"classname,attr"`
	Time      string       `xml:"time,attr"`
	Skipped   *junitReason `xml:"skipped,omitempty"`
	Error     *junitReason `xml:"error,omitempty"`
	Failure   *junitReason `xml:"failure,omitempty"`
	SystemOut *junitText   `xml:"system-out,omitempty"`
}

type junitReason struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

type junitText struct {
	Text string `xml:",chardata"`
}

// JUnit writes reports as the XML that CI servers read: a suite for each node, a case for each check and component. A case's class is its node and the
// kind of part, so that readers that fold by class fold by part; its time is its share of the stage that measured it, so that all of them add up to no more than it took.
//
// A warning passes, with its words in system-out. What could not be told is an error. A report that did not finish has a case of its own that says so:
// a run that was cut off is never green.
func JUnit(w io.Writer, reports ...fleet.BurnReport) error {
	all := junitSuites{Name: "burn-in by metalctl"}
	var seconds float64
	for i := range reports {
		s := suite(&reports[i])
		all.Tests, all.Failures, all.Errors, all.Skipped = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors, all.Skipped+s.Skipped
		seconds += elapsed(&reports[i])
		all.Suites = append(all.Suites, s)
	}
	all.Time = secondsText(seconds)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("write JUnit: %w", err)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("write JUnit: %w", err)
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return fmt.Errorf("write JUnit: %w", err)
	}
	return nil
}

func elapsed(r *fleet.BurnReport) float64 { return max(0, r.EndedAt.Sub(r.BeganAt).Seconds()) }

func secondsText(s float64) string { return strconv.FormatFloat(s, 'f', 3, 64) }

func suite(r *fleet.BurnReport) junitSuite {
	name := plain(nodeName(r))
	s := junitSuite{Name: name, Timestamp: r.BeganAt.UTC().Format("2006-01-02T15:04:05"), Hostname: name, Time: secondsText(elapsed(r)), Properties: properties(r)}
	shares := stageShares(r)
	times := map[string]int{}
	for _, c := range r.Checks {
		times[c.Component+" "+c.ID]++
	}
	for _, c := range worstFirst(r.Checks) {
		title := c.Component + " " + c.ID
		if times[title] > 1 {
			title += fmt.Sprintf(" in %s, round %d", c.Stage, c.Round)
		}
		s.add(junitCase{Name: plain(title), Classname: name + "." + plain(family(c.Component)), Time: secondsText(shares[stageKey{c.Stage, c.Round}])}, c)
	}
	if !r.Finished {
		s.add(junitCase{Name: "node burn-in finished", Classname: name + ".node", Time: secondsText(0)},
			fleet.Check{Outcome: fleet.CouldNotTell, Words: "the burn-in did not finish: " + cmp.Or(r.Stopped, "stages are still to come")})
	}
	if r.Headline != "" {
		s.SystemOut = &junitText{plain(r.Headline) + "\n"}
	}
	return s
}

// add counts a case and says in it what its check came to.
func (s *junitSuite) add(tc junitCase, c fleet.Check) {
	s.Tests++
	text := plain(caseText(c))
	reason := &junitReason{Message: plain(cmp.Or(c.Words, c.ID+" of "+c.Component+": "+outcomeWords(c.Outcome))), Type: cmp.Or(c.Code, c.ID, string(c.Outcome)), Text: text}
	switch c.Outcome {
	case fleet.Fail:
		s.Failures++
		tc.Failure = reason
	case fleet.CouldNotTell:
		s.Errors++
		tc.Error = reason
	case fleet.Skip:
		s.Skipped++
		tc.Skipped = &junitReason{Message: reason.Message}
	case fleet.Warn:
		tc.SystemOut = &junitText{"warning: " + text}
	default:
		if text != "" {
			tc.SystemOut = &junitText{text}
		}
	}
	s.Cases = append(s.Cases, tc)
}

// caseText is what a person wants to read of a check, a line for each thing.
func caseText(c fleet.Check) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			b.WriteString(strings.TrimPrefix(name+": "+value+"\n", ": "))
		}
	}
	line("", c.Words)
	line("measured", measured(c))
	line("limit", limitWords(c.Limit))
	if c.Do != "" && c.Do != "none" {
		line("do", adviceWords(c.Do))
	}
	line("part", c.Replace)
	line("code", c.Code)
	line("engine", c.Engine)
	for _, e := range c.Evidence {
		line("evidence", e)
	}
	return b.String()
}

type stageKey struct {
	stage string
	round int
}

// stageShares are the seconds that a check has of its stage: as long as it was, shared by all checks of it.
func stageShares(r *fleet.BurnReport) map[stageKey]float64 {
	count := map[stageKey]int{}
	for _, c := range r.Checks {
		count[stageKey{c.Stage, c.Round}]++
	}
	out := map[stageKey]float64{}
	for _, s := range r.Stages {
		k := stageKey{s.Stage, s.Round}
		if n := count[k]; n > 0 {
			out[k] += max(0, s.EndedAt.Sub(s.BeganAt).Seconds()) / float64(n)
		}
	}
	return out
}

// properties say who was burned in, with what, and what came out.
func properties(r *fleet.BurnReport) []junitProperty {
	var out []junitProperty
	add := func(name, value string) {
		if value != "" {
			out = append(out, junitProperty{plain(name), plain(value)})
		}
	}
	m := r.Machine
	add("verdict", string(r.Verdict))
	add("profile", r.Profile)
	add("class", r.Class)
	add("operation", string(r.Operation))
	add("fixture", r.Fixture)
	add("program", r.Program)
	add("engines", strings.Join(engines(r), ", "))
	add("ended", r.EndedAt.UTC().Format(time.RFC3339))
	add("machine.vendor", m.Vendor)
	add("machine.model", m.Model)
	add("machine.serial", m.Serial)
	add("machine.uuid", m.UUID)
	add("machine.bios", m.BIOS)
	add("machine.kernel", m.Kernel)
	add("machine.driver", m.Driver)
	for _, p := range m.Parts {
		add("part."+p.Component+".serial", p.Serial)
		add("part."+p.Component+".firmware", p.Firmware)
	}
	return out
}
