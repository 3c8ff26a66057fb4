package matcher_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Whoever asks for a vehicle whose report was refused after it had been
// acknowledged learns why it is not known, until it is.
func TestARefusedVehicleIsNotFoundForAReason(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	refused := w.next(partitionOf("late-comer"))
	refused.Refusal, refused.Counts.Refused = starlingv1.Refusal_REFUSAL_PARTITION_FULL, 2
	refused.Live.VehicleID = "late-comer" // the record's key
	w.append(partitionOf("late-comer"), refused)
	s.eventually(func() bool {
		_, err := get(s, "late-comer")
		return detail[*errdetails.ErrorInfo](t, err).Reason == "VEHICLE_REFUSED"
	})
	_, err := get(s, "late-comer")
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Contains(t, detail[*errdetails.ResourceInfo](t, err).Description, "REFUSAL_PARTITION_FULL")
	alarmtest.Raised(t, s.registry, "starling_matcher_vehicles_refused_total")
	w.report(w.at("late-comer", 48.2, 16.37))
	s.eventually(func() bool { _, err := get(s, "late-comer"); return err == nil })
}
