package redfish

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// ladder is the order in which parameters of InsertMedia are added where an error does not name the missing one (sushy
// virtual_media.py). The user and password are dummies that NVIDIA DGX wants to see (Launchpad 2071945).
var ladder = [][]string{
	{"TransferProtocolType"}, {"TransferMethod"}, {"UserName", "Password"}, {"Inserted", "WriteProtected"},
}

const maxShapes = 9

// insertLadder sends InsertMedia, or a PATCH where there is no such action, with as few parameters as possible: what ActionInfo
// requires, then what each error asks for or forbids, then the next rung. It returns the parameters that were taken.
func (b *BMC) insertLadder(ctx context.Context, s *slot, info actionInfo, req MediaRequest) ([]string, error) {
	shape := b.firstShape(s, info)
	tried := map[string]bool{}
	banned := map[string]bool{}
	var err error
	for range maxShapes {
		tried[strings.Join(shape, ",")] = true
		if err = b.insertOnce(ctx, s, info, shape, req); err == nil {
			return shape, nil
		}
		e := AsError(err)
		if e == nil || !adaptable(e) {
			return nil, err
		}
		next := adapt(shape, banned, e, tried)
		if next == nil {
			return nil, err
		}
		shape = next
	}
	return nil, err
}

func adaptable(e *Error) bool {
	return !e.licence() && (e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity ||
		e.Status == http.StatusInternalServerError || e.Status == http.StatusNotImplemented)
}

func (b *BMC) firstShape(s *slot, info actionInfo) []string {
	b.mu.Lock()
	known := b.learned
	b.mu.Unlock()
	if known.Slot == s.uri && len(known.Parameters) > 0 {
		return known.Parameters
	}
	shape := []string{"Image"}
	if s.insert == "" {
		shape = append(shape, "Inserted")
	}
	for _, name := range b.profile().Insert {
		if info.takes(name) && !slices.Contains(shape, name) {
			shape = append(shape, name)
		}
	}
	for _, rung := range ladder {
		for _, name := range rung {
			if info.parameters[name].required && !slices.Contains(shape, name) {
				shape = append(shape, name)
			}
		}
	}
	return shape
}

// adapt makes the next set of parameters from an error, or nil where there is nothing left to try.
func adapt(shape []string, banned map[string]bool, e *Error, tried map[string]bool) []string {
	next := slices.Clone(shape)
	changed := false
	for _, m := range e.Messages {
		name := namedParameter(m)
		switch m.ID {
		case "ActionParameterMissing", "PropertyMissing", "CreateFailedMissingReqProperties":
			if name != "" && !banned[name] && !slices.Contains(next, name) {
				next, changed = append(next, name), true
			}
		case "ActionParameterUnknown", "ActionParameterNotSupported", "PropertyUnknown", "PropertyNotWritable", "PropertyNotUpdated",
			"ActionParameterValueTypeError", "ActionParameterValueNotInList", "PropertyValueNotInList", "ActionParameterValueFormatError":
			if i := slices.Index(next, name); i > 0 { // never Image
				next, changed, banned[name] = slices.Delete(next, i, i+1), true, true
			}
		}
	}
	if changed && !tried[strings.Join(next, ",")] {
		return next
	}
	next = slices.Clone(shape)
	for _, rung := range ladder {
		grown := next
		for _, name := range rung {
			if !banned[name] && !slices.Contains(grown, name) {
				grown = append(grown, name)
			}
		}
		if len(grown) > len(next) && !tried[strings.Join(grown, ",")] {
			return grown
		}
		next = grown
	}
	if bare := []string{"Image"}; !tried["Image"] {
		return bare
	}
	return nil
}

// namedParameter finds which of our parameters a message speaks of: in its arguments, its properties or its text.
func namedParameter(m Message) string {
	var names []string
	for _, rung := range ladder {
		names = append(names, rung...)
	}
	for _, hay := range append(append(slices.Clone(m.Args), m.RelatedProperties...), m.Text) {
		for _, name := range names {
			at := strings.Index(hay, name)
			if at < 0 {
				continue
			}
			end := at + len(name)
			if (at == 0 || !letter(hay[at-1])) && (end == len(hay) || !letter(hay[end])) {
				return name
			}
		}
	}
	return ""
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// insertOnce sends one set of parameters. Where a BMC drops the call, it may have taken it: the read-back tells.
func (b *BMC) insertOnce(ctx context.Context, s *slot, info actionInfo, shape []string, req MediaRequest) error {
	body := map[string]any{}
	for _, name := range shape {
		switch name {
		case "Image":
			body[name] = req.URL
		case "TransferProtocolType":
			body[name] = strings.ToUpper(schemeOf(req.URL))
			for _, v := range info.values(name) {
				if strings.EqualFold(v, schemeOf(req.URL)) {
					body[name] = v
				}
			}
		case "TransferMethod":
			body[name] = "Stream"
		case "UserName", "Password":
			body[name] = "none"
		case "Inserted", "WriteProtected":
			body[name] = true
		}
	}
	if s.insert != "" {
		return b.post(ctx, s.insert, body)
	}
	return b.patch(ctx, s.uri, body)
}

// giveCertificates hands the image server's CA to the slot and tells it to verify, where it can; it reports whether both were
// taken. A refusal leaves the slot as it was: the image proves itself to the host then.
func (b *BMC) giveCertificates(ctx context.Context, s *slot, req MediaRequest) bool {
	certs := s.res.link("Certificates")
	if len(req.CAPEM) == 0 || certs == "" || schemeOf(req.URL) != "https" {
		return false
	}
	pem := strings.TrimSpace(string(req.CAPEM))
	have := false
	if members, err := b.members(ctx, certs); err == nil {
		for _, uri := range members {
			if c, err := b.get(ctx, uri); err == nil && strings.TrimSpace(c.str("CertificateString")) == pem {
				have = true
			}
		}
	}
	if !have {
		if err := b.post(ctx, certs, map[string]string{"CertificateString": pem + "\n", "CertificateType": "PEM"}); err != nil {
			b.log().DebugContext(ctx, "the slot does not take our certificate", "uri", s.uri, "err", err)
			return false
		}
	}
	if on, ok := s.res.boolean("VerifyCertificate"); ok && on {
		return true
	}
	if err := b.patch(ctx, s.uri, map[string]any{"VerifyCertificate": true}); err != nil {
		b.log().DebugContext(ctx, "the slot does not verify certificates", "uri", s.uri, "err", err)
		return false
	}
	return true
}
