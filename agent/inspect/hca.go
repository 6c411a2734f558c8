package inspect

import "context"

// readHCAs lets the reader of RDMA devices do its work; the agent's rooms do not know each other.
func (r *reading) readHCAs(ctx context.Context) {
	if r.opts.HCAs == nil {
		return
	}
	hcas, missing := r.opts.HCAs(ctx, r.gpuSide().fs)
	r.inv.HCAs = hcas
	for _, m := range missing {
		r.missingf(m.What, "%s", m.Why)
	}
}
