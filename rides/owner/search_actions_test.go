package owner_test

import (
	"fmt"
	"slices"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

// action is one step of the model; what a, b and c are depends on its kind.
type action struct {
	kind    actionKind
	a, b, c int8
}

type actionKind uint8

const (
	readRide     actionKind = iota // owner
	readTrack                      // owner
	takeOver                       // owner
	propose                        // owner, ride, vehicle
	clockTick                      // owner
	appendRide                     // owner, fault
	appendPlace                    // owner, fault: to `locations`
	complete                       // owner: hears of its oldest append of which it did not yet
	crash                          // owner
	restart                        // owner, in the present epoch
	arrive                         // index in limbo
	streamTick                     //
	streamBack                     //
	cancel                         // ride
	act                            // ride, driver's action
	report                         // vehicle, availability
	operatorEnds                   // vehicle
	raiseEpoch                     //
	actionKinds                    // how many there are
)

var actionNames = [...]string{"reads rides", "reads tracks", "takes over", "proposes", "clock ticks", "appends to rides", "appends to locations", "hears of an append", "crashes", "restarts", "late record", "stream time ticks", "stream time goes back", "cancels", "driver acts", "vehicle reports", "operator releases", "epoch is raised"}

// fault is what becomes of an append.
type fault = int8

const (
	fine fault = iota
	lost
	unknown // fails, and the record may come later
	repeated
	unheard // comes to the log, and its owner hears of it later
)

func (x action) String() string {
	return fmt.Sprintf("%s %d %d %d", actionNames[x.kind], x.a, x.b, x.c)
}

// actions returns what can happen next; apply may still find that one can't.
func (w *world) actions(to []action) []action {
	for i, n := range w.nodes {
		to = w.nodeActions(to, int8(i), n)
	}
	for i := range w.limbo {
		to = append(to, action{kind: arrive, a: int8(i)})
	}
	b := &w.left
	add := func(budget int8, x action) {
		if budget > 0 {
			to = append(to, x)
		}
	}
	add(b.streamTicks, action{kind: streamTick})
	add(b.streamBack, action{kind: streamBack})
	add(b.raising, action{kind: raiseEpoch})
	for r := range w.s.rides {
		add(b.cancels, action{kind: cancel, a: int8(r)})
		for _, what := range w.driverActs(r) {
			add(b.acts, action{kind: act, a: int8(r), b: int8(what)})
		}
	}
	for i := range w.tracker.vehicles {
		v := &w.tracker.vehicles[i]
		switch {
		case !v.known || v.availability == starlingv1.Availability_AVAILABILITY_UNSPECIFIED:
			to = append(to, action{report, int8(i), int8(starlingv1.Availability_AVAILABILITY_FREE), 0})
		case v.availability == starlingv1.Availability_AVAILABILITY_FREE:
			add(b.reports, action{report, int8(i), int8(starlingv1.Availability_AVAILABILITY_OFFLINE), 0})
		default:
			add(b.reports, action{report, int8(i), int8(starlingv1.Availability_AVAILABILITY_FREE), 0})
		}
		if v.reservations.Held() != nil {
			add(b.operators, action{kind: operatorEnds, a: int8(i)})
		}
	}
	return to
}

func (w *world) nodeActions(to []action, i int8, n *node) []action {
	if n.over {
		to = w.appendActions(to, i, appendRide, n.toRides)
		to = w.appendActions(to, i, appendPlace, n.toLocations)
		if w.left.crashes > 0 && len(n.toRides)+len(n.toLocations) > 0 {
			to = append(to, action{kind: crash, a: i})
		}
		return to
	}
	l := &w.rides[n.partition]
	if n.nextRide < l.base+len(l.entries) {
		to = append(to, action{kind: readRide, a: i})
	}
	if n.nextTrack < w.trackBase+len(w.tracks) {
		to = append(to, action{kind: readTrack, a: i})
	}
	to = w.appendActions(to, i, appendRide, n.toRides)
	to = w.appendActions(to, i, appendPlace, n.toLocations)
	if len(n.unheard) > 0 {
		to = append(to, action{kind: complete, a: i})
	}
	if w.left.takeovers > 0 && n.owner.MustTakeOver() {
		to = append(to, action{kind: takeOver, a: i})
	}
	if w.left.crashes > 0 {
		to = append(to, action{kind: crash, a: i})
	}
	if n.epoch < w.epoch {
		to = append(to, action{kind: restart, a: i})
	}
	if !n.owner.Leading() {
		return to
	}
	if w.left.clockTicks > 0 {
		to = append(to, action{kind: clockTick, a: i})
	}
	if w.left.proposals > 0 {
		for _, r := range n.owner.Searching() {
			for v := range w.s.vehicles {
				to = append(to, action{propose, i, int8(indexOf(r.Name)), int8(v)})
			}
		}
	}
	return to
}

func (w *world) appendActions(to []action, i int8, kind actionKind, queue []*flight) []action {
	if len(queue) == 0 {
		return to
	}
	to = append(to, action{kind, i, fine, 0})
	if w.left.lost > 0 {
		to = append(to, action{kind, i, lost, 0})
	}
	if w.left.unknown > 0 {
		to = append(to, action{kind, i, unknown, 0})
	}
	if w.left.repeated > 0 {
		to = append(to, action{kind, i, repeated, 0})
	}
	if w.left.unheard > 0 && kind == appendPlace {
		to = append(to, action{kind, i, unheard, 0})
	}
	return to
}

// driverActs is what the driver of a ride can do about what was announced.
func (w *world) driverActs(ride int) []starlingv1.DriverAction {
	switch w.announced[ride].GetKind() {
	case starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFERED:
		return []starlingv1.DriverAction{starlingv1.DriverAction_DRIVER_ACTION_ACCEPT, starlingv1.DriverAction_DRIVER_ACTION_DECLINE}
	case starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED:
		return []starlingv1.DriverAction{starlingv1.DriverAction_DRIVER_ACTION_BOARD, starlingv1.DriverAction_DRIVER_ACTION_DECLINE}
	case starlingv1.RideEventKind_RIDE_EVENT_KIND_BOARDED:
		return []starlingv1.DriverAction{starlingv1.DriverAction_DRIVER_ACTION_COMPLETE}
	}
	return nil
}

// apply returns the state after an action, nil if it is not possible, and an
// error when what follows is not allowed.
func (w *world) apply(x action) (next *world, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	next = w.clone()
	possible := false
	if x.kind <= restart {
		possible, err = next.applyNode(x)
	} else {
		possible, err = next.applyOutside(x)
	}
	if err != nil || !possible {
		return nil, err
	}
	if err := next.readRequests(); err != nil {
		return nil, err
	}
	if err := next.judge(); err != nil {
		return nil, err
	}
	next.reduce()
	next.trim()
	return next, nil
}

func (w *world) applyNode(x action) (possible bool, err error) {
	i := int(x.a)
	if i >= len(w.nodes) {
		return false, nil
	}
	if w.nodes[i].over && x.kind != appendRide && x.kind != appendPlace && x.kind != crash {
		return false, nil
	}
	n := w.change(i)
	l := &w.rides[n.partition]
	switch x.kind {
	case readRide:
		if n.nextRide >= l.base+len(l.entries) {
			return false, nil
		}
		e := l.entries[n.nextRide-l.base]
		n.nextRide++
		verdict := n.owner.ReadRide(e.offset, e.record)
		if verdict == life.TookOver && n.owner.Leading() {
			n.ledBy = n.owner.State().Owner
		}
		return true, w.take(i, n, e)
	case readTrack:
		if n.nextTrack >= w.trackBase+len(w.tracks) {
			return false, nil
		}
		track := w.tracks[n.nextTrack-w.trackBase].track
		n.nextTrack++
		n.owner.ReadTrack(0, &track)
	case takeOver:
		if !n.owner.MustTakeOver() || !spend(&w.left.takeovers) {
			return false, nil
		}
		n.owner.TakeOver(w.nonce, "")
		w.nonce++
	case propose:
		if !spend(&w.left.proposals) || !n.owner.Leading() || !n.owner.Propose(rideName(int(x.b)), vehicleName(int(x.c))) {
			return false, nil
		}
	case clockTick:
		if !n.owner.Leading() || !spend(&w.left.clockTicks) {
			return false, nil
		}
		n.owner.Tick(n.owner.NowMS() + 1)
	case appendRide, appendPlace:
		return w.append(i, n, x)
	case complete:
		if len(n.unheard) == 0 {
			return false, nil
		}
		c := n.unheard[0]
		n.unheard = n.unheard[1:]
		n.owner.Completed(c.token, c.offset, false, false)
	case crash:
		if !spend(&w.left.crashes) {
			return false, nil
		}
		w.start(n, n.epoch)
	case restart:
		if n.epoch == w.epoch {
			return false, nil
		}
		w.start(n, w.epoch)
	}
	return true, w.take(i, n, nil)
}

// start puts a new process in the place of one that has ended. What the old one
// was appending may come later; the new one knows what was checkpointed, which is
// what the old one has read.
func (w *world) start(n *node, epoch int64) {
	w.limbo = append(append(w.limbo, n.toRides...), n.toLocations...)
	n.toRides, n.toLocations, n.unheard = nil, nil, nil
	w.startWith(n, epoch, n.owner.State().Clone())
}

// startWith puts a new process in the place of one, which has stored a state.
func (w *world) startWith(n *node, epoch int64, state life.State) {
	if state.Owner.Epoch < epoch && w.s.requestsLost {
		state.RequestsBelow = 0
	}
	n.owner, n.epoch = owner.New(w.s.config(n.partition), epoch, state), epoch
	n.nextTrack = w.rereadFrom()
	n.ledBy = life.Owner{}
}

// append ends the oldest append of an owner.
func (w *world) append(i int, n *node, x action) (possible bool, err error) {
	queue := &n.toRides
	if x.kind == appendPlace {
		queue = &n.toLocations
	}
	if len(*queue) == 0 {
		return false, nil
	}
	f := (*queue)[0]
	*queue = (*queue)[1:]
	switch {
	case x.b == lost && !spend(&w.left.lost), x.b == unknown && !spend(&w.left.unknown), x.b == repeated && !spend(&w.left.repeated),
		x.b == unheard && !spend(&w.left.unheard):
		return false, nil
	case x.b == lost:
		n.owner.Completed(f.token, 0, true, true)
		return true, w.take(i, n, nil)
	case x.b == unknown:
		w.limbo = append(w.limbo, f)
		n.owner.Completed(f.token, 0, true, false)
		return true, w.take(i, n, nil)
	case x.b == repeated:
		w.limbo = append(w.limbo, f)
	}
	offset, err := w.land(f)
	if err != nil {
		return false, err
	}
	if x.b == unheard {
		n.unheard = append(slices.Clip(n.unheard), completion{f.token, offset})
		return true, nil
	}
	n.owner.Completed(f.token, offset, false, false)
	return true, w.take(i, n, nil)
}

func (w *world) land(f *flight) (offset int64, err error) {
	if f.ride != nil {
		return w.landRide(f.partition, f.ride)
	}
	return w.landLocation(f)
}

func (w *world) applyOutside(x action) (possible bool, err error) {
	b := &w.left
	t := &w.tracker
	switch x.kind {
	case arrive:
		if int(x.a) >= len(w.limbo) {
			return false, nil
		}
		f := w.limbo[x.a]
		w.limbo = slices.Concat(w.limbo[:x.a], w.limbo[x.a+1:])
		_, err = w.land(f)
		return true, err
	case streamTick, streamBack:
		left, by := &b.streamTicks, int64(1)
		if x.kind == streamBack {
			// What was forgotten at a later time may be decided again.
			left, by, w.decided = &b.streamBack, -1, nil
		}
		if !spend(left) {
			return false, nil
		}
		t.streamMS += by
		_, err = w.publish(&wire.Location{Kind: wire.KindTick}, "")
		return true, err
	case cancel:
		if !spend(&b.cancels) {
			return false, nil
		}
		w.request(&starlingv1.RideRequestRecord{Ride: rideName(int(x.a)), Call: &starlingv1.RideRequestRecord_Cancellation{
			Cancellation: &starlingv1.RideCancellation{Rider: "rider"},
		}})
	case act:
		what := starlingv1.DriverAction(x.b)
		if !slices.Contains(w.driverActs(int(x.a)), what) || !spend(&b.acts) {
			return false, nil
		}
		e := w.announced[x.a]
		w.request(&starlingv1.RideRequestRecord{Ride: e.GetRide(), Call: &starlingv1.RideRequestRecord_DriverAct{
			DriverAct: &starlingv1.DriverAct{VehicleId: e.GetVehicleId(), Attempt: e.GetAttempt(), Action: what},
		}})
	case report:
		v := &t.vehicles[x.a]
		fresh := !v.known || v.availability == starlingv1.Availability_AVAILABILITY_UNSPECIFIED
		if !fresh && !spend(&b.reports) {
			return false, nil
		}
		_, err = w.publish(&wire.Location{Kind: wire.KindReport, Report: wire.Report{Availability: starlingv1.Availability(x.b)}}, vehicleName(int(x.a)))
		return true, err
	case operatorEnds:
		if t.vehicles[x.a].reservations.Held() == nil || !spend(&b.operators) {
			return false, nil
		}
		_, err = w.publish(&wire.Location{Kind: wire.KindRelease, Release: wire.Release{Operator: true}}, vehicleName(int(x.a)))
		return true, err
	case raiseEpoch:
		if !spend(&b.raising) {
			return false, nil
		}
		w.raise()
	}
	return true, nil
}

// raise begins a new epoch: the trackers know no vehicle and no reservation, and
// the offsets of `locations` and `rides` begin anew, and those of `ride-requests`
// where that log is lost.
func (w *world) raise() {
	w.epoch++
	w.nextSource = 0
	for p := range w.rides {
		w.rides[p].next = 0
		if w.s.requestsLost {
			w.requests[p] = nil
		}
	}
	t := &w.tracker
	t.assertions = reserve.Assertions{}
	clear(t.restated)
	clear(t.vehicles)
	if _, err := w.publish(&wire.Location{Kind: wire.KindTick}, ""); err != nil {
		panic(err)
	}
}

func (w *world) request(r *starlingv1.RideRequestRecord) {
	p := indexOf(r.GetRide()) % w.s.partitions
	w.requests[p] = append(slices.Clip(w.requests[p]), r)
}

// readRequests lets every owner that leads read what was asked for: when a
// request comes is free, and so is when its owner leads.
func (w *world) readRequests() error {
	for i, n := range w.nodes {
		all := w.requests[n.partition]
		if !n.owner.Leading() || n.owner.NextRequest() >= int64(len(all)) {
			continue
		}
		n = w.change(i)
		for n.owner.NextRequest() < int64(len(all)) {
			at := n.owner.NextRequest()
			n.owner.ReadRequest(at, 0, all[at])
		}
		if err := w.take(i, n, nil); err != nil {
			return err
		}
	}
	return nil
}

func spend(left *int8) bool {
	*left--
	return *left >= 0
}
