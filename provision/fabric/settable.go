package fabric

import (
	"context"
	"encoding/binary"
	"fmt"
)

// SetTable gives the port at e the partition keys of table, which is as long as the port's own. Blocks that e shows to hold just that are not written. What
// the device took is to be read back: a device may say that it did and not have.
func (s *Station) SetTable(ctx context.Context, e End, table []uint16) error {
	if len(table) != len(e.Table) {
		return fmt.Errorf("write the partition keys of %s: %d do not fit a table of %d", e.GUID, len(table), len(e.Table))
	}
	var qs []question
	for at := 0; at < len(table); at += blockKeys {
		var block [64]byte
		same := true
		for j, k := range table[at:min(at+blockKeys, len(table))] {
			binary.BigEndian.PutUint16(block[2*j:], k)
			same = same && k == e.Table[at+j]
		}
		if !same {
			qs = append(qs, question{route: e.Route, attr: attrPKeyTable, mod: uint32(at / blockKeys), set: &block})
		}
	}
	answers, err := s.ask(ctx, qs)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.err != nil {
			return fmt.Errorf("write the partition keys of %s: %w", e.GUID, a.err)
		}
	}
	return nil
}
