package reconcile

// Handles for tests in package reconcile_test, which may import the contract.

// ClockRecord is what the store keeps of the clocks.
type ClockRecord = clockRecord

const ClockKey = clockKey
