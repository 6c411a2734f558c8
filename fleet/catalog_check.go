package fleet

import (
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ImageFormats are the formats that an image may have.
var ImageFormats = []string{"raw", "raw.zst", "raw.gz", "raw.xz", "qcow2"}

var (
	validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)
	hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
	hostName  = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

// ValidName reports whether nodes, classes, images and leases may be called s: it stands in URLs, hostnames and shells without quoting.
func ValidName(s string) bool { return validName.MatchString(s) }

func (f *faults) check(ok bool, field, message string) {
	if !ok {
		*f = append(*f, FieldError{Field: field, Message: message})
	}
}

// Validate lists all that is wrong with the class by itself, sorted by field.
func (c Class) Validate() []FieldError {
	var f faults
	f.check(ValidName(c.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -")
	f.check(c.BurnIn != "", "burnin", "is missing; say none if nothing is to run")
	f.check(c.BurnIn == "" || ValidName(c.BurnIn), "burnin", "is no profile's name")
	f.check(c.AfterTenant == "" || ValidName(c.AfterTenant) && c.AfterTenant != NoBurnIn, "after_tenant", "is no profile's name; after a tenancy every node is burned in, unless burnin is none")
	f.check(c.AfterTenant == "" || c.BurnIn != NoBurnIn, "after_tenant", "names a profile, and burnin is none")
	f.check(c.EraseLevel == "clear" || c.EraseLevel == "purge", "erase_level", "must be clear or purge: what cleaning has to reach (NIST SP 800-88)")
	f.check(!c.AcceptFormat || c.EraseLevel == "purge", "accept_format", "says what counts as a purge, and erase_level is not purge")
	for field, word := range map[string]string{"mig": c.Clean.GPUs.MIG, "ecc": c.Clean.GPUs.ECC, "persistence": c.Clean.GPUs.Persistence} {
		f.check(word == "" || word == "on" || word == "off" || word == CleanKeep, "clean.gpus."+field, "is none of on, off and keep")
	}
	f.check(c.Clean.Memory == "" || c.Clean.Memory == CleanColdCycle || c.Clean.Memory == CleanKeep, "clean.memory", "is neither cold-cycle nor keep")
	f.check(c.Clean.MemoryOffSeconds == 0 || c.Clean.Memory == CleanColdCycle && c.Clean.MemoryOffSeconds >= 10 && c.Clean.MemoryOffSeconds <= 300, "clean.memory_off_seconds",
		"must be 10 to 300, and stands beside memory: cold-cycle alone")
	for i, p := range c.Clean.Variables.Ignore {
		_, err := path.Match(p, "")
		f.check(err == nil && p != "", "clean.variables.ignore["+strconv.Itoa(i)+"]", "is no pattern such as Setup-*")
	}
	f = append(f, c.Expect.validate()...)
	c.Power.validate(&f)
	f.check(len(c.Ramdisk) <= 80, "ramdisk", "is no name of a ramdisk")
	f.check(len(c.Packs) <= MaxPacks, "packs", "are more than "+strconv.Itoa(MaxPacks))
	for i, ref := range c.Packs {
		f.check(validPackRef(ref), "packs["+strconv.Itoa(i)+"]", "is neither NAME@VERSION nor sha256: and 64 hex digits")
	}
	slices.SortFunc(f, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
	return f
}

// Validate lists all that is wrong with the site's settings by themselves.
func (s Site) Validate() []FieldError {
	var f faults
	f.check(slices.Contains(Isolations, s.Isolation), "isolation", "is none of "+strings.Join(Isolations, ", "))
	for i, d := range s.Denied {
		_, err := netip.ParsePrefix(d)
		f.check(err == nil, "denied["+strconv.Itoa(i)+"]", "is no network such as 10.0.0.0/8")
	}
	for i, o := range s.Origins {
		f.check(validOrigin(o), "origins["+strconv.Itoa(i)+"]", "is none such as https://images.example.org, http://10.0.0.5:8080 or https://*.example.org")
	}
	f.check(s.PhoneHome == "" || strings.HasPrefix(s.PhoneHome, "https://") || strings.HasPrefix(s.PhoneHome, "http://"), "phone_home", "is no http or https URL")
	f.check(s.FenceNodes >= 0, "fence_nodes", "is negative; 0 or nothing keeps the fence where it is")
	s.Power.validate(&f)
	return f
}

// Validate lists all that is wrong with what somebody says of an image.
func (i Image) Validate() []FieldError {
	var f faults
	f.check(ValidName(i.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -")
	f.check(slices.Contains(ImageFormats, i.Format), "format", "is none of "+strings.Join(ImageFormats, ", "))
	f.check(hexDigest.MatchString(i.SHA256), "sha256", "is not the 64 hex digits of a SHA-256; it is mandatory")
	f.check(i.SizeBytes >= 0, "size_bytes", "is negative")
	f.check(i.CreatedAt.IsZero(), "created_at", "is set by the server")
	if i.URL != "" {
		u, err := url.Parse(i.URL)
		ok := err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != ""
		f.check(ok, "url", "is no http or https URL")
		f.check(!ok || u.User == nil, "url", "holds a user; images are public to the fleet's agents")
		f.check(i.SizeBytes > 0, "size_bytes", "is missing; it goes with a url")
	}
	return f
}

// validOrigin takes "https://HOST", "http://HOST:PORT" and "https://*.DOMAIN".
func validOrigin(o string) bool {
	u, err := url.Parse(o)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	if u.Port() != "" {
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
			return false
		}
	}
	_, err = netip.ParseAddr(u.Hostname())
	return err == nil || hostName.MatchString(u.Hostname())
}
