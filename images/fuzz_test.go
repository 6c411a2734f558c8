package images

import (
	"bytes"
	"io"
	"testing"
)

// FuzzDecompress reads whatever a compressed image holds, up to a bound: no panic, and no memory for what it only claims.
func FuzzDecompress(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, format := range []Format{RawGzip, RawXZ, RawZstd} {
			r, end, err := decompress(format, bytes.NewReader(b))
			if err != nil {
				continue
			}
			n, err := io.CopyN(io.Discard, r, 4<<20)
			if err == nil && n != 4<<20 {
				t.Errorf("%s: %d bytes without an end", format, n)
			}
			end()
		}
	})
}
