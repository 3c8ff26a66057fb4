package rides

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// everyRide is the scope with which a caller may touch the rides of all riders and
// act for all vehicles.
const everyRide = auth.Dispatch

// riderOf is who rides: whom a request names or, when it names nobody, the subject
// of a rider's token.
func riderOf(ctx context.Context, named string) string {
	if c := auth.CallerOf(ctx); named == "" && c.Has(auth.Rider) && !c.Has(everyRide) {
		return c.Subject
	}
	return named
}

// forRider returns nil if the caller may act for a rider: a rider's token is good
// for its own subject only.
func forRider(ctx context.Context, rider string) error {
	c := auth.CallerOf(ctx)
	if c.Has(everyRide) || c.Has(auth.Rider) && c.Subject != "" && c.Subject == rider {
		return nil
	}
	return denied("NOT_THE_RIDER", "the token is not this rider's")
}

// forRide returns nil if the caller may see a ride, which its name shows: it was
// made for its rider.
func (r *Rides) forRide(ctx context.Context, id string) error {
	c := auth.CallerOf(ctx)
	if c.Has(everyRide) || c.Has(auth.Rider) && c.Subject != "" && r.names.Check(id, c.Subject) == nil {
		return nil
	}
	return denied("NOT_THE_RIDER", "the ride is not of the token's rider")
}

// forVehicle returns nil if the caller may act for a vehicle.
func forVehicle(ctx context.Context, vehicle string) error {
	c := auth.CallerOf(ctx)
	if c.Has(everyRide) || c.Has(auth.Report) && c.Owns(vehicle) {
		return nil
	}
	return denied("NOT_THE_VEHICLE", "the token is not this vehicle's")
}

// wantedBy is whose rides are counted when the caller asks for one: those of a rider
// with a rider's token. A dispatcher asks for whom it likes.
func wantedBy(ctx context.Context, rider string) string {
	if auth.CallerOf(ctx).Has(everyRide) {
		return ""
	}
	return rider
}

const tooManyRides = "TOO_MANY_RIDES"

// oneMore returns nil if a rider may ask for one ride more at this owner.
func (r *Rides) oneMore(rider string) error {
	has := r.directory.ofRider(rider)
	if rider == "" || has.active < r.cfg.RiderActive && has.kept < r.cfg.RiderRides {
		return nil
	}
	r.metrics.tooMany.Inc()
	return rpcstatus.Error(codes.ResourceExhausted, rpcstatus.Reason{Domain: domain, Name: tooManyRides},
		fmt.Sprintf("the rider has %d rides under way (at most rides.rider_active, %d) and %d within rides.name_age (at most rides.rider_rides, %d)",
			has.active, r.cfg.RiderActive, has.kept, r.cfg.RiderRides), rpcstatus.RetryAfter(time.Minute))
}

func denied(reason, message string) error {
	return rpcstatus.Error(codes.PermissionDenied, rpcstatus.Reason{Domain: domain, Name: reason}, message)
}
