package rides

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/request"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	domain     = "rides.starling.v1"
	ridePrefix = "rides/"
	// maxRiderChars bounds the name of a rider, maxReasonChars a reason.
	maxRiderChars, maxReasonChars = 128, 200
)

// faults collects what is wrong with a request: every field and its rule.
type faults struct{ request.Faults }

func (f *faults) err() error {
	return f.Err(rpcstatus.Reason{Domain: domain, Name: "INVALID_ARGUMENT"})
}

// ride returns the id in a ride's resource name and its partition.
func (f *faults) ride(field, resource string, partitions int32) (id string, n int32) {
	id, ok := strings.CutPrefix(resource, ridePrefix)
	n, err := partitionOf(id)
	f.Need(ok && err == nil && n < partitions, field, resource, "a name that NewRide made, such as rides/{id}")
	return id, n
}

// rideAfter returns the ride that a GetRide asks for and its partition.
func (f *faults) rideAfter(req *starlingv1.GetRideRequest, partitions int32) (id string, n int32) {
	id, n = f.ride("name", req.GetName(), partitions)
	after := req.GetAfter()
	f.Need(after == nil || after.GetPartition() == n && after.GetOffset() >= 0, "after", after, "the position that a call about this ride returned")
	return id, n
}

func (f *faults) rider(field, rider string) { f.Text(field, rider, 1, maxRiderChars) }

// order checks what is asked for. That its deadline has not passed is checked for what
// is asked for the first time only: a repetition may come late.
func (f *faults) order(o *starlingv1.RideOrder, now time.Time) {
	f.Require(o != nil, "order", "what is asked for")
	if o == nil {
		return
	}
	f.rider("order.rider", o.GetRider())
	f.Position("order.pickup_", o.GetPickupLatitude(), o.GetPickupLongitude())
	f.Position("order.dropoff_", o.GetDropoffLatitude(), o.GetDropoffLongitude())
	f.Need(o.GetPartySize() >= 1 && o.GetPartySize() <= limits.MaxSeats, "order.party_size", o.GetPartySize(), "between 1 and %d", limits.MaxSeats)
	f.Text("order.vehicle_type", o.GetVehicleType(), 0, limits.MaxLabelChars)
	if f.Count("order.tags", len(o.GetTags()), 0, limits.MaxTags) {
		for i, tag := range o.GetTags() {
			f.Text(fmt.Sprintf("order.tags[%d]", i), tag, 1, limits.MaxLabelChars)
		}
	}
	d := o.GetDeadlineMs()
	f.Need(d >= 0 && d <= now.Add(maxDeadline).UnixMilli(), "order.deadline_ms", d, deadlineRule, maxDeadline)
}

const deadlineRule = "after now and at most %s ahead"

// inTime checks that a deadline has not passed.
func (f *faults) inTime(o *starlingv1.RideOrder, now time.Time) {
	d := o.GetDeadlineMs()
	f.Need(d == 0 || d > now.UnixMilli(), "order.deadline_ms", d, deadlineRule, maxDeadline)
}

func notFound(resource string) error {
	return rpcstatus.Error(codes.NotFound, rpcstatus.Reason{Domain: domain, Name: "RIDE_NOT_FOUND"}, fmt.Sprintf("%q is no ride", resource))
}

func unavailable(reason, message string) error {
	return rpcstatus.Error(codes.Unavailable, rpcstatus.Reason{Domain: domain, Name: reason}, message, rpcstatus.RetryAfter(time.Second))
}

// phase is a ride's phase in the API, whose numbers are those of rides/life.
func phase(p life.Phase) starlingv1.RidePhase { return starlingv1.RidePhase(p) }

func phaseEnded(p starlingv1.RidePhase) bool { return life.Phase(p).Ended() }
