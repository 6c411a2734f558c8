package reconcile

import "github.com/google/uuid"

// newID returns a UUIDv7: ids sort by when they were made (RFC 9562 section 5.7).
func newID() string { return uuid.Must(uuid.NewV7()).String() }
