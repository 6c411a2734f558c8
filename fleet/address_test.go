package fleet

import (
	"strings"
	"testing"
)

func TestWithoutUser(t *testing.T) {
	for in, want := range map[string]string{
		"https://10.0.0.1":                "https://10.0.0.1",
		"https://root:secret@10.0.0.1":    "https://***@10.0.0.1",
		"root:secret@10.0.0.1":            "***@10.0.0.1",
		"https://root:se@cr@10.0.0.1:443": "https://***@10.0.0.1:443",
		"secret://x@y":                    "secret://***@y",
		"":                                "",
	} {
		if got := WithoutUser(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// A proxy's password would stand in the node's record, in its views and on its boot media.
func TestProxyWithPassword(t *testing.T) {
	for proxy, bad := range map[string]bool{"http://proxy:3128": false, "http://user:hunter2@proxy:3128": true, "socks5://user@proxy:1080": true, "http://a b:hunter2@proxy": true} {
		f := (&BootNetwork{Proxy: proxy}).Validate("boot_network")
		if (len(f) > 0) != bad {
			t.Errorf("%q: %v", proxy, f)
		}
		for _, x := range f {
			if x.Field != "boot_network.proxy" || strings.Contains(x.Message, "hunter2") {
				t.Errorf("%q: %v", proxy, x)
			}
		}
	}
}
