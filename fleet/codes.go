package fleet

import "maps"

// Codes holds a page for every stable error code; `metalctl help CODE` prints it. A code is never reused or renamed.
// The house test compares it with the codes that the sources use.
var Codes = allCodes()

func allCodes() map[string]Page {
	all := maps.Clone(machineCodes)
	maps.Copy(all, serverCodes)
	return all
}

// Page explains an error code to an operator.
type Page struct {
	// Title is one line: what happened.
	Title string
	// Text says why it can happen and what to do, with the commands to type.
	Text string
}
