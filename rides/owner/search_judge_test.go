package owner_test

import (
	"errors"
	"fmt"
	"slices"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// judge returns what is wrong with a state, by the folds of `rides` and what the
// tracker holds. What concerns single steps is judged where they are taken: that
// nothing is announced unread, that no attempt is decided twice, and that none of
// a newer generation is released.
func (w *world) judge() error {
	boundTo := make(map[string]string, w.s.vehicles)
	for p := range w.rides {
		if err := w.judgeRequests(p); err != nil {
			return err
		}
		var err error
		w.rides[p].fold.Each(func(r *life.Ride) {
			if err == nil {
				err = w.judgeRide(p, r, boundTo)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) judgeRide(p int, r *life.Ride, boundTo map[string]string) error {
	b := r.Bound
	if r.Phase.Bound() != (b != nil) {
		return fmt.Errorf("%s is %v, and its binding is %v", r.Name, r.Phase, b)
	}
	if b == nil || slices.Contains(w.excused, claim{r.Name, b.Attempt}) {
		return nil
	}
	if other := boundTo[b.VehicleID]; other != "" {
		return fmt.Errorf("%s is bound to %s and to %s", b.VehicleID, other, r.Name)
	}
	boundTo[b.VehicleID] = r.Name
	if w.epoch > 1 && !w.tracker.restated[p].done {
		return nil
	}
	held := w.tracker.vehicles[indexOf(b.VehicleID)].reservations.Held()
	if held == nil || held.Ride != r.Name || held.Attempt != b.Attempt || held.Fence != b.Fence {
		return fmt.Errorf("%s is bound to %+v, whose vehicle holds %+v", r.Name, *b, held)
	}
	return nil
}

// judgeLoss judges an event that ends a binding because the reservation is gone:
// only an operator's release and a promise that goes before it take one away.
func (w *world) judgeLoss(e *starlingv1.RideEvent) error {
	gone := e.GetReason() == owner.ReasonReleased || e.GetReason() == owner.ReasonClaimedTwice
	if gone && !slices.Contains(w.excused, claim{e.GetRide(), wire.AttemptFromProto(e.GetAttempt())}) {
		return fmt.Errorf("nobody has taken the vehicle away: %v", e)
	}
	return nil
}

// judgeRequests compares the watermark with what the requests below it ask for.
func (w *world) judgeRequests(p int) error {
	fold := &w.rides[p].fold
	if fold.Owner.Epoch < w.epoch {
		return nil // its offsets are of a log that may be lost
	}
	if fold.RequestsBelow > int64(len(w.requests[p])) {
		return fmt.Errorf("the watermark %d is behind the requests' end", fold.RequestsBelow)
	}
	for at, request := range w.requests[p][:fold.RequestsBelow] {
		if !effected(fold.Ride(request.GetRide()), request) {
			return fmt.Errorf("the watermark %d has passed request %d, which had no effect: %v", fold.RequestsBelow, at, request)
		}
	}
	return nil
}

// effected returns whether a request has had what effect it can have.
func effected(r *life.Ride, request *starlingv1.RideRequestRecord) bool {
	if r == nil {
		return false
	}
	if request.GetCancellation() != nil {
		return !life.May(starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED, r.Phase)
	}
	its := r.Bound != nil && r.Bound.Attempt == wire.AttemptFromProto(request.GetDriverAct().GetAttempt())
	switch request.GetDriverAct().GetAction() {
	case starlingv1.DriverAction_DRIVER_ACTION_ACCEPT:
		return !its || r.Phase != life.Offered
	case starlingv1.DriverAction_DRIVER_ACTION_DECLINE:
		return !its || r.Phase == life.OnBoard
	case starlingv1.DriverAction_DRIVER_ACTION_BOARD:
		return !its || r.Phase == life.OnBoard
	case starlingv1.DriverAction_DRIVER_ACTION_COMPLETE:
		return !its
	}
	return true
}

// live returns an error unless the state comes to rest when nothing fails any
// more, one owner of each partition goes on and everybody acts in turn; and
// unless then every ride can be driven to its end. Each owner is tried.
func (w *world) live() error {
	for first := range w.nodes {
		survivors := []int{first}
		for p := range w.s.partitions {
			if p != int(w.nodes[first].partition) {
				survivors = append(survivors, slices.IndexFunc(w.nodes, func(n *node) bool { return int(n.partition) == p }))
			}
		}
		at, err := w.settle(survivors)
		if err == nil {
			err = at.finish(survivors)
		}
		if err != nil {
			return fmt.Errorf("with owner %d alone: %w", first, err)
		}
	}
	return nil
}

const plenty = 100

// settle lets everybody act in turn until only time passes.
func (w *world) settle(survivors []int) (*world, error) {
	at := w.clone()
	at.limbo = nil
	at.wake()
	for quiet, round := 0, 0; quiet < 3; round++ {
		if round > 60 {
			return nil, errors.New("it does not come to rest")
		}
		at.left = budget{takeovers: plenty, streamTicks: plenty, proposals: plenty}
		next, acted, err := at.turn(survivors)
		if err != nil {
			return nil, err
		}
		if next, err = next.apply(action{kind: streamTick}); err != nil {
			return nil, err
		}
		if err := next.reportAll(); err != nil {
			return nil, err
		}
		next, again, err := next.turn(survivors)
		if err != nil {
			return nil, err
		}
		at = next
		if quiet++; acted || again {
			quiet = 0
		}
	}
	return at, at.judgeRest(survivors)
}

// reportAll lets every vehicle that is known report as it is. w is changed.
func (w *world) reportAll() error {
	for i := range w.tracker.vehicles {
		if v := &w.tracker.vehicles[i]; v.known && v.availability != starlingv1.Availability_AVAILABILITY_UNSPECIFIED {
			if _, err := w.publish(&wire.Location{Kind: wire.KindReport, Report: wire.Report{Availability: v.availability}}, vehicleName(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// turn lets each of the owners do once what it can, and vehicles that are unknown
// report. Reading what time alone has published is not an act.
func (w *world) turn(survivors []int) (at *world, acted bool, err error) {
	at = w
	try := func(x action, acts bool) {
		for err == nil {
			var next *world
			if next, err = at.apply(x); next == nil || err != nil {
				return
			}
			at, acted = next, acted || acts
			if x.kind == takeOver {
				return
			}
			if x.kind == readRide {
				// As soon as it must, it takes over, and has not read on.
				if next, err = at.apply(action{kind: takeOver, a: x.a}); next != nil {
					at = next
				}
			}
		}
	}
	for i := range at.tracker.vehicles {
		if v := &at.tracker.vehicles[i]; v.availability == starlingv1.Availability_AVAILABILITY_UNSPECIFIED {
			try(action{report, int8(i), int8(starlingv1.Availability_AVAILABILITY_FREE), 0}, true)
		}
	}
	for _, i := range survivors {
		try(action{kind: restart, a: int8(i)}, true)
		try(action{kind: takeOver, a: int8(i)}, true)
		try(action{kind: appendRide, a: int8(i)}, true)
		try(action{kind: appendPlace, a: int8(i)}, true)
		try(action{kind: complete, a: int8(i)}, true)
		try(action{kind: readRide, a: int8(i)}, true)
		try(action{kind: readTrack, a: int8(i)}, false)
	}
	return at, acted, err
}

// judgeRest judges a state that has come to rest.
func (w *world) judgeRest(survivors []int) error {
	for _, i := range survivors {
		n := w.nodes[i]
		if !n.owner.Leading() || n.owner.Pending() > 0 || n.owner.NextRequest() != int64(len(w.requests[n.partition])) {
			return fmt.Errorf("at rest owner %d leads=%v, has %d requests without effect and has read to %d of %d",
				i, n.owner.Leading(), n.owner.Pending(), n.owner.NextRequest(), len(w.requests[n.partition]))
		}
		searching := n.owner.Searching()
		var err error
		w.rides[n.partition].fold.Each(func(r *life.Ride) {
			if r.Phase == life.Searching && !slices.Contains(searching, n.owner.State().Ride(r.Name)) {
				err = fmt.Errorf("at rest %s is searching and waits for something", r.Name)
			}
		})
		if err != nil {
			return err
		}
	}
	for i := range w.tracker.vehicles {
		held := w.tracker.vehicles[i].reservations.Held()
		if held == nil {
			continue
		}
		r := w.rides[indexOf(held.Ride)%w.s.partitions].fold.Ride(held.Ride)
		if r == nil || r.Bound == nil || r.Bound.Attempt != held.Attempt {
			return fmt.Errorf("at rest %s is held by %+v, which is not bound", vehicleName(i), *held)
		}
	}
	for p := range w.rides {
		var err error
		w.rides[p].fold.Each(func(r *life.Ride) {
			if b := r.Bound; b != nil {
				if held := w.tracker.vehicles[indexOf(b.VehicleID)].reservations.Held(); held == nil || held.Attempt != b.Attempt {
					err = fmt.Errorf("at rest %s is bound to %+v, whose vehicle holds %+v", r.Name, *b, held)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// finish drives every ride to its end, unless each vehicle has declined it.
func (w *world) finish(survivors []int) error {
	at := w
	for range 6 * w.s.rides {
		at = at.clone()
		for i := range at.tracker.vehicles {
			if at.tracker.vehicles[i].availability != starlingv1.Availability_AVAILABILITY_FREE {
				free := wire.Report{Availability: starlingv1.Availability_AVAILABILITY_FREE}
				if _, err := at.publish(&wire.Location{Kind: wire.KindReport, Report: free}, vehicleName(i)); err != nil {
					return err
				}
			}
		}
		over := true
		for r := range w.s.rides {
			ended, err := at.further(r, survivors)
			if err != nil {
				return err
			}
			over = over && ended
		}
		if over {
			return nil
		}
		next, err := at.settle(survivors)
		if err != nil {
			return err
		}
		at = next
	}
	return errors.New("a ride can't be driven to its end")
}

// further does what brings a ride nearer to its end, in w, and returns whether it
// is there.
func (w *world) further(ride int, survivors []int) (ended bool, err error) {
	p := ride % w.s.partitions
	r := w.rides[p].fold.Ride(rideName(ride))
	var what starlingv1.DriverAction
	switch {
	case r == nil && w.s.requestsLost:
		return true, nil
	case r == nil:
		return false, fmt.Errorf("%s has had no effect", rideName(ride))
	case r.Phase.Ended():
		return true, nil
	case r.Phase == life.Searching:
		i := survivors[slices.IndexFunc(survivors, func(i int) bool { return int(w.nodes[i].partition) == p })]
		n := w.change(i)
		for v := range w.s.vehicles {
			if n.owner.Propose(r.Name, vehicleName(v)) {
				break
			}
		}
		return len(r.Declined) == w.s.vehicles, w.take(i, n, nil)
	case r.Phase == life.Offered:
		what = starlingv1.DriverAction_DRIVER_ACTION_ACCEPT
	case r.Phase == life.OnBoard:
		what = starlingv1.DriverAction_DRIVER_ACTION_COMPLETE
	default:
		what = starlingv1.DriverAction_DRIVER_ACTION_BOARD
	}
	w.request(&starlingv1.RideRequestRecord{Ride: r.Name, Call: &starlingv1.RideRequestRecord_DriverAct{
		DriverAct: &starlingv1.DriverAct{VehicleId: r.Bound.VehicleID, Attempt: r.Bound.Attempt.ToProto(), Action: what},
	}})
	return false, w.readRequests()
}
