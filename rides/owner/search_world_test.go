package owner_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

// budget is how often what may go wrong, or what somebody outside may do, can
// still happen.
type budget struct {
	takeovers, crashes, proposals              int8
	lost, unknown, repeated, unheard           int8 // appends
	streamTicks, streamBack, clockTicks        int8
	cancels, acts, reports, operators, raising int8
}

// world is one state of the model: the logs, the tracker, the owners' processes
// and what is under way between them. The decisions are those of the real
// owner.Owner, life.State, reserve.Vehicle and reserve.Assertions.
type world struct {
	s     *scenario
	epoch int64
	left  budget

	rides    []ridesLog // by partition of `rides`
	requests [][]*starlingv1.RideRequestRecord
	// tracks are the records of `tracks` from the one that the slowest reader
	// reads next; trackBase is the index of the first.
	tracks     []*trackEntry
	trackBase  int
	nextSource int64 // the offset of the next record of `locations`
	tracker    tracker

	nodes []*node
	// limbo are records whose append has failed, or whose process has crashed, or
	// copies: each may come to the log at any time or never.
	limbo []*flight
	nonce uint64
	// preparing is true while takeovers are only put off.
	preparing bool

	// announced is the last event of each ride that its driver was sent.
	announced []*starlingv1.RideEvent
	// decided are the attempts that the tracker has decided, excused those that
	// an operator has released. Both are for the judge.
	decided, excused []claim
}

// claim names an attempt: those of two partitions of `rides` may have the same
// numbers.
type claim struct {
	ride    string
	attempt wire.Attempt
}

func claimOf(r *wire.Reservation) claim { return claim{r.Ride, r.Attempt} }

// ridesLog is a partition of `rides`, from what the slowest reader reads next.
type ridesLog struct {
	entries []*rideEntry
	base    int
	next    int64 // the next record's offset
	fold    life.State
}

type rideEntry struct {
	record  *starlingv1.RideRecord
	offset  int64
	verdict life.Verdict
	template
}

type trackEntry struct {
	track wire.Track
	template
}

// flight is an append that has not come to the log.
type flight struct {
	token     uint64
	partition int32
	key       string
	ride      *starlingv1.RideRecord
	location  *wire.Location
	template
}

// node is the process of an owner.
type node struct {
	owner     *owner.Owner
	partition int32
	epoch     int64
	// ledBy is the last takeover of its own that it has read.
	ledBy                life.Owner
	nextRide, nextTrack  int
	toRides, toLocations []*flight
	encoded              template
	encodedOwner         bool
	// unheard are appends that are in the log and have not been completed.
	unheard []completion
	// over is true once it will never act again: what it reads changes nothing.
	over bool
}

type completion struct {
	token  uint64
	offset int64
}

// tracker is what tracker/step does about reservations, with one partition.
type tracker struct {
	streamMS   int64
	assertions reserve.Assertions
	// restated is the judge's own account of who has restated: by partition of
	// `rides` the generation's parts.
	restated []restated
	vehicles []vehicle
}

type restated struct {
	generation int64
	parts      uint64
	done       bool
}

type vehicle struct {
	known        bool
	availability starlingv1.Availability
	seenMS       int64
	reservations reserve.Vehicle
	lastView     int // the index in tracks of its last view
}

func rideName(i int) string    { return fmt.Sprintf("r%d", i) }
func vehicleName(i int) string { return fmt.Sprintf("v%d", i) }
func indexOf(name string) int {
	n := 0
	for _, c := range name[1:] {
		n = 10*n + int(c-'0')
	}
	return n
}

