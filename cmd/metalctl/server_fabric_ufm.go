//go:build !ramdisk

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/provision/fabric/ufm"
)

// driverUFM speaks NVIDIA's REST API of the UFM that owns a fabric's subnet manager.
const driverUFM = "ufm"

func (f fabricConfig) checkUFM(at string) error {
	if f.Partitions != "" || f.Port != "" || f.ManagementKeyFile != "" || f.Simulator != "" {
		return usageError("%s: driver %s takes none of partitions, port, management_key_file and simulator", at, driverUFM)
	}
	if u, err := url.Parse(f.Address); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return usageError("%s.address %q is no https URL such as https://ufm.example", at, f.Address)
	}
	if (f.TokenFile == "") == (f.User == "" || f.PasswordFile == "") {
		return usageError("%s: driver %s needs token_file, or user and password_file", at, driverUFM)
	}
	if f.TLS == nil {
		return usageError("%s: driver %s needs tls, with pin or ca_file", at, driverUFM)
	}
	for key, path := range map[string]string{"token_file": f.TokenFile, "password_file": f.PasswordFile} {
		if path != "" && !filepath.IsAbs(path) {
			return usageError("%s.%s %q is no absolute path", at, key, path)
		}
	}
	return f.TLS.check(at + ".tls")
}

// driveUFM makes the driver of a fabric; locks is the folder for what keeps two processes apart.
func (c fabricConfig) driveUFM(f fleet.Fabric, locks string) (switchboard.Driver, error) {
	api := ufm.API{URL: c.Address, User: c.User}
	var authority []byte
	for _, x := range []struct {
		path string
		take func([]byte)
	}{
		{c.TokenFile, func(b []byte) { api.Token = fleet.NewSecret(strings.TrimSpace(string(b))) }},
		{c.PasswordFile, func(b []byte) { api.Password = fleet.NewSecret(strings.TrimRight(string(b), "\r\n")) }},
		{c.TLS.CAFile, func(b []byte) { authority = b }},
	} {
		if x.path == "" {
			continue
		}
		b, err := os.ReadFile(x.path)
		if err != nil {
			return nil, fmt.Errorf("read how UFM of %s is reached: %w", f.Name, err)
		}
		x.take(b)
	}
	trust, err := fleet.TrustBy(c.TLS.Pin, authority)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-UFM-DENIED", "trust UFM of %s: %w", f.Name, err).WithHint("check pin or ca_file in the server's configuration")
	}
	api.HTTP = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: trust, IdleConnTimeout: time.Minute},
		// A redirect could carry the password to another host; the API has none.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return ufm.New(ufm.Options{Fabric: f, API: api, Lock: filepath.Join(locks, "fabric-"+f.Name+".lock")})
}
