package redfish

import "context"

// Members lists a collection; for tests that look at the sessions a client leaves.
func (b *BMC) Members(ctx context.Context, uri string) ([]string, error) { return b.members(ctx, uri) }
