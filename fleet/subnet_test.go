package fleet

import (
	"net/netip"
	"slices"
	"testing"
)

func TestAddressesOfASubnet(t *testing.T) {
	for name, c := range map[string]struct {
		subnet Subnet
		want   []string
	}{
		"all but its own name, the gateway and the broadcast": {Subnet{CIDR: "10.0.0.0/29", Gateway: "10.0.0.1"}, []string{"10.0.0.2/29", "10.0.0.3/29", "10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29"}},
		"a pool with a reserved one":                          {Subnet{CIDR: "10.0.0.0/24", Pool: "10.0.0.250-10.0.0.252", Reserved: []string{"10.0.0.251"}}, []string{"10.0.0.250/24", "10.0.0.252/24"}},
		"a link of two":                                       {Subnet{CIDR: "10.0.0.8/31", Gateway: "10.0.0.8"}, []string{"10.0.0.9/31"}},
		"a gateway in another spelling":                       {Subnet{CIDR: "fd00:0:0:1::/126", Gateway: "fd00:0:0:1:0:0:0:1"}, []string{"fd00:0:0:1::2/126", "fd00:0:0:1::3/126"}},
		"the end of all addresses":                            {Subnet{CIDR: "255.255.255.252/30", Pool: "255.255.255.254-255.255.255.255"}, []string{"255.255.255.254/30", "255.255.255.255/30"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := Network{Name: "n", Subnets: []Subnet{c.subnet}}
			taken := map[netip.Addr]bool{}
			var got []string
			for {
				a, err := n.Give(taken)
				if err != nil {
					if CodeOf(err) != "MC-NET-ADDRESS" {
						t.Fatal(err)
					}
					break
				}
				got = append(got, a...)
				if n.Of(a[0]) == nil {
					t.Fatalf("%s is of none of its subnets", a[0])
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("gave %v, want %v", got, c.want)
			}
		})
	}
}

func TestOneAddressOfEachSubnet(t *testing.T) {
	n := Network{Name: "n", Subnets: []Subnet{{CIDR: "10.0.0.0/24"}, {CIDR: "fd00::/64"}}}
	got, err := n.Give(map[netip.Addr]bool{netip.MustParseAddr("10.0.0.1"): true})
	if err != nil || !slices.Equal(got, []string{"10.0.0.2/24", "fd00::1/64"}) {
		t.Errorf("%v, %v", got, err)
	}
}
