//go:build !ramdisk

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// editorLine lets an editor that speaks YAML check a fleet file while it is written; docs/operate/classes.md says how.
const editorLine = "# yaml-language-server: $schema=fleet.schema.json\n"

// fleetFile is what one YAML file holds, in its order.
type fleetFile struct {
	nodes    []api.NodeCreate
	classes  []fleet.Class
	images   []fleet.Image
	profiles []fleet.BurnProfile
	sites    []fleet.Site

	fabrics    []fleet.Fabric
	partitions []fleet.TenantPartition
	switches   []fleet.Switch
	networks   []fleet.Network
}

// imageFile is kind Image of a fleet file.
type imageFile struct {
	Kind string `json:"kind" enum:"Image" required:"true"`
	Name string `json:"name" required:"true"`
	// URL is where agents fetch it, of an origin that the site allows; without one its bytes are uploaded.
	URL    string `json:"url"`
	Format string `json:"format" required:"true"`
	// SHA256 is the digest of the file as served, 64 hex digits, with or without sha256: before them.
	SHA256    string `json:"sha256" required:"true"`
	SizeBytes int64  `json:"size_bytes"`
}

// siteFile is kind Site of a fleet file.
type siteFile struct {
	Kind string `json:"kind" enum:"Site" required:"true"`
	// Isolation is required; or infiniband: somebody else keeps Ethernet ports apart; or none: nodes are handed out without a network driver.
	Isolation string `json:"isolation" enum:"required,infiniband,none" required:"true"`
	// PhoneHome is the endpoint that tenants' systems can reach.
	PhoneHome string `json:"phone_home"`
	// Origins are the hosts that images may come from, besides this server.
	Origins []string `json:"image_origins"`
	// Denied are address ranges that images never come from, such as 10.0.0.0/8.
	Denied []string `json:"image_denied"`
	// PackKeys are files with public keys, beside the fleet file.
	PackKeys []string `json:"pack_keys"`
	// FenceNodes raises the fence.
	FenceNodes int `json:"fence_nodes"`
	// Power is what burn-ins and power-on draw from.
	Power struct {
		// IdleWatts and LoadWatts are what a machine draws whose class does not say.
		IdleWatts int64 `json:"idle_watts"`
		LoadWatts int64 `json:"load_watts"`
		Budgets   []struct {
			// Of is a label with its value: rack=r1, row=3, feed=a.
			Of    string `json:"of" required:"true"`
			Watts int64  `json:"watts" required:"true"`
		} `json:"budgets"`
	} `json:"power"`
}

// fleetKinds are what a document of a fleet file may be.
const fleetKinds = "Node, Class, Image, Profile, Site, Fabric, Partition, Switch or Network"

// readFleetFile reads a YAML file of one or more documents, strictly: an unknown key or a wrong type is an error with file, line and column.
func readFleetFile(path string, stdin io.Reader) (fleetFile, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(stdin, 16<<20))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return fleetFile{}, fmt.Errorf("read fleet file: %w", err)
	}
	return parseFleetFile(path, data, os.ReadFile)
}

// parseFleetFile is readFleetFile without the file system; open reads files that the document names, relative to it.
func parseFleetFile(name string, data []byte, open func(string) ([]byte, error)) (fleetFile, error) {
	var out fleetFile
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		return out, yamlError(name, err)
	}
	n := 0
	for _, d := range doc.Docs {
		if d.Body == nil {
			continue
		}
		n++
		if err := out.add(name, d.Body, open); err != nil {
			return fleetFile{}, err
		}
	}
	if n == 0 {
		return out, fleet.Errorf(fleet.Invalid, "MC-FILE-EMPTY", "%s: no document in it", name)
	}
	return out, nil
}