// newWorld is a fleet that is free, rides that were asked for, and owners that
// have not taken over.
func newWorld(s *scenario) *world {
	w := &world{s: s, epoch: 1, left: s.budget, nonce: 1, announced: make([]*starlingv1.RideEvent, s.rides)}
	w.rides = make([]ridesLog, s.partitions)
	w.requests = make([][]*starlingv1.RideRequestRecord, s.partitions)
	for i := range s.rides {
		p := i % s.partitions
		w.requests[p] = append(w.requests[p], &starlingv1.RideRequestRecord{Ride: rideName(i), Call: &starlingv1.RideRequestRecord_Order{
			Order: &starlingv1.RideOrder{Rider: "rider", DeadlineMs: s.deadlineMS},
		}})
	}
	w.tracker.restated = make([]restated, s.partitions)
	w.tracker.vehicles = make([]vehicle, s.vehicles)
	for i := range w.tracker.vehicles {
		w.tracker.vehicles[i] = vehicle{known: true, availability: starlingv1.Availability_AVAILABILITY_FREE}
	}
	w.publish(&wire.Location{Kind: wire.KindTick}, "")
	for i := range s.owners {
		p := int32(i % s.partitions)
		w.nodes = append(w.nodes, &node{owner: owner.New(s.config(p), 1, life.State{}), partition: p, epoch: 1})
	}
	return w
}

// clone returns a copy that shares what is not changed in place.
func (w *world) clone() *world {
	c := *w
	c.rides, c.requests = slices.Clone(w.rides), slices.Clone(w.requests)
	c.nodes, c.announced = slices.Clone(w.nodes), slices.Clone(w.announced)
	c.tracks, c.limbo = slices.Clip(w.tracks), slices.Clip(w.limbo)
	c.decided, c.excused = slices.Clip(w.decided), slices.Clip(w.excused)
	c.tracker.vehicles, c.tracker.restated = slices.Clone(w.tracker.vehicles), slices.Clone(w.tracker.restated)
	return &c
}

// change returns a node that may be changed in w.
func (w *world) change(i int) *node {
	n := *w.nodes[i]
	n.owner = n.owner.Clone()
	n.toRides, n.toLocations = slices.Clip(n.toRides), slices.Clip(n.toLocations)
	n.encodedOwner = false
	w.nodes[i] = &n
	return &n
}

// landRide appends a record to `rides` and returns its offset. Every reader
// folds it alike; w keeps what the fold has come to.
func (w *world) landRide(partition int32, r *starlingv1.RideRecord) (int64, error) {
	l := &w.rides[partition]
	e := &rideEntry{record: r, offset: l.next}
	l.next++
	l.fold = l.fold.Clone()
	e.verdict = l.fold.Apply(e.offset, r)
	e.plain(int(e.verdict))
	e.Int(owner.RidesOffset, e.offset)
	e.rideRecord(r)
	l.entries = append(slices.Clip(l.entries), e)
	if e.verdict == life.Impossible {
		return 0, fmt.Errorf("an owner appends what the table does not allow: %v", r)
	}
	if e.verdict == life.Happened {
		return e.offset, w.judgeLoss(r.GetEvent())
	}
	return e.offset, nil
}

// landLocation appends a record to `locations`; the tracker takes it at once,
// and owners read what it publishes as late as they like.
func (w *world) landLocation(f *flight) (int64, error) {
	if f.partition != 0 {
		return 0, nil // no vehicle is there
	}
	return w.publish(f.location, f.key)
}

func (w *world) publish(l *wire.Location, key string) (int64, error) {
	t := &w.tracker
	offset := w.nextSource
	w.nextSource++
	e := &trackEntry{track: wire.Track{Epoch: w.epoch, SourceOffset: offset}}
	facts := reserve.Facts{StreamMS: t.streamMS, Epoch: w.epoch, Offset: offset, Ready: t.assertions.Ready(int32(w.s.partitions))}
	var err error
	switch l.Kind {
	case wire.KindProposal, wire.KindRelease:
		if v := &t.vehicles[indexOf(key)]; v.known {
			err = w.reserve(l, v, facts)
			e.track.HasLive, e.track.Live = true, t.view(indexOf(key))
			v.lastView = w.trackBase + len(w.tracks)
		}
	case wire.KindReport:
		v := &t.vehicles[indexOf(key)]
		v.known, v.availability, v.seenMS = true, l.Report.Availability, t.streamMS
		e.track.HasLive, e.track.Live = true, t.view(indexOf(key))
		v.lastView = w.trackBase + len(w.tracks)
	case wire.KindTick:
		w.refresh(e, func(v *vehicle) bool { return v.reservations.Held() != nil })
	case wire.KindReasserted:
		w.reassert(&l.Reasserted, e)
	}
	e.track.ClockMS = t.streamMS
	e.template.track(&e.track)
	w.tracks = append(w.tracks, e)
	return offset, err
}

