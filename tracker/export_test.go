package tracker

import "github.com/starling-fleet/starling/tracker/step"

// Carry makes t a tracker of a binary with other step versions.
func (t *Tracker) Carry(versions step.Versions) { t.carried = versions }