func (f *fleetFile) add(name string, body ast.Node, open func(string) ([]byte, error)) error {
	var head struct {
		Kind string `yaml:"kind"`
	}
	if err := yaml.NodeToValue(body, &head); err != nil {
		return yamlError(name, err)
	}
	at := func(format string, args ...any) error {
		pos := body.GetToken().Position
		return fleet.Errorf(fleet.Invalid, "MC-FILE-VALUE", "%s:%d: %s", name, pos.Line, fmt.Sprintf(format, args...))
	}
	into := func(v any) error { return strictly(name, body, v) }
	switch head.Kind {
	case "Node":
		var n nodeFile
		if err := into(&n); err != nil {
			return err
		}
		c, err := n.create(filepath.Dir(name), open)
		if err != nil {
			return at("%v", err)
		}
		f.nodes = append(f.nodes, c)
	case "Class":
		var c classFile
		if err := into(&c); err != nil {
			return err
		}
		class := c.class()
		if err := valueFaults(name, body, "class "+class.Name, class.Validate()); err != nil {
			return err
		}
		f.classes = append(f.classes, class)
	case "Image":
		var i imageFile
		if err := into(&i); err != nil {
			return err
		}
		image := fleet.Image{Name: i.Name, URL: i.URL, Format: i.Format, SHA256: strings.ToLower(strings.TrimPrefix(i.SHA256, "sha256:")), SizeBytes: i.SizeBytes}
		if err := valueFaults(name, body, "image "+image.Name, image.Validate()); err != nil {
			return err
		}
		f.images = append(f.images, image)
	case "Profile":
		p, err := profileOf(name, body)
		if err != nil {
			return err
		}
		f.profiles = append(f.profiles, p)
	case "Site":
		var s siteFile
		if err := into(&s); err != nil {
			return err
		}
		site, err := s.site(filepath.Dir(name), open)
		if err != nil {
			return at("%v", err)
		}
		if err := valueFaults(name, body, "site", site.Validate()); err != nil {
			return err
		}
		f.sites = append(f.sites, site)
	case "Fabric":
		var x fabricFile
		if err := into(&x); err != nil {
			return err
		}
		fabric := x.fabric()
		if err := valueFaults(name, body, "fabric "+fabric.Name, fabric.Validate()); err != nil {
			return err
		}
		f.fabrics = append(f.fabrics, fabric)
	case "Partition":
		var x partitionFile
		if err := into(&x); err != nil {
			return err
		}
		part := fleet.TenantPartition{Name: x.Name, Keys: x.Keys}
		if err := valueFaults(name, body, "partition "+part.Name, part.Validate()); err != nil {
			return err
		}
		f.partitions = append(f.partitions, part)
	case "Switch":
		var x switchFile
		if err := into(&x); err != nil {
			return err
		}
		if err := valueFaults(name, body, "switch "+x.Name, x.ethernet().Validate()); err != nil {
			return err
		}
		f.switches = append(f.switches, x.ethernet())
	case "Network":
		var x networkFile
		if err := into(&x); err != nil {
			return err
		}
		if err := valueFaults(name, body, "network "+x.Name, x.network().Validate()); err != nil {
			return err
		}
		f.networks = append(f.networks, x.network())
	case "":
		return at("the document has no `kind`; want %s", fleetKinds)
	default:
		return at("kind %q is not known; want %s", head.Kind, fleetKinds)
	}
	return nil
}

func (s siteFile) site(dir string, open func(string) ([]byte, error)) (fleet.Site, error) {
	out := fleet.Site{Isolation: s.Isolation, PhoneHome: s.PhoneHome, Origins: s.Origins, Denied: s.Denied, FenceNodes: s.FenceNodes}
	out.Power.IdleWatts, out.Power.LoadWatts = s.Power.IdleWatts, s.Power.LoadWatts
	for _, b := range s.Power.Budgets {
		label, value, _ := strings.Cut(b.Of, "=")
		out.Power.Budgets = append(out.Power.Budgets, fleet.PowerBudget{Label: label, Value: value, Watts: b.Watts})
	}
	for i, file := range s.PackKeys {
		b, err := open(beside(dir, file))
		if err != nil {
			return out, fmt.Errorf("pack_keys[%d]: %w", i, err)
		}
		out.PackKeys = append(out.PackKeys, string(b))
	}
	return out, nil
}

// beside is the path of a file that a fleet file in dir names.
func beside(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
