package tracker

import "github.com/starling-fleet/starling/internal/deadletter"

// DeadLetter is a record that could not be processed.
type DeadLetter = deadletter.Letter

// DecodeDeadLetter reads the value of a record of `dead-letters`.
func DecodeDeadLetter(value []byte) (DeadLetter, error) { return deadletter.Decode(value) }
