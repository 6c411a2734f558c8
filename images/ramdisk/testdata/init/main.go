// Command init is the smallest agent: what the boot tests run as PID 1. It says on the console what it found, and powers off.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/metalctl/metalctl/agent/boot"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m, err := boot.Init(ctx, boot.Options{})
	if err != nil {
		fmt.Println("INIT-FAILED", err)
		time.Sleep(time.Hour) // the end of PID 1 would be a panic of the kernel that hides the message
	}
	say := func(format string, args ...any) { fmt.Fprintf(m.Console, "TEST "+format+"\n", args...) }
	go func() {
		if err := m.Run(ctx); err != nil {
			say("run-failed %v", err)
		}
	}()
	c, err := boot.ReadCredential(ctx)
	if err != nil {
		say("credential-failed %v", err)
	} else {
		say("credential node=%s generation=%d token=%d servers=%d", c.Node, c.Generation, len(c.Token.Reveal()), len(c.Servers))
		m.Apply(c)
		if c.Node == "wait" {
			say("waiting")
			select {}
		}
		say("clock-ok %v", !time.Now().Before(c.IssuedAt))
	}
	say("libc %s", libc())
	name, _ := os.Hostname()
	say("hostname %s", name)
	vars, _ := os.ReadDir("/sys/firmware/efi/efivars")
	say("efi-variables %v", len(vars) > 10)
	secure, err := filepath.Glob("/sys/firmware/efi/efivars/SecureBoot-*")
	if err == nil && len(secure) == 1 {
		b, err := os.ReadFile(secure[0])
		say("secure-boot %v %v", len(b) == 5 && b[4] == 1, err)
	}
	disks, _ := filepath.Glob("/sys/block/*")
	say("disks %v", disks)
	links, _ := filepath.Glob("/sys/class/net/*")
	say("links %v", links)
	medium(ctx, m)
	if c != nil {
		network(ctx, m, c)
	}
	crash(ctx, m)
	say("done")
	m.Console.Flush(10 * time.Second)
	cancel()
	if err := boot.PowerOff(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
		say("power-off-failed %v", err)
		time.Sleep(time.Hour)
	}
}
