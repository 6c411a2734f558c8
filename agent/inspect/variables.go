package inspect

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// variablesFile is where a recording keeps the firmware's variables: what they hold is not for a recording.
const variablesFile = "efi-variables.json"

// readVariables reads the firmware's variables, their values as digests. One that cannot be read is missing by name.
func (r *reading) readVariables(ctx context.Context) {
	files, at := r.fs.Aside(), "sys/firmware/efi/efivars"
	switch {
	case r.opts.Variables != "":
		files, at = sysfs.New(r.opts.Variables), "."
	case r.opts.System != nil || r.inv.System.FirmwareMode == "bios" && !r.fs.Exists("sys/firmware/efi"):
		return
	case !r.fs.Live():
		if !r.fs.Exists(variablesFile) {
			return
		}
		b, err := r.fs.Bytes(variablesFile)
		if err == nil {
			err = json.Unmarshal(b, &r.inv.Variables)
		}
		if err != nil {
			r.missing("variables", err)
		}
		return
	}
	names, err := files.List(at)
	if err != nil {
		r.missing("variables", err)
		return
	}
	for _, file := range names {
		name, guid, ok := fleet.SplitVariable(file)
		if !ok || ctx.Err() != nil {
			continue
		}
		b, err := files.Bytes(at, file)
		if err != nil || len(b) < 4 {
			r.missingf("variables", "%s: %d bytes, %v", file, len(b), err)
			continue
		}
		sum := sha256.Sum256(b[4:])
		r.inv.Variables = append(r.inv.Variables, fleet.EFIVariable{Name: name, GUID: guid, Attributes: binary.LittleEndian.Uint32(b), SizeBytes: len(b) - 4, SHA256: hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(r.inv.Variables, func(a, b fleet.EFIVariable) int { return strings.Compare(a.String(), b.String()) })
	if b, err := json.Marshal(r.inv.Variables); err == nil && r.fs.Live() {
		r.fs.Keep(variablesFile, b)
	}
}
