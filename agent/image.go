package agent

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/images"
)

// written is what write-image wrote in this boot.
type written struct {
	dev    disk.Device
	result disk.WriteResult
}

// imageEvidence is what write-image shows.
type imageEvidence struct {
	Serial string `json:"serial"`
	Path   string `json:"path"`
	// Chosen says why this disk.
	Chosen string `json:"chosen"`
	Image  string `json:"image"`
	SHA256 string `json:"sha256"`
	// ContentSHA256 is the digest of the disk's first DiskBytes, "" where only a read-back can tell.
	ContentSHA256 string  `json:"content_sha256,omitempty"`
	FileBytes     int64   `json:"file_bytes"`
	DiskBytes     int64   `json:"disk_bytes"`
	ZeroBytes     int64   `json:"zero_bytes"`
	Seconds       float64 `json:"seconds"`
	MBPerSecond   float64 `json:"mb_per_second"`
	Source        string  `json:"source"`
	// Skipped are the sources that did not work, with the reason.
	Skipped []string `json:"skipped,omitempty"`
}

// verifyParams are ImageParams and what write-image found out, for an agent that was restarted in between.
type verifyParams struct {
	step.ImageParams
	Serial        string `json:"serial,omitempty"`
	ContentSHA256 string `json:"content_sha256,omitempty"`
	DiskBytes     int64  `json:"disk_bytes,omitempty"`
}

func imageOf(i fleet.Image) images.Image {
	return images.Image{Name: i.Name, URL: i.URL, Format: images.Format(i.Format), SHA256: i.SHA256, SizeBytes: i.SizeBytes, VirtualSizeBytes: i.VirtualSizeBytes}
}

// writeImage streams the image to the root disk from the first source that has it. Whatever goes wrong once bytes were written, the disk boots nothing.
func (m *machine) writeImage(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.ImageParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	img := imageOf(p.Image)
	if err := img.Validate(); err != nil {
		return step.Outcome{}, err
	}
	if len(p.Sources) == 0 {
		return step.Outcome{}, fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "the image %s has no source", img.Name)
	}
	dev, why, err := m.rootDisk(ctx, p.Root, p.Accepted, "")
	if err != nil {
		return step.Outcome{}, err
	}
	m.mu.Lock()
	delete(m.written, c.Operation)
	m.mu.Unlock()
	ev := imageEvidence{Serial: dev.Serial, Path: dev.Path, Chosen: why, Image: img.Name}
	var failed []error
	for _, s := range p.Sources {
		c.Progress("opening "+shownSource(s), 0, img.VirtualSizeBytes)
		var res disk.WriteResult
		var took time.Duration
		write := func() (err error) { res, took, err = m.writeFrom(ctx, c, s, p, img, dev); return err }
		if s.Ours {
			err = m.Home.persist(ctx, write)
		} else {
			err = write()
		}
		if err == nil {
			m.mu.Lock()
			m.written[c.Operation] = written{dev, res}
			m.mu.Unlock()
			ev.SHA256, ev.ContentSHA256 = res.SHA256, res.ContentSHA256
			ev.FileBytes, ev.DiskBytes, ev.ZeroBytes = res.FileBytes, res.DiskBytes, res.ZeroBytes
			ev.Seconds, ev.Source = took.Seconds(), shownSource(s)
			if took > 0 {
				ev.MBPerSecond = float64(res.DiskBytes) / 1e6 / took.Seconds()
			}
			return step.Outcome{Evidence: ev}, nil
		}
		if ctx.Err() != nil {
			return step.Outcome{}, err
		}
		failed = append(failed, err)
		ev.Skipped = append(ev.Skipped, shorten(shownSource(s)+": "+err.Error(), 300))
		// A disk that fails does so for every source.
		if strings.HasPrefix(fleet.CodeOf(err), "MC-DISK-") {
			break
		}
	}
	// One source that may work later makes the whole worth another try.
	slices.SortStableFunc(failed, func(a, b error) int { return cmp.Compare(passing(b), passing(a)) })
	return step.Outcome{}, errors.Join(failed...)
}

// passing is 1 for errors that may pass by themselves, else 0.
func passing(err error) int {
	if k := fleet.KindOf(err); k == fleet.Unavailable || k == fleet.Timeout {
		return 1
	}
	return 0
}

