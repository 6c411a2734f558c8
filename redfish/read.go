package redfish

import (
	"context"
	"fmt"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
)

// Read returns the body of one resource, well-formed JSON of bounded size and depth, and its entity tag, "" where it has none. With the tag of a former
// read the body is nil where the resource has not changed since. What is not there is of kind NotFound. uri is a path on this BMC, as its links are;
// one that leads elsewhere is refused.
func (b *BMC) Read(ctx context.Context, uri, tag string) (body []byte, now string, err error) {
	path, err := localPath(uri)
	if err != nil {
		return nil, "", protocolError("%w", err)
	}
	r, err := b.call(ctx, request{method: http.MethodGet, uri: path, ifNoneMatch: tag})
	if err != nil {
		if s := statusOf(err); s == http.StatusNotFound || s == http.StatusGone {
			return nil, "", fleet.Errorf(fleet.NotFound, "MC-BMC-REFUSED", "the BMC has no %s", printable(b.wire.scrub.text(path), 120))
		}
		return nil, "", explain(err, "read "+printable(path, 120))
	}
	if r.status == http.StatusNotModified {
		return nil, tag, nil
	}
	res, err := parseResource(path, r)
	if err != nil {
		return nil, "", protocolError("%w", fmt.Errorf("read %w", err))
	}
	if t := normaliseTag(r.header.Get("ETag")); t != "" {
		now = t
	} else if len(res.tags) > 0 {
		now = res.tags[0]
	}
	return res.raw, now, nil
}
