package ridedrill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// rider asks for one ride after another and follows each to its end.
type rider struct {
	w       *world
	id      string
	rng     *rand.Rand
	history *history
	// stop is closed when no new ride is to be asked for and those that go on are
	// to be cancelled.
	stop <-chan struct{}
}

func newRider(w *world, n int, h *history, stop <-chan struct{}) *rider {
	return &rider{w: w, id: fmt.Sprintf("rider-%03d", n), rng: rand.New(rand.NewPCG(w.opts.Seed, 1<<33+uint64(n))), history: h, stop: stop}
}

// run asks for rides until stop is closed. It fails when a ride can't be brought
// to its end before ctx is done.
func (r *rider) run(ctx context.Context) error {
	for {
		select {
		case <-r.stop:
			return nil
		default:
		}
		if err := r.ride(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.id, err)
		}
	}
}

// again returns whether a call that failed is to be repeated: not when what was
// asked for can't be right.
func again(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.AlreadyExists, codes.Unimplemented, codes.Internal:
		return false
	}
	return true
}

// ride is the whole of one ride.
func (r *rider) ride(ctx context.Context) error {
	order := &starlingv1.RideOrder{
		Rider: r.id, PartySize: 1, PickupLatitude: centreLat + reachDeg*(r.rng.Float64()-0.5), PickupLongitude: centreLon + reachDeg*(r.rng.Float64()-0.5),
		DropoffLatitude: centreLat, DropoffLongitude: centreLon,
	}
	var name string
	err := call(ctx, func(ctx context.Context, _ int) (bool, error) {
		made, err := r.w.ridesAt(r.rng).NewRide(ctx, &starlingv1.NewRideRequest{Rider: r.id, PickupLatitude: order.PickupLatitude, PickupLongitude: order.PickupLongitude})
		name = made.GetName()
		return again(err), err
	})
	if err != nil {
		return fmt.Errorf("make a name: %w", err)
	}
	journey := r.history.begin(strings.TrimPrefix(name, "rides/"))
	if r.rng.IntN(50) == 0 { // a cancellation that overtakes its request
		if err := r.cancel(ctx, journey, name); err != nil {
			return err
		}
	}
	if err := r.request(ctx, journey, name, order); err != nil {
		return err
	}
	if r.rng.IntN(20) == 0 { // a repetition
		if err := r.request(ctx, journey, name, order); err != nil {
			return err
		}
	}
	return r.see(ctx, journey, name)
}

// see follows a ride to its end, and cancels it if the rider loses patience or the
// drill ends.
func (r *rider) see(ctx context.Context, j *journey, name string) (err error) {
	ended := make(chan error, 1)
	following := rand.New(rand.NewPCG(r.rng.Uint64(), 1))
	go func() { ended <- r.follow(ctx, following, j, name) }()
	patience := time.NewTimer(time.Hour)
	if r.rng.IntN(4) == 0 {
		patience.Reset(time.Duration(r.rng.Int64N(int64(time.Second))))
	}
	defer patience.Stop()
	// Somebody else looks at the ride meanwhile.
	looking, stopLooking := context.WithCancel(ctx)
	looked := make(chan error, 1)
	other := rand.New(rand.NewPCG(r.rng.Uint64(), 2))
	go func() { looked <- r.look(looking, other, j, name) }()
	defer func() { stopLooking(); err = errors.Join(err, <-looked) }()
	stop := r.stop
	for {
		var err error
		select {
		case err := <-ended:
			return err
		case <-patience.C:
			err = r.cancel(ctx, j, name)
		case <-stop:
			stop = nil
			err = r.cancel(ctx, j, name)
		}
		if err != nil {
			return errors.Join(err, <-ended)
		}
	}
}