// reserve decides a proposal or a release of a vehicle.
func (w *world) reserve(l *wire.Location, v *vehicle, facts reserve.Facts) error {
	facts.Dispatchable = v.availability == starlingv1.Availability_AVAILABILITY_FREE
	if l.Kind == wire.KindRelease {
		if held := v.reservations.Held(); l.Release.Operator && held != nil {
			w.excused = append(w.excused, claimOf(held))
		}
		v.reservations.Release(&l.Release, facts, w.s.limits)
		return nil
	}
	p := &l.Proposal
	switch outcome := v.reservations.Propose(p, facts, w.s.limits); outcome {
	case reserve.Granted, reserve.Refused:
		if outcome == reserve.Granted && slices.Contains(w.decided, claim{p.Ride, p.Attempt}) {
			return fmt.Errorf("%+v was decided before and is granted", p)
		}
		if p.DecideByMS >= facts.StreamMS && p.DecideByMS <= facts.StreamMS+w.s.limits.MaxDecideAheadMS {
			w.decided = append(w.decided, claim{p.Ride, p.Attempt})
		}
	}
	return nil
}

// reassert takes a restatement and publishes the vehicles that it names, of which
// some may be unknown.
func (w *world) reassert(r *wire.Reasserted, e *trackEntry) {
	t := &w.tracker
	if at := &t.restated[r.RidesPartition]; r.Epoch == w.epoch && !at.done && at.generation <= r.Generation {
		if at.generation < r.Generation {
			*at = restated{generation: r.Generation}
		}
		at.parts |= 1 << r.Part
		at.done = at.parts == 1<<r.Parts-1
	}
	state, err := reserve.DecodeAssertions(t.assertions.Append(nil))
	if err != nil {
		panic(err)
	}
	t.assertions = state
	named := make(map[int]bool)
	promises := t.assertions.Add(r, w.epoch, int32(w.s.partitions))
	for i := range promises {
		at := indexOf(promises[i].VehicleID)
		named[at] = true
		t.vehicles[at].known = true
		before := t.vehicles[at].reservations.Held()
		t.vehicles[at].reservations.Reassert(&promises[i])
		w.excuseLoser(before, &promises[i], t.vehicles[at].reservations.Held())
	}
	i := -1
	w.refresh(e, func(*vehicle) bool { i++; return named[i] })
}

// excuseLoser notes which of two promises of one vehicle has given way.
func (w *world) excuseLoser(before *wire.Reservation, p *wire.Promise, after *wire.Reservation) {
	switch {
	case before == nil || after == nil || claimOf(before) == claimOf(&p.Reservation):
	case claimOf(after) == claimOf(&p.Reservation):
		w.excused = append(w.excused, claimOf(before))
	case claimOf(after) == claimOf(before):
		w.excused = append(w.excused, claimOf(&p.Reservation))
	}
}

// refresh publishes vehicles beside the record's own.
func (w *world) refresh(e *trackEntry, which func(*vehicle) bool) {
	t := &w.tracker
	for i := range t.vehicles {
		if v := &t.vehicles[i]; which(v) {
			e.track.Fired = append(e.track.Fired, wire.Fired{VehicleID: vehicleName(i), HasLive: true, Live: t.view(i)})
			v.lastView = w.trackBase + len(w.tracks)
		}
	}
}

func (t *tracker) view(i int) wire.View {
	v := &t.vehicles[i]
	return wire.View{VehicleID: vehicleName(i), SeenTimeMS: v.seenMS, Availability: v.availability, Reservation: v.reservations.Held()}
}

