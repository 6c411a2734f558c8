package fleet

import "context"

// WireReader is how a driver takes a device over and keeps it that only reads for both: what is foreign there is for others to judge.
type WireReader struct {
	Read func(context.Context) (WireView, error)
	// Keepable is an error where what was read cannot be taken over.
	Keepable func(WireView) error
}

// Adopt reads the device and writes nothing. Where a managed port has what cannot be kept, the error lists it.
func (r WireReader) Adopt(ctx context.Context) (WireView, error) {
	v, err := r.Read(ctx)
	if err == nil {
		err = r.Keepable(v)
	}
	return v, err
}

// Guard reads the device; it mends nothing.
func (r WireReader) Guard(ctx context.Context) (view WireView, mended bool, err error) {
	view, err = r.Read(ctx)
	return view, false, err
}
