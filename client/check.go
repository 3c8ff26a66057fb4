package client

import (
	"fmt"

	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// checkReport returns an error for a report that every server refuses as a whole.
// Single fixes are checked by the server, which keeps the valid ones.
func checkReport(r *starlingv1.Report) error {
	switch {
	case !ValidVehicleID(r.GetVehicleId()):
		return fmt.Errorf("%w: vehicle_id %q must be %s", ErrInvalidReport, shorten(r.GetVehicleId()), limits.VehicleIDRule)
	case len(r.GetFixes()) > MaxFixesPerReport:
		return fmt.Errorf("%w: fixes: %d are more than %d", ErrInvalidReport, len(r.GetFixes()), MaxFixesPerReport)
	case len(r.GetFixes()) == 0 && r.GetAvailability() == starlingv1.Availability_AVAILABILITY_UNSPECIFIED && r.GetAttributes() == nil:
		return fmt.Errorf("%w: it has neither fixes nor availability nor attributes", ErrInvalidReport)
	case r.GetSessionId() != 0 && r.GetSequence() < 1:
		return fmt.Errorf("%w: sequence %d must be at least 1 when session_id is set", ErrInvalidReport, r.GetSequence())
	case r.GetSessionId() == 0 && r.GetSequence() != 0:
		return fmt.Errorf("%w: session_id must be set when sequence is", ErrInvalidReport)
	}
	return nil
}

// ValidVehicleID reports whether a server takes id as a vehicle's id: 1 to 64
// of the characters A-Z a-z 0-9 - _ . ~, but neither . nor ..
func ValidVehicleID(id string) bool { return limits.ValidVehicleID(id) }

func shorten(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:80] + "…"
}