// take puts what an owner wants appended on its way, and passes on what it
// announces; read is the record of `rides` that it has just read, if it has.
func (w *world) take(i int, n *node, read *rideEntry) error {
	out, events := n.owner.Take()
	for _, a := range out {
		f := &flight{token: a.Token, partition: a.Partition, key: a.Key, ride: a.Ride, location: a.Location}
		f.Int(owner.Token, int64(f.token))
		f.plain(int(f.partition))
		f.Text(f.key)
		if f.ride != nil {
			f.rideRecord(f.ride)
			n.toRides = append(n.toRides, f)
			continue
		}
		if r := &f.location.Release; f.location.Kind == wire.KindRelease && n.ledBy.Before(life.Owner{Epoch: r.Attempt.Epoch, Generation: r.Attempt.Generation}) {
			return fmt.Errorf("owner %d of %+v releases an attempt of a newer generation: %+v", i, n.ledBy, r)
		}
		f.template.location(f.location)
		n.toLocations = append(n.toLocations, f)
	}
	for _, e := range events {
		if read == nil || read.verdict != life.Happened || e != read.record.GetEvent() {
			return fmt.Errorf("owner %d announces what it did not read back: %v", i, e)
		}
		w.announced[indexOf(e.GetRide())] = e
	}
	return nil
}

// trim drops what nobody will read any more.
func (w *world) trim() {
	for p := range w.rides {
		l := &w.rides[p]
		from := l.base + len(l.entries)
		for _, n := range w.nodes {
			if int(n.partition) == p && !n.over {
				from = min(from, n.nextRide)
			}
		}
		l.entries, l.base = l.entries[from-l.base:], from
	}
	from := w.rereadFrom()
	for _, n := range w.nodes {
		if !n.over {
			from = min(from, n.nextTrack)
		}
	}
	w.tracks, w.trackBase = w.tracks[from-w.trackBase:], from
}

// reduce leaves out what differs without effect, so that fewer states are told
// apart: what is read by an owner that must take over and never will, events whose
// writer has been replaced and that every reader drops, and the order of what may
// come in any order.
func (w *world) reduce() {
	for i, n := range w.nodes {
		if !n.over && n.owner.MustTakeOver() && w.left.takeovers == 0 && !w.preparing {
			n = w.change(i)
			n.over, n.unheard = true, nil
		}
		if n.over && slices.ContainsFunc(n.toRides, w.void) {
			w.change(i).toRides = slices.DeleteFunc(slices.Clone(n.toRides), w.void)
		}
	}
	if slices.ContainsFunc(w.limbo, w.void) {
		w.limbo = slices.DeleteFunc(slices.Clone(w.limbo), w.void)
	}
	if !slices.IsSortedFunc(w.limbo, compareFlights) {
		w.limbo = slices.Clone(w.limbo)
		slices.SortStableFunc(w.limbo, compareFlights)
	}
}

// void returns whether a record for `rides` can't count any more.
func (w *world) void(f *flight) bool {
	if f.ride == nil || f.ride.GetTakeover() != nil {
		return false
	}
	writer := life.Owner{Epoch: f.ride.GetEpoch(), Generation: f.ride.GetGeneration()}
	return writer.Before(w.rides[f.partition].fold.Owner)
}

func compareFlights(a, b *flight) int {
	if order := bytes.Compare(a.bytes, b.bytes); order != 0 {
		return order
	}
	return slices.CompareFunc(a.ranked[1:], b.ranked[1:], func(x, y ranked) int {
		return cmp.Or(cmp.Compare(x.kind, y.kind), cmp.Compare(x.v, y.v))
	})
}

// wake gives an owner that never acts again a new process, so that it may be judged
// how that goes on.
func (w *world) wake() {
	for i, n := range w.nodes {
		if n.over {
			n = w.change(i)
			n.over, n.toRides, n.toLocations = false, nil, nil
			l := &w.rides[n.partition]
			n.nextRide = l.base + len(l.entries)
			w.startWith(n, w.epoch, l.fold.Clone())
		}
	}
}

// rereadFrom is where a process that starts begins to read `tracks`: each vehicle
// that is held was published since.
func (w *world) rereadFrom() int {
	from := w.trackBase + len(w.tracks) - 1
	for i := range w.tracker.vehicles {
		if v := &w.tracker.vehicles[i]; v.reservations.Held() != nil {
			from = min(from, v.lastView)
		}
	}
	return from
}