func (r *rider) request(ctx context.Context, j *journey, name string, order *starlingv1.RideOrder) error {
	return r.change(ctx, j, check.Call{Order: order}, func(ctx context.Context) (*starlingv1.RideCallResponse, error) {
		return r.w.ridesAt(r.rng).RequestRide(ctx, &starlingv1.RequestRideRequest{Name: name, Order: order})
	})
}

func (r *rider) cancel(ctx context.Context, j *journey, name string) error {
	return r.change(ctx, j, check.Call{}, func(ctx context.Context) (*starlingv1.RideCallResponse, error) {
		return r.w.ridesAt(r.rng).CancelRide(ctx, &starlingv1.CancelRideRequest{Name: name, Rider: r.id})
	})
}

// change makes a call until it is acknowledged; each try is a step of the history
// of its own, because a try whose answer is lost may have its effect at any time.
func (r *rider) change(ctx context.Context, j *journey, c check.Call, try func(context.Context) (*starlingv1.RideCallResponse, error)) error {
	err := call(ctx, func(ctx context.Context, _ int) (bool, error) {
		began := r.history.now()
		out, err := try(ctx)
		if err == nil {
			c.Ride, c.Partition, c.Offset = j.name, out.GetPosition().GetPartition(), out.GetPosition().GetOffset()
		}
		r.history.called(j, c, began, err == nil)
		return again(err), err
	})
	if err != nil {
		return fmt.Errorf("ask for, or cancel, %s: %w", j.name, err)
	}
	return nil
}

// look gets the ride now and then until ctx is done, each time as it is after every
// call that anybody was acknowledged.
func (r *rider) look(ctx context.Context, rng *rand.Rand, j *journey, name string) error {
	const most = 8 // gets of one ride, so that its history can be searched
	for range most {
		if !sleep(ctx, time.Duration(rng.Int64N(int64(500*time.Millisecond)))) {
			return nil
		}
		one, cancel := context.WithTimeout(ctx, tryTimeout)
		began := r.history.now() // before what is known then is looked up
		after := r.history.known(j)
		ride, err := r.w.ridesAt(rng).GetRide(one, &starlingv1.GetRideRequest{Name: name, After: after})
		cancel()
		switch {
		case err == nil || status.Code(err) == codes.NotFound:
			r.history.got(j, ride, after, began)
		case ctx.Err() == nil && !again(err):
			return fmt.Errorf("get %s: %w", name, err)
		}
	}
	return nil
}

// follow takes every event of a ride, from any server, until the ride has ended.
func (r *rider) follow(ctx context.Context, rng *rand.Rand, j *journey, name string) error {
	var sequence, epoch int64
	for {
		done, err := r.followOnce(ctx, rng, j, name, &sequence, &epoch)
		if done || err != nil && !again(err) {
			return err
		}
		if !sleep(ctx, 30*time.Millisecond) {
			return fmt.Errorf("%s has not ended: %w", name, errors.Join(ctx.Err(), err))
		}
	}
}

func (r *rider) followOnce(ctx context.Context, rng *rand.Rand, j *journey, name string, sequence, epoch *int64) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second+time.Duration(rng.Int64N(int64(5*time.Second))))
	defer cancel()
	s, err := r.w.ridesAt(rng).SubscribeRideEvents(ctx, &starlingv1.SubscribeRideEventsRequest{Name: name, AfterSequence: *sequence, Epoch: *epoch})
	if err != nil {
		return false, err
	}
	for {
		e, err := s.Recv()
		if err != nil {
			return false, err
		}
		*epoch = e.GetRide().GetEpoch()
		if !e.GetRecovered() {
			*sequence = e.GetRide().GetSequence()
			r.history.missed(j)
		} else {
			*sequence = e.GetEvent().GetSequence()
			r.history.heard(j, e.GetEvent())
		}
		if ride := e.GetRide(); ride.GetSequence() == *sequence && ride.GetPhase() >= starlingv1.RidePhase_RIDE_PHASE_COMPLETED {
			r.history.ended(j)
			return true, nil
		}
	}
}
