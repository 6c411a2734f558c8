//go:build !cgo

package gpu

import (
	"errors"
	"io"
)

// WithNVIDIA reports whether this build can open NVIDIA's library.
const WithNVIDIA = false

// Serve is the child's side; a build without cgo has none.
func Serve(io.Reader, io.Writer) error {
	return errors.New("this program was built without NVIDIA's library (CGO_ENABLED=0)")
}
