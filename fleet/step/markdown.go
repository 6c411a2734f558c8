package step

import (
	"fmt"
	"strings"
)

// StepsMarkdown is the page docs/steps.md: the catalogue as a table, generated so that it cannot differ.
func StepsMarkdown() string {
	var b strings.Builder
	b.WriteString("# Steps\n\nEvery plan is a selection of these steps, made by `Compose` for one node under the facts of the moment; `metalctl node plan NODE --use USE` shows\n" +
		"the selection with a reason for each. This page is generated from the catalogue (version ")
	fmt.Fprintf(&b, "%d) and compared with it in a test.\n\n", CatalogueVersion)
	b.WriteString("| step | plans | side | destroys data | only looks | after a crash | abort acts | limit | tries | what it does |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, s := range Catalogue {
		uses := make([]string, len(s.Uses))
		for i, u := range s.Uses {
			uses[i] = string(u)
		}
		destroys := ""
		if s.Destroys {
			destroys = "yes"
		}
		observes := ""
		if s.Observes {
			observes = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s | %s | %d | %s |\n",
			s.Name, strings.Join(uses, ", "), s.Side, destroys, observes, s.OnCrash, s.Abort, short(s.Limit.String()), s.Tries, s.Doc)
	}
	b.WriteString("\nA transient failure (the other side did not answer, a time was over) is tried again after a growing pause until the tries are used up; any other failure\n" +
		"ends the run at once. Steps that only look go on while their node is frozen; all others wait for the thaw. *Redo* means that doing the step again\n" +
		"is always right; *check first* that it looks before it acts.\n")
	return b.String()
}

// short turns 2h0m0s into 2h.
func short(d string) string {
	if strings.HasSuffix(d, "m0s") {
		d = strings.TrimSuffix(d, "0s")
	}
	if strings.HasSuffix(d, "h0m") {
		d = strings.TrimSuffix(d, "0m")
	}
	return d
}
