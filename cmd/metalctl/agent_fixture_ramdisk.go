//go:build ramdisk

package main

// openFixture takes a folder as it is: profiles and faults are not in the ramdisk's build.
func openFixture(name, faultFile string) (root string, done func() error, err error) {
	if faultFile != "" {
		return "", nil, usageError("agent inspect: the ramdisk's build applies no faults; use the program that holds the server")
	}
	return name, func() error { return nil }, nil
}
