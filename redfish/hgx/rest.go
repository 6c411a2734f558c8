package hgx

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// clockSlack is how far the controller's clock may be from ours before its times mean nothing.
const clockSlack = time.Hour

// reports reads the baseboard's telemetry reports of environment and health: one request instead of one for each sensor.
func (w *walk) reports(ctx context.Context, root object) {
	at := root.link("TelemetryService")
	if at == "" {
		return
	}
	s, err := w.get(ctx, at)
	if err != nil || s.link("MetricReports") == "" {
		w.missing("telemetry", err)
		return
	}
	// Not expanded: the reports of all ports and counters have thousands of values that nobody wants here.
	links, _, err := w.collection(ctx, s.link("MetricReports"), false)
	w.missing("telemetry", err)
	for _, l := range links {
		if !strings.Contains(part(l), "EnvironmentMetrics") && !strings.Contains(part(l), "HealthMetrics") {
			continue
		}
		r, err := w.get(ctx, l)
		w.missing("telemetry "+part(l), err)
		if err == nil {
			w.report(r)
		}
	}
}

// report takes over a report's values. Values are strings; their times are not believed, and one that is marked stale stays marked.
func (w *walk) report(r object) {
	if t, err := time.Parse(time.RFC3339, r.str("Timestamp")); err == nil && w.board.TakenAt.Sub(t).Abs() > clockSlack {
		w.board.ClockWrong = true
	}
	for _, v := range r.list("MetricValues") {
		about := v.str("MetricProperty")
		stale := v.flag("Oem", "Nvidia", "MetricValueStale")
		if owner, isHealth := strings.CutSuffix(about, "#/Status/Health"); isHealth {
			if h := v.str("MetricValue"); h != "" && h != "OK" && !stale {
				w.board.Health[part(owner)] = h
			}
			continue
		}
		if n, ok := v.number("MetricValue"); ok && strings.Contains(about, "/Sensors/") && len(w.board.Sensors) < 1000 {
			w.board.Sensors = append(w.board.Sensors, fleet.BoardSensor{Name: part(about), Value: n, Stale: stale})
		}
	}
}

// firmware reads the items of the update service, those of software as well.
func (w *walk) firmware(ctx context.Context, root object) {
	at := root.link("UpdateService")
	if at == "" {
		return
	}
	s, err := w.get(ctx, at)
	if err != nil {
		w.missing("firmware", err)
		return
	}
	for _, key := range []string{"FirmwareInventory", "SoftwareInventory"} {
		if s.link(key) == "" {
			continue
		}
		items, err := w.each(ctx, s.link(key), w.known)
		w.missing("firmware", err)
		for _, i := range items {
			w.board.Firmware = append(w.board.Firmware, fleet.BoardFirmware{ID: part(i.link()), Version: i.str("Version")})
		}
	}
}

// roots reads which roots of trust there are and whether they may vouch; and who they are; no measurement is asked for.
func (w *walk) roots(ctx context.Context, root object) {
	at := root.link("ComponentIntegrity")
	if at == "" {
		return
	}
	items, err := w.each(ctx, at, w.known)
	w.missing("roots of trust", err)
	for _, i := range items {
		// The property is absent in early firmware: what is there is enabled unless it says that it is not.
		on := i.maybe("ComponentIntegrityEnabled")
		r := fleet.BoardRoot{ID: part(i.link()), Part: part(i.str("TargetComponentURI")), Enabled: on == nil || *on, State: i.str("Status", "State"), Health: i.str("Status", "Health")}
		if at := i.link("SPDM", "IdentityAuthentication", "ResponderAuthentication", "ComponentCertificate"); at != "" {
			c, err := w.get(ctx, at)
			w.missing("certificates of "+r.ID, err)
			if err == nil {
				r.Identity, r.Subject = identityOf(c)
			}
		}
		w.board.Roots = append(w.board.Roots, r)
	}
}

// maxChain bounds a chain of certificates in PEM: those that are known have five.
const maxChain = 64 << 10

// identityOf is the digest over a chain's certificates in their order, and whom the last of them names, as SPDM has its own at the end (DSP0274). Their validity is
// not judged here.
func identityOf(c object) (identity, subject string) {
	text, _ := c.at("CertificateString").(string)
	if len(text) > maxChain {
		return "", ""
	}
	sum, own := sha256.New(), []byte(nil)
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" && len(b.Bytes) > 0 {
			own = b.Bytes
			sum.Write(own)
		}
	}
	if own == nil {
		return "", ""
	}
	if x, err := x509.ParseCertificate(own); err == nil {
		subject = object{"CN": x.Subject.CommonName}.str("CN")
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), subject
}
