package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet/ssh"
)

// terminal is a person's place at a switch.
type terminal struct {
	stream   *ssh.Stream
	host     ssh.Host
	platform *Platform
	// prompt matches what the switch shows when it waits for a command. It begins with the switch's own name once that is known.
	prompt *regexp.Regexp
	// at is the prompt that is shown now.
	at       string
	raw      []byte
	patience time.Duration
}

// maxAnswer bounds one command's answer.
const maxAnswer = 16 << 20

// sit opens a terminal on the switch and makes it quiet: no pages, no folded lines.
func sit(ctx context.Context, host ssh.Host, p *Platform, patience time.Duration) (*terminal, error) {
	stream, err := host.Shell(ctx)
	if err != nil {
		return nil, err
	}
	t := &terminal{stream: stream, host: host, platform: p, prompt: promptOf(""), patience: patience}
	if err := t.begin(); err != nil {
		return nil, errors.Join(err, t.leave())
	}
	return t, nil
}

func (t *terminal) begin() error {
	if err := t.stream.Within(t.patience); err != nil {
		return ssh.Lost(t.host.Address, err)
	}
	if _, err := t.until(""); err != nil {
		return err
	}
	t.prompt = promptOf(t.prompt.FindStringSubmatch(t.at)[1])
	if t.platform.Enable != "" && !strings.HasSuffix(t.at, "#") {
		if _, err := t.ask(t.platform.Enable); err != nil {
			return err
		}
		if !strings.HasSuffix(t.at, "#") {
			return fleet.Errorf(fleet.Denied, "MC-SWITCH-LOGIN", "%s may not configure the switch at %s", t.host.User, t.host.Address).WithHint("docs/operate/switches.md says what the account must be allowed")
		}
	}
	for _, c := range t.platform.Quiet {
		if _, err := t.ask(c); err != nil {
			return err
		}
	}
	return nil
}

func (t *terminal) leave() error { return t.stream.Close() }

// ask types a command and returns the lines that it answers. A line that only errors begin with is one.
func (t *terminal) ask(command string) (string, error) {
	lines, err := t.typed(command)
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(lines, t.platform.Error.MatchString); i >= 0 {
		return "", t.refused(command, lines[i:])
	}
	return strings.Join(lines, "\n"), nil
}

// tell types commands that change something. Each line that is answered and that the platform does not say when all is well is a refusal.
func (t *terminal) tell(commands ...string) error {
	for _, command := range commands {
		lines, err := t.typed(command)
		if err != nil {
			return err
		}
		lines = slices.DeleteFunc(lines, func(l string) bool {
			return strings.TrimSpace(l) == "" || slices.ContainsFunc(t.platform.Expected, func(x *regexp.Regexp) bool { return x.MatchString(l) })
		})
		if len(lines) > 0 {
			return t.refused(command, lines)
		}
	}
	return nil
}

// errRefused is what a refusal is, whatever the words.
var errRefused = errors.New("refused")

func (t *terminal) refused(command string, lines []string) error {
	e := fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "the switch at %s answers %s to %q", t.host.Address, last(strings.Join(lines, "\n")), command).
		WithHint("docs/operate/switches.md says what the account must be allowed")
	e.Err = errRefused
	return e
}

// typed sends a command and returns what came before the next prompt. What was shown before the command's echo is among it, but for prompts.
func (t *terminal) typed(command string) ([]string, error) {
	if strings.ContainsFunc(command, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "%q is no command", command)
	}
	if err := t.stream.Within(t.patience); err != nil {
		return nil, ssh.Lost(t.host.Address, err)
	}
	if _, err := t.stream.Write([]byte(command + "\n")); err != nil {
		return nil, ssh.Lost(t.host.Address, err)
	}
	return t.until(command)
}

// until reads until the echo of a command and, after it, a prompt were shown.
func (t *terminal) until(command string) ([]string, error) {
	began := time.Now()
	buf := make([]byte, 32<<10)
	for {
		lines := screen(t.raw)
		if end := lines[len(lines)-1]; t.prompt.MatchString(end) {
			if out, ok := t.after(lines[:len(lines)-1], command); ok {
				t.at, t.raw = end, nil
				return out, nil
			}
		} else if t.platform.More.MatchString(end) {
			// The switch waits in the middle of an answer. What it shows next it writes over that line.
			t.raw = append(t.raw, '\r')
			t.raw = append(t.raw, strings.Repeat(" ", len(end))...)
			t.raw = append(t.raw, '\r')
			if _, err := t.stream.Write([]byte(" ")); err != nil {
				return nil, ssh.Lost(t.host.Address, err)
			}
		}
		n, err := t.stream.Read(buf)
		t.raw = append(t.raw, buf[:n]...)
		switch {
		case err != nil && n > 0:
		case err != nil && time.Since(began) >= t.patience:
			return nil, fleet.Errorf(fleet.Timeout, "MC-SWITCH-PROMPT", "the switch at %s shows no prompt %s after %q; the last that it shows is %s", t.host.Address, t.patience, command, last(string(t.raw))).
				WithHint("type the command by hand and see what the switch asks")
		case err != nil:
			return nil, ssh.Lost(t.host.Address, err)
		case len(t.raw) > maxAnswer:
			return nil, fleet.Errorf(fleet.Broken, "MC-SWITCH-ANSWER", "the switch at %s answers more than %d bytes to %q", t.host.Address, maxAnswer, command)
		}
	}
}

// after returns the lines after the echo of a command, false where it was not shown yet.
func (t *terminal) after(lines []string, command string) ([]string, bool) {
	var out []string
	echoed := command == ""
	for _, l := range lines {
		switch {
		case !echoed && strings.HasSuffix(l, command) && t.prompts(strings.TrimSuffix(l, command)):
			echoed = true
		case t.prompt.MatchString(l):
		default:
			out = append(out, l)
		}
	}
	if command == "" {
		out = nil // what a switch says before its first prompt
	}
	return out, echoed
}

// prompts reports whether s is what stands before a command: a prompt, or nothing.
func (t *terminal) prompts(s string) bool {
	return s == "" || t.prompt.MatchString(strings.TrimRight(s, " "))
}

// last is the end of an answer, in a form that does nothing to the terminal of whoever reads it.
func last(s string) string {
	const most = 240
	if s = strings.TrimSpace(s); len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return strconv.QuoteToASCII(s)
}

// fill puts values into a command's template. None of them can be more than one word.
func fill(template string, values map[string]string) (string, error) {
	out := template
	for k, v := range values {
		if !strings.Contains(out, "{"+k+"}") {
			continue
		}
		if v == "" || strings.ContainsFunc(v, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/:,", r))
		}) {
			return "", fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "%q is no word of a command", v)
		}
		out = strings.ReplaceAll(out, "{"+k+"}", v)
	}
	if strings.ContainsAny(out, "{}") {
		return "", fmt.Errorf("the command %q is not filled in", out)
	}
	return out, nil
}