// encode writes the whole state.
func (w *world) encode(t *template) {
	b := &w.left
	for _, v := range [...]int8{b.takeovers, b.crashes, b.proposals, b.lost, b.unknown, b.repeated, b.unheard, b.streamTicks, b.streamBack, b.clockTicks, b.cancels, b.acts, b.reports, b.operators, b.raising} {
		t.bytes = append(t.bytes, byte(v))
	}
	t.plain(int(w.epoch), int(w.tracker.streamMS))
	for p := range w.rides {
		owner.EncodeState(t, &w.rides[p].fold)
		t.plain(len(w.rides[p].entries), len(w.requests[p]))
		for _, e := range w.rides[p].entries {
			t.add(&e.template)
		}
		for _, r := range w.requests[p][w.requestsSeen(p):] {
			t.bool(r.GetOrder() != nil)
			t.plain(int(r.GetDriverAct().GetAction()))
			t.Text(r.GetRide())
			owner.EncodeAttempt(t, wire.AttemptFromProto(r.GetDriverAct().GetAttempt()))
		}
	}
	t.plain(len(w.tracks))
	for _, e := range w.tracks {
		t.add(&e.template)
	}
	w.encodeTracker(t)
	for i, n := range w.nodes {
		n.encode(i, t, w)
	}
	t.plain(len(w.limbo))
	for _, f := range w.limbo {
		t.addUntold(f)
		t.bool(f.location != nil && f.location.Kind == wire.KindProposal && slices.Contains(w.decided, claim{f.location.Proposal.Ride, f.location.Proposal.Attempt}))
	}
	for _, e := range w.announced {
		if w.left.acts == 0 {
			break // no driver will act on it
		}
		t.plain(int(e.GetKind()))
		t.Text(e.GetVehicleId())
		owner.EncodeAttempt(t, wire.AttemptFromProto(e.GetAttempt()))
	}
	for _, c := range w.excused {
		t.Text(c.ride)
		owner.EncodeAttempt(t, c.attempt)
	}
}

// requestsSeen is how many requests can't be read again: every fold has their
// effects.
func (w *world) requestsSeen(p int) int {
	seen := int64(len(w.requests[p]))
	for _, n := range w.nodes {
		if int(n.partition) == p && !n.over {
			seen = min(seen, n.owner.State().RequestsBelow)
		}
	}
	return min(int(seen), len(w.requests[p]))
}

func (w *world) encodeTracker(t *template) {
	t.assertions(w.tracker.assertions.Append(nil))
	for _, r := range w.tracker.restated {
		t.plain(int(r.parts))
		t.bool(r.done)
	}
	for i := range w.tracker.vehicles {
		v := &w.tracker.vehicles[i]
		t.bool(v.known)
		t.plain(int(v.availability), int(v.seenMS))
		t.reserveVehicle(v.reservations.Append(nil))
		if v.reservations.Held() != nil {
			t.plain(v.lastView - w.trackBase)
		}
	}
}

func (n *node) encode(i int, t *template, w *world) {
	t.bool(n.over)
	t.plain(len(n.toRides), len(n.toLocations))
	if n.over {
		for _, f := range slices.Concat(n.toRides, n.toLocations) {
			t.addUntold(f)
		}
		return
	}
	t.plain(n.nextRide-w.rides[n.partition].base, n.nextTrack-w.trackBase, int(n.epoch))
	if !n.encodedOwner {
		n.encoded = template{}
		n.owner.Encode(&n.encoded)
		n.encodedOwner = true
	}
	t.addOf(i, &n.encoded)
	for _, f := range n.toRides {
		t.addOf(i, &f.template)
	}
	for _, f := range n.toLocations {
		t.addOf(i, &f.template)
	}
	for _, c := range n.unheard {
		var t2 template
		t2.Int(owner.Token, int64(c.token))
		t2.Int(owner.LocationOffset, c.offset)
		t.addOf(i, &t2)
	}
}

// addUntold adds a record whose completion nobody waits for: without its token.
func (t *template) addUntold(f *flight) {
	t.bytes = append(t.bytes, f.bytes...)
	t.ranked = append(t.ranked, f.ranked[1:]...)
}
