package disk

import (
	"context"
	"fmt"
)

// SmartLog reads the health log of a drive, page 02h, as the drive gives it: 512 bytes.
func SmartLog(ctx context.Context, a Admin) ([]byte, error) {
	b := AlignedBytes(512)
	if err := a.Admin(ctx, Command{Opcode: opLogPage, NSID: nsidAll, CDW10: 0x02 | (512/4-1)<<16, Data: b}); err != nil {
		return nil, fmt.Errorf("health log: %w", err)
	}
	return b, nil
}