func (m *machine) writeFrom(ctx context.Context, c step.Call, s step.ImageSource, p step.ImageParams, img images.Image, dev disk.Device) (disk.WriteResult, time.Duration, error) {
	src, err := m.open(ctx, s, p)
	if err != nil {
		return disk.WriteResult{}, 0, err
	}
	defer src.Close()
	began := m.Now()
	res, err := disk.WriteImage(ctx, dev, func(ctx context.Context, yield func(images.Extent) error) (images.Result, error) {
		return images.Decode(ctx, src, img, yield)
	}, disk.Options{Image: img, Now: m.Now, Progress: progressOf(c)})
	return res, m.Now().Sub(began), err
}

// open opens a source: the own server is trusted by its key and knows this boot's certificate; origins are held to the site's rules.
func (m *machine) open(ctx context.Context, s step.ImageSource, p step.ImageParams) (*images.Origin, error) {
	if s.Ours {
		reach, err := m.Home.Reach()
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(s.URL, "/") || strings.HasPrefix(s.URL, "//") {
			return nil, fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "%q is not a path on the agent's server", s.URL)
		}
		everywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		// Where another server takes over meanwhile, it serves the same bytes at the same path: what reports to the servers finds out which one acts.
		return images.Open(ctx, reach.URL+s.URL, images.Policy{Origins: reach.Servers, TLS: reach.TLS, Proxy: reach.Proxy, Allow: everywhere,
			Moved: m.servedBy(reach.Servers), Shown: reach.URL + "/images/…/" + p.Image.Name})
	}
	policy := images.Policy{Origins: p.Origins, TLS: m.OriginTLS, Allow: m.OriginAllow}
	for _, d := range p.Denied {
		prefix, err := netip.ParsePrefix(d)
		if err != nil {
			return nil, fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "the denied network %q cannot be read, so nothing is fetched: %w", d, err)
		}
		policy.Deny = append(policy.Deny, prefix)
	}
	return images.Open(ctx, s.URL, policy)
}

// servedBy says which of some servers is the agent's own at the moment, "" where it is none of them.
func (m *machine) servedBy(servers []string) func() string {
	return func() string {
		if _, base, err := m.Home.Client(); err == nil && slices.Contains(servers, base) {
			return base
		}
		return ""
	}
}

// verifyImage reads back what write-image wrote and compares it with what the image must hold. Where nobody knows that, it fails.
func (m *machine) verifyImage(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p verifyParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	img := imageOf(p.Image)
	m.mu.Lock()
	w, ok := m.written[c.Operation]
	m.mu.Unlock()
	if !ok {
		w.result.ContentSHA256, w.result.DiskBytes = p.ContentSHA256, p.DiskBytes
		if want := img.ContentSHA256(); want != "" && img.VirtualSizeBytes+img.SizeBytes > 0 {
			w.result.ContentSHA256, w.result.DiskBytes = want, max(img.VirtualSizeBytes, img.SizeBytes)
		}
		p.Serial = strings.TrimSpace(p.Serial)
	} else {
		p.Serial = w.dev.Serial
	}
	r := w.result
	if r.ContentSHA256 == "" && len(r.Pieces) == 0 || r.DiskBytes <= 0 {
		return step.Outcome{}, fleet.Errorf(fleet.Broken, "MC-AGENT-UNPROVEN", "nobody knows any more which content %s must have on the disk", img.Name).
			WithHint("write it again: metalctl node retry NODE")
	}
	dev, _, err := m.rootDisk(ctx, p.Root, p.Accepted, p.Serial)
	if err != nil {
		return step.Outcome{}, err
	}
	began := m.Now()
	digest, err := disk.ReadBack(ctx, dev, r, disk.Options{Image: img, Now: m.Now, Progress: progressOf(c)})
	if err != nil {
		return step.Outcome{}, err
	}
	took := m.Now().Sub(began).Seconds()
	ev := map[string]any{"serial": dev.Serial, "content_sha256": digest, "disk_bytes": r.DiskBytes, "seconds": took}
	if took > 0 {
		ev["mb_per_second"] = float64(r.DiskBytes) / 1e6 / took
	}
	return step.Outcome{Evidence: ev}, nil
}

func progressOf(c step.Call) func(disk.Progress) {
	return func(p disk.Progress) { c.Progress(p.Stage, p.DoneBytes, p.TotalBytes) }
}

// shownSource names a source without what may be secret in its address.
func shownSource(s step.ImageSource) string {
	if s.Ours {
		return "the server"
	}
	return shorten(fleet.WithoutQuery(fleet.WithoutUser(s.URL)), 200)
}

func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "..."
}
