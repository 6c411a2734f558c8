//go:build !ramdisk

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
)

const exitCodesText = `Exit codes

   0  done (a verdict: pass or warn)
   1  error
   2  usage: the command line or a file is wrong
   3  not found
   4  not allowed
   5  conflict, frozen, protected or above the fence
   6  timed out or aborted
   7  the node failed
   8  some of many failed
   9  differences found
  10  could not tell
`

// helpVerb is cobra's help with pages for error codes and exit codes.
func helpVerb(p *program, root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND | MC-CODE | exit-codes | codes]", Short: "Help about a command, an error code, or the exit codes",
		Example: "  metalctl help MC-BMC-AUTH",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				switch topic := args[0]; {
				case topic == "exit-codes":
					_, err := fmt.Fprint(p.stdout, exitCodesText)
					return err
				case topic == "codes":
					return listCodes(p)
				case strings.HasPrefix(strings.ToUpper(topic), "MC-"):
					return codePage(p, strings.ToUpper(topic))
				}
			}
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usageError("no help on %q\n  try: metalctl --help", strings.Join(args, " "))
			}
			return cmd.Help()
		},
	}
}

func codePage(p *program, code string) error {
	page, ok := fleet.Codes[code]
	if !ok {
		return fleet.Errorf(fleet.NotFound, "", "there is no error code %s", code).WithHint("metalctl help codes")
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %s\n\n%s\n", code, page.Title, strings.TrimSpace(page.Text))
	return err
}

func listCodes(p *program) error {
	var codes []string
	for c := range fleet.Codes {
		codes = append(codes, c)
	}
	slices.Sort(codes)
	rows := [][]string{{"CODE", "MEANING"}}
	for _, c := range codes {
		rows = append(rows, []string{c, fleet.Codes[c].Title})
	}
	return printTable(p.stdout, rows)
}
