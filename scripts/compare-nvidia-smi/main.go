// Command compare-nvidia-smi compares metalctl's inventory of this machine's NVIDIA GPUs with `nvidia-smi -q -x`, field by field.
package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"

	"github.com/metalctl/metalctl/fleet"
)

func main() {
	program := flag.String("metalctl", "bin/metalctl", "the program to ask")
	inventory := flag.String("inventory", "", "file with `metalctl agent inspect -o json` instead of asking")
	smi := flag.String("smi", "", "file with `nvidia-smi -q -x` instead of asking")
	all := flag.Bool("all", false, "print what agrees, too")
	flag.Parse()
	differ, err := run(os.Stdout, *program, *inventory, *smi, *all)
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare-nvidia-smi:", err)
		os.Exit(2)
	}
	if differ > 0 {
		os.Exit(1)
	}
}

func run(w io.Writer, program, inventory, smi string, all bool) (int, error) {
	b, err := output(inventory, program, "agent", "inspect", "-o", "json")
	if err != nil {
		return 0, err
	}
	var inv fleet.Inventory
	if err := json.Unmarshal(b, &inv); err != nil {
		return 0, fmt.Errorf("read the inventory: %w", err)
	}
	if b, err = output(smi, "nvidia-smi", "-q", "-x"); err != nil {
		return 0, err
	}
	log, err := parse(b)
	if err != nil {
		return 0, fmt.Errorf("read nvidia-smi's answer: %w", err)
	}
	return report(w, compare(inv, log), all), nil
}

func output(file, program string, args ...string) ([]byte, error) {
	if file != "" {
		return os.ReadFile(file)
	}
	b, err := exec.Command(program, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf("run %s %s: %w", program, strings.Join(args, " "), err)
	}
	return b, nil
}

// smiLog is nvidia-smi's answer: texts by path, for the machine and for each GPU by its PCI address as the kernel writes it.
type smiLog struct {
	machine map[string]string
	gpus    map[string]map[string]string
}

func parse(b []byte) (smiLog, error) {
	log := smiLog{machine: map[string]string{}, gpus: map[string]map[string]string{}}
	into := log.machine
	var path []string
	dec := xml.NewDecoder(bytes.NewReader(b))
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return log, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if len(path) > 30 {
				return log, errors.New("elements within elements without end")
			}
			if len(path) == 2 && t.Name.Local == "gpu" {
				into = map[string]string{}
				for _, a := range t.Attr {
					if a.Name.Local == "id" {
						log.gpus[address(a.Value)] = into
					}
				}
			}
		case xml.CharData:
			at := 1 // below nvidia_smi_log
			if len(path) > 1 && path[1] == "gpu" {
				at = 2
			}
			if text := strings.TrimSpace(string(t)); text != "" && len(path) > at {
				into[strings.Join(path[at:], "/")] = text
			}
		case xml.EndElement:
			if len(path) == 2 {
				into = log.machine
			}
			path = path[:len(path)-1]
		}
	}
	if log.machine["driver_version"] == "" {
		return log, errors.New("there is no driver_version: is it the output of nvidia-smi -q -x?")
	}
	return log, nil
}

// address turns 00000000:1B:00.0 into 0000:1b:00.0.
func address(id string) string {
	id = strings.ToLower(id)
	if len(id) == len("00000000:1b:00.0") {
		id = strings.TrimPrefix(id, "0000")
	}
	return id
}

// row is one field of one GPU.
type row struct {
	where, field, ours, theirs string
	outcome                    string // same, differs, moves, untold
}

// Outcomes: what moves with time is compared within bounds; what one of both does not tell is not compared.
const (
	same    = "same"
	differs = "differs"
	untold  = "untold"
)

func compare(inv fleet.Inventory, log smiLog) []row {
	var rows []row
	add := func(where, name, ours, theirs string, near func(a, b string) bool) {
		r := row{where: where, field: name, ours: ours, theirs: theirs, outcome: differs}
		switch {
		case theirs == "" || theirs == "N/A" || strings.HasPrefix(theirs, "[") || ours == "":
			r.outcome = untold
		case ours == theirs || near != nil && near(ours, theirs):
			r.outcome = same
		}
		rows = append(rows, r)
	}
	if d := inv.GPUDriver; d != nil {
		add("driver", "driver_version", d.Version, log.machine["driver_version"], nil)
		add("driver", "cuda_version", d.CUDA, log.machine["cuda_version"], nil)
	}
	seen := map[string]bool{}
	for _, g := range inv.GPUs {
		if g.Vendor != "nvidia" {
			continue
		}
		seen[g.PCIAddress] = true
		theirs := log.gpus[g.PCIAddress]
		if theirs == nil {
			add(g.PCIAddress, "gpu", "there: "+g.Model, "absent", nil)
			continue
		}
		for _, f := range fields {
			text := theirs[f.path]
			for _, or := range f.or {
				if text == "" {
					text = theirs[or]
				}
			}
			add(g.PCIAddress, f.path, f.ours(g), f.normal(text), f.near)
		}
	}
	for id := range log.gpus {
		if !seen[id] {
			add(id, "gpu", "absent", "there", nil)
		}
	}
	return rows
}

func report(w io.Writer, rows []row, all bool) int {
	count := map[string]int{}
	tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tab, "where\tfield\tmetalctl\tnvidia-smi\t")
	for _, r := range rows {
		count[r.outcome]++
		if all || r.outcome == differs {
			fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\n", r.where, r.field, dash(r.ours), dash(r.theirs), r.outcome)
		}
	}
	_ = tab.Flush() // like any print to the terminal
	fmt.Fprintf(w, "%d fields agree, %d differ, %d are told by one of both only\n", count[same], count[differs], count[untold])
	return count[differs]
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
