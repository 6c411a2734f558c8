package inspect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// tpmFile is where a recording keeps the manufacturer's name.
const tpmFile = "tpm"

// readTPM reads the first trusted platform module. A machine without one has none, which is no miss.
func (r *reading) readTPM(context.Context) {
	const dir = "sys/class/tpm/tpm0"
	if !r.fs.Exists(dir) {
		return
	}
	t := &fleet.TPM{}
	r.inv.TPM = t
	switch major, err := r.fs.Number(dir, "tpm_version_major"); {
	case err != nil:
		r.missing("tpm.version", err)
	case major == 2:
		t.Version = "2.0"
	case major == 1:
		t.Version = "1.2"
	default:
		t.Version = fmt.Sprint(major)
	}
	if t.Version != "2.0" {
		return
	}
	if !r.fs.Live() {
		if t.Manufacturer = r.fs.Try(tpmFile); t.Manufacturer == "" {
			r.missingf("tpm.manufacturer", "a recording cannot be asked")
		}
		return
	}
	name, err := askManufacturer("/dev/tpmrm0")
	if err != nil {
		r.missing("tpm.manufacturer", err)
		return
	}
	t.Manufacturer = name
	r.fs.Keep(tpmFile, []byte(name+"\n"))
}

// getManufacturer is TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES, TPM_PT_MANUFACTURER, 1) (TPM 2.0 part 3 section 30.2).
var getManufacturer = []byte{0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 0x01, 0x05, 0, 0, 0, 1}

// askManufacturer sends the command to a TPM's device and returns the vendor's four letters.
func askManufacturer(device string) (string, error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// Devices that cannot take a deadline answer this command within milliseconds.
	if err := f.SetDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return "", err
	}
	if _, err := f.Write(getManufacturer); err != nil {
		return "", fmt.Errorf("ask the TPM: %w", err)
	}
	b := make([]byte, 4096)
	n, err := f.Read(b)
	if err != nil {
		return "", fmt.Errorf("read the TPM's answer: %w", err)
	}
	return parseManufacturer(b[:n])
}

// parseManufacturer reads the answer: header (10 bytes), moreData, capability, count, property, value.
func parseManufacturer(b []byte) (string, error) {
	if len(b) < 10 {
		return "", fmt.Errorf("the TPM's answer has %d bytes", len(b))
	}
	if code := binary.BigEndian.Uint32(b[6:]); code != 0 {
		return "", fmt.Errorf("the TPM answers %#x", code)
	}
	if len(b) < 27 || binary.BigEndian.Uint32(b[15:]) != 1 || binary.BigEndian.Uint32(b[19:]) != 0x105 {
		return "", errors.New("the TPM's answer does not name its manufacturer")
	}
	name := strings.TrimRight(string(b[23:27]), " \x00")
	for _, c := range name {
		if c < 0x20 || c > 0x7e {
			return "", fmt.Errorf("the TPM calls its manufacturer %q", name)
		}
	}
	return name, nil
}
