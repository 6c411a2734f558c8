package cleaning

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// erased is what erase-disks attaches for each disk that it erased.
type erased struct {
	Path            string    `json:"path"`
	Serial          string    `json:"serial"`
	Model           string    `json:"model"`
	Method          string    `json:"method"`
	Claim           string    `json:"claim"`
	Refused         []string  `json:"refused"`
	CDW10           string    `json:"cdw10"`
	LogBefore       string    `json:"log_before"`
	LogAfter        string    `json:"log_after"`
	TakenOver       string    `json:"taken_over"`
	CanariesWritten int       `json:"canaries_written"`
	CanariesFound   int       `json:"canaries_found"`
	SampledBytes    int64     `json:"sampled_bytes"`
	SampledPlaces   int       `json:"sampled_places"`
	SampledZero     bool      `json:"sampled_zero"`
	Finished        time.Time `json:"finished"`
}

// verified is what verify-erase records for each disk.
type verified struct {
	Serial string `json:"serial"`
	Bytes  int64  `json:"sampled_bytes"`
	Reads  string `json:"reads_as"`
}

// disks has every accepted disk, and those that are there and were not accepted.
func (c *composer) disks() {
	erase, verify := c.run(step.EraseDisks), c.run(step.VerifyErase)
	var did []erased
	var checked []verified
	var p step.EraseParams
	if erase != nil {
		if !erase.read("evidence", &did) {
			erase.read("erased", &did)
		}
		if json.Unmarshal(erase.Params, &p) != nil {
			p = step.EraseParams{}
		}
	}
	if verify != nil {
		verify.read("verified", &checked)
	}
	asked := "erased, at least " + p.Level
	if p.AcceptFormat {
		asked += " or an NVMe format"
	}
	done := map[string]bool{}
	for _, d := range p.Accepted {
		if done[d.Serial] {
			continue // a further namespace of the same drive
		}
		done[d.Serial] = true
		c.disk(d, asked, erase, verify, did, checked)
	}
	if c.Inventory == nil {
		return
	}
	for _, d := range c.Inventory.Disks {
		if done[d.Serial] || d.SizeBytes == 0 {
			continue
		}
		why := "nobody accepted that it is erased: not touched"
		switch {
		case d.BootMedium:
			why = "it is what the agent was booted from"
		case d.Removable:
			why = "a removable medium is never offered for erasing"
		case d.ReadOnly:
			why = "it is write protected, and was not accepted"
		}
		name := d.Serial
		if name == "" {
			name = d.Name
		}
		c.add(fleet.CleanedComponent{Component: "disk/" + name, Identity: d.Serial, Model: d.Model, Result: fleet.CleanNotDone, Why: why})
	}
}

// disk is one accepted drive, of which a namespace each may be recorded.
func (c *composer) disk(d fleet.AcceptedDevice, asked string, erase, verify *run, did []erased, checked []verified) {
	x := fleet.CleanedComponent{Component: "disk/" + d.Serial, Identity: d.Serial, Model: d.Model, Asked: asked}
	var mine []erased
	for _, e := range did {
		if e.Serial == d.Serial {
			mine = append(mine, e)
		}
	}
	reads := map[int]string{}
	for _, v := range checked {
		if v.Serial == d.Serial {
			reads[len(reads)] = fmt.Sprintf("%s read again as %s", plural(int(v.Bytes), "byte"), v.Reads)
		}
	}
	bad := append(erase.faults(x.Component), verify.faults(x.Component)...)
	for i, e := range mine {
		y := x
		y.Result, y.Method, y.Level, y.Said, y.ReadBack, y.Step, y.At = fleet.CleanDone, e.Method, e.Claim, said(e), e.readBack(), step.EraseDisks, e.Finished
		if y.At.IsZero() {
			y.At = erase.FinishedAt
		}
		if e.Model != "" {
			y.Model = e.Model
		}
		if len(mine) > 1 {
			y.Model += " (" + e.Path + ")"
		}
		switch again, ok := reads[i]; {
		case len(bad) > 0:
			y.Result, y.Why = fleet.CleanFailed, strings.Join(bad, "; ")
		case !ok:
			y.Result, y.Why = fleet.CleanFailed, "erased, and not read again: "+verify.short(step.VerifyErase)
		default:
			y.ReadBack += "; " + again
		}
		c.add(y)
	}
	if len(mine) > 0 {
		return
	}
	x.Result, x.Why = fleet.CleanNotDone, erase.short(step.EraseDisks)
	if erase != nil && erase.State != fleet.StepPending {
		x.Step, x.At = step.EraseDisks, erase.FinishedAt
	}
	if len(bad) > 0 {
		x.Result, x.Why = fleet.CleanFailed, strings.Join(bad, "; ")
	}
	c.add(x)
}

// said is what the drive itself reported.
func said(e erased) string {
	var out []string
	if e.TakenOver != "" {
		out = append(out, e.TakenOver)
	}
	if e.CDW10 != "" {
		out = append(out, "took the command "+e.CDW10)
	}
	if words := sanitizeWords(e.LogAfter); words != "" {
		out = append(out, words)
	}
	out = append(out, e.Refused...)
	if len(out) == 0 {
		return "took every write"
	}
	return strings.Join(out, "; ")
}

// sanitizeWords reads the status of a drive's sanitize log (NVM Express Base Specification 2.0c, figure 291: bytes 2 and 3, bits 0 to 2).
func sanitizeWords(log string) string {
	b, err := hex.DecodeString(log)
	if err != nil || len(b) < 4 {
		return ""
	}
	words := []string{"the drive was never sanitized", "sanitize completed", "a sanitize is in progress", "the last sanitize failed", "sanitize completed, media deallocated"}
	status := int(b[2] & 7)
	if status >= len(words) {
		return "sanitize log " + log
	}
	return words[status] + " by its log"
}

func (e erased) readBack() string {
	out := []string{}
	if e.CanariesWritten > 0 {
		out = append(out, fmt.Sprintf("%d of %d marker blocks found", e.CanariesFound, e.CanariesWritten))
	}
	if e.SampledBytes > 0 {
		as := "constant or random"
		if e.SampledZero {
			as = "zeros"
		}
		out = append(out, fmt.Sprintf("%d bytes at %s read as %s", e.SampledBytes, plural(e.SampledPlaces, "place"), as))
	}
	return strings.Join(out, "; ")
}
