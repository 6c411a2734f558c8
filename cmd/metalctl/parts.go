package main

import (
	"fmt"
	"io"
	"slices"
)

// partRows are lines about parts of a machine, of which each kind has columns of its own width: a GPU's names would push a disk's to the far right.
type partRows [][]string

// add adds a line; the first cell is the kind.
func (r *partRows) add(cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	cells = append(cells, make([]string, max(5-len(cells), 0))...)
	cells[0] = fmt.Sprintf("%-9s", cells[0])
	*r = append(*r, cells)
}

func (r partRows) print(w io.Writer) error {
	for len(r) > 0 {
		n := slices.IndexFunc(r, func(x []string) bool { return x[0] != r[0][0] })
		if n < 0 {
			n = len(r)
		}
		if err := printTable(w, r[:n]); err != nil {
			return err
		}
		r = r[n:]
	}
	return nil
}
