package redfish_test

import (
	"context"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish"
)

// A password that somebody typed into the address stands in no error.
func TestAddressWithPassword(t *testing.T) {
	for _, address := range []string{
		"root:hunter2@10.0.0.1", "http:root:hunter2@10.0.0.1", "http://root:hunter2@10.0.0.1", "https://root:hunter2@10.0.0.1", "https://root:hunter2@10.0.0.1/x",
		"//root:hunter2@10.0.0.1", "https://root:hun%zzter2hunter2@10.0.0.1", "10.0.0.1",
	} {
		_, err := redfish.Dial(context.Background(), address, redfish.Options{})
		if fleet.CodeOf(err) != "MC-BMC-SCHEME" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
		if !strings.Contains(address, "@") && !strings.Contains(err.Error(), address) {
			t.Errorf("the address is not named: %v", err)
		}
	}
}
