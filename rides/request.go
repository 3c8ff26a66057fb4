package rides

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

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
type faults struct{ rpcstatus.Violations }

func (f *faults) err() error {
	return f.Err(rpcstatus.Reason{Domain: domain, Name: "INVALID_ARGUMENT"})
}

// ride returns the id in a ride's resource name and its partition.
func (f *faults) ride(field, resource string, partitions int32) (id string, n int32) {
	id, ok := strings.CutPrefix(resource, ridePrefix)
	n, err := partitionOf(id)
	if !ok || err != nil || n >= partitions {
		f.Add(field, "must be a name that NewRide made, such as rides/{id}")
	}
	return id, n
}

func (f *faults) rider(field, rider string) {
	if rider == "" || !plain(rider, maxRiderChars) {
		f.Add(field, "must be 1 to %d characters, none of them a control character", maxRiderChars)
	}
}

func (f *faults) vehicle(field, resource string) string {
	id, ok := strings.CutPrefix(resource, limits.VehicleNamePrefix)
	if !ok || !limits.ValidVehicleID(id) {
		f.Add(field, "must be vehicles/ and %s", limits.VehicleIDRule)
	}
	return id
}

func (f *faults) position(field string, latDeg, lonDeg float64) {
	if !(math.Abs(latDeg) <= 90) {
		f.Add(field+"_latitude", "%v is not between -90 and 90 degrees", latDeg)
	}
	if !(math.Abs(lonDeg) <= 180) {
		f.Add(field+"_longitude", "%v is not between -180 and 180 degrees", lonDeg)
	}
}

// plain returns whether a text has at most so many characters, all printable.
func plain(s string, most int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, unicode.IsControl)
}

// order checks what is asked for.
func (f *faults) order(o *starlingv1.RideOrder, now time.Time) {
	if o == nil {
		f.Add("order", "is missing")
		return
	}
	f.rider("order.rider", o.GetRider())
	f.position("order.pickup", o.GetPickupLatitude(), o.GetPickupLongitude())
	f.position("order.dropoff", o.GetDropoffLatitude(), o.GetDropoffLongitude())
	if o.GetPartySize() < 1 || o.GetPartySize() > limits.MaxSeats {
		f.Add("order.party_size", "%d is not between 1 and %d", o.GetPartySize(), limits.MaxSeats)
	}
	if !plain(o.GetVehicleType(), limits.MaxLabelChars) {
		f.Add("order.vehicle_type", "must be at most %d characters, none of them a control character", limits.MaxLabelChars)
	}
	if len(o.GetTags()) > limits.MaxTags {
		f.Add("order.tags", "%d tags, at most %d are allowed", len(o.GetTags()), limits.MaxTags)
	}
	for i, tag := range o.GetTags() {
		if tag == "" || !plain(tag, limits.MaxLabelChars) {
			f.Add(fmt.Sprintf("order.tags[%d]", i), "must be 1 to %d characters, none of them a control character", limits.MaxLabelChars)
		}
	}
	if d := o.GetDeadlineMs(); d != 0 && (d <= now.UnixMilli() || d > now.Add(maxDeadline).UnixMilli()) {
		f.Add("order.deadline_ms", "must be after now and at most %s ahead", maxDeadline)
	}
}

func notFound(resource string) error {
	return rpcstatus.Error(codes.NotFound, rpcstatus.Reason{Domain: domain, Name: "RIDE_NOT_FOUND"}, fmt.Sprintf("%q is no ride", resource))
}

func unavailable(reason, message string) error {
	return rpcstatus.Error(codes.Unavailable, rpcstatus.Reason{Domain: domain, Name: reason}, message, rpcstatus.RetryAfter(time.Second))
}

// phase is a ride's phase in the API, whose numbers are those of rides/life.
func phase(p life.Phase) starlingv1.RidePhase { return starlingv1.RidePhase(p) }
