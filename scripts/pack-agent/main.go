// Command pack-agent compresses the ramdisk build of metalctl for embedding; the same input gives the same bytes.
package main

import (
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"
)

func main() {
	if err := pack(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack-agent:", err)
		os.Exit(1)
	}
}

func pack(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: pack-agent IN OUT")
	}
	in, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	out := enc.EncodeAll(in, nil)
	if old, err := os.ReadFile(args[1]); err == nil && string(old) == string(out) {
		return nil // an unchanged file keeps the build cache warm
	}
	return os.WriteFile(args[1], out, 0o644)
}
