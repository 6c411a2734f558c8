package redfish

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
)

// AssetTag reads the host's asset tag (ComputerSystem AssetTag), "" where it is empty or the BMC has none.
func (b *BMC) AssetTag(ctx context.Context) (string, error) {
	r, err := b.host(ctx)
	if err != nil {
		return "", err
	}
	return clean(r.str("AssetTag")), nil
}

// SetAssetTag writes the host's asset tag and reads it back. MC-BMC-ASSETTAG where the BMC has none, takes none, or does not keep it.
func (b *BMC) SetAssetTag(ctx context.Context, tag string) error {
	release, err := b.writing(ctx)
	if err != nil {
		return err
	}
	defer release()
	r, err := b.host(ctx)
	if err != nil {
		return err
	}
	if !r.has("AssetTag") {
		return fleet.Errorf(fleet.Refused, "MC-BMC-ASSETTAG", "the BMC has no asset tag")
	}
	err = b.patch(ctx, r.uri, map[string]any{"AssetTag": tag})
	if code := statusOf(err); code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusUnauthorized {
		return fleet.Errorf(fleet.Refused, "MC-BMC-ASSETTAG", "the BMC does not take the asset tag %q: %w", tag, err)
	}
	if err != nil {
		return explain(err, "write the asset tag")
	}
	if r, err = b.host(ctx); err != nil {
		return err
	}
	if got := clean(r.str("AssetTag")); got != tag {
		return fleet.Errorf(fleet.Refused, "MC-BMC-ASSETTAG", "the BMC accepted the asset tag %q and shows %q", tag, got)
	}
	return nil
}
