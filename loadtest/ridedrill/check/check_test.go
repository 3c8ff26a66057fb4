package check_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// rec is a record before it is encoded.
type rec struct {
	offset, ms int64
	key        string
	value      proto.Message
}

func (r rec) stored() check.Record {
	value, err := proto.Marshal(r.value)
	if err != nil {
		panic(err)
	}
	return check.Record{Offset: r.offset, AppendMS: r.ms, Key: []byte(r.key), Value: value}
}

// ledger is a log of two partitions, with one vehicle in partition 0, and what
// clients were answered.
type ledger struct {
	requests, rides, locations, tracks [2][]rec
	acknowledged                       []check.Call
	heard                              map[string][]*starlingv1.RideEvent
}

func at(ms int64, key string, value proto.Message) rec { return rec{ms: ms, key: key, value: value} }

// numbered numbers records by their place.
func numbered(all ...rec) []rec {
	for i := range all {
		all[i].offset = int64(i)
	}
	return all
}

func att(epoch, generation, counter int64) *starlingv1.Attempt {
	return &starlingv1.Attempt{Epoch: epoch, Generation: generation, Counter: counter}
}

func order(ride string) *starlingv1.RideOrder {
	return &starlingv1.RideOrder{Rider: "rider of " + ride, PartySize: 1}
}

func ordered(ms int64, ride string) rec {
	return at(ms, ride, &starlingv1.RideRequestRecord{Ride: ride, Call: &starlingv1.RideRequestRecord_Order{Order: order(ride)}})
}

func cancels(ms int64, ride string) rec {
	return at(ms, ride, &starlingv1.RideRequestRecord{Ride: ride, Call: &starlingv1.RideRequestRecord_Cancellation{
		Cancellation: &starlingv1.RideCancellation{Rider: "rider of " + ride},
	}})
}

func acts(ms int64, ride string, attempt *starlingv1.Attempt, action starlingv1.DriverAction) rec {
	return at(ms, ride, &starlingv1.RideRequestRecord{Ride: ride, Call: &starlingv1.RideRequestRecord_DriverAct{
		DriverAct: &starlingv1.DriverAct{VehicleId: "v", Attempt: attempt, Action: action},
	}})
}

func takeover(ms, epoch int64) rec {
	return at(ms, "", &starlingv1.RideRecord{Epoch: epoch, Record: &starlingv1.RideRecord_Takeover{Takeover: &starlingv1.RideTakeover{Nonce: 7}}})
}

func happens(ms, below int64, ride string, sequence int64, kind starlingv1.RideEventKind, attempt *starlingv1.Attempt, granted int64) rec {
	e := &starlingv1.RideEvent{Ride: ride, Sequence: sequence, Kind: kind}
	if kind == requested {
		e.Order = order(ride)
		e.Order.DeadlineMs = 500
	}
	if attempt != nil {
		e.VehicleId, e.Attempt, e.Fence = "v", attempt, &starlingv1.Fence{Epoch: 1, Offset: granted}
	}
	return at(ms, ride, &starlingv1.RideRecord{Epoch: 1, RequestsBelow: below, Record: &starlingv1.RideRecord_Event{Event: e}})
}

func restates(ms int64, ridesPartition int32) rec {
	return at(ms, "", &starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Reasserted{
		Reasserted: &starlingv1.Reasserted{Epoch: 1, RidesPartition: ridesPartition, Parts: 1},
	}})
}

func proposes(ms int64, ride string, attempt *starlingv1.Attempt) rec {
	return at(ms, "v", &starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Proposal{
		Proposal: &starlingv1.Proposal{Ride: ride, Attempt: attempt, DecideByMs: 1000, MaxAgeMs: 1000},
	}})
}

func releases(ms int64, ride string, attempt *starlingv1.Attempt) rec {
	return at(ms, "v", &starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Release{
		Release: &starlingv1.Release{Ride: ride, Attempt: attempt, DecideByMs: 1000},
	}})
}

// tracked is the track of a source; granted is where its reservation was, -1 for
// none.
func tracked(ms, source int64, ride string, attempt *starlingv1.Attempt, granted int64) rec {
	view := &starlingv1.VehicleView{VehicleId: "v"}
	if granted >= 0 {
		view.Reservation = &starlingv1.Reservation{Ride: ride, Attempt: attempt, Fence: &starlingv1.Fence{Epoch: 1, Offset: granted}}
	}
	return at(ms, "v", &starlingv1.TrackRecord{Epoch: 1, SourceOffset: source, PreviousSourceOffset: source - 1, ClockMs: ms, Live: view})
}

func still(ms, source int64) rec {
	return at(ms, "", &starlingv1.TrackRecord{Epoch: 1, SourceOffset: source, PreviousSourceOffset: source - 1, ClockMs: ms})
}

const (
	requested = starlingv1.RideEventKind_RIDE_EVENT_KIND_REQUESTED
	offered   = starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFERED
	assigned  = starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED
	boarded   = starlingv1.RideEventKind_RIDE_EVENT_KIND_BOARDED
	completed = starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED
	cancelled = starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED

	board    = starlingv1.DriverAction_DRIVER_ACTION_BOARD
	complete = starlingv1.DriverAction_DRIVER_ACTION_COMPLETE
)

// good is a log in which ride a, of partition 0, and ride b, of partition 1, ask
// for one vehicle. a has it first and is driven; b loses, asks again and is
// cancelled.
func good() *ledger {
	a1, b1, b2 := att(1, 0, 1), att(1, 0, 1), att(1, 0, 2)
	l := &ledger{
		requests: [2][]rec{
			numbered(ordered(10, "a"), acts(60, "a", a1, board), acts(70, "a", a1, complete)),
			numbered(ordered(11, "b"), cancels(120, "b")),
		},
		rides: [2][]rec{
			numbered(takeover(1, 1), happens(20, 0, "a", 1, requested, nil, 0), happens(40, 1, "a", 2, assigned, a1, 2),
				happens(65, 1, "a", 3, boarded, a1, 2), happens(75, 2, "a", 4, completed, a1, 2)),
			numbered(takeover(1, 1), happens(21, 0, "b", 1, requested, nil, 0), happens(100, 1, "b", 2, assigned, b2, 5),
				happens(125, 1, "b", 3, cancelled, b2, 5)),
		},
		locations: [2][]rec{numbered(restates(2, 0), restates(3, 1), proposes(30, "a", a1), proposes(31, "b", b1), releases(80, "a", a1),
			proposes(90, "b", b2), releases(130, "b", b2))},
		tracks: [2][]rec{numbered(still(2, 0), still(3, 1), tracked(30, 2, "a", a1, 2), tracked(31, 3, "a", a1, 2), tracked(80, 4, "", nil, -1),
			tracked(90, 5, "b", b2, 5), tracked(130, 6, "", nil, -1))},
		acknowledged: []check.Call{{Ride: "a", Order: order("a")}, {Ride: "b", Partition: 1, Order: order("b")}, {Ride: "b", Partition: 1, Offset: 1}},
		heard:        make(map[string][]*starlingv1.RideEvent),
	}
	for _, partition := range l.rides {
		for _, r := range partition[1:] {
			l.heard[r.key] = append(l.heard[r.key], r.value.(*starlingv1.RideRecord).GetEvent())
		}
	}
	return l
}

func (l *ledger) event(partition, i int) *starlingv1.RideEvent {
	return l.rides[partition][i].value.(*starlingv1.RideRecord).GetEvent()
}

func (l *ledger) view(i int) *starlingv1.VehicleView {
	return l.tracks[0][i].value.(*starlingv1.TrackRecord).GetLive()
}

func (l *ledger) judged() *check.Checker {
	c := check.New(2)
	for n, records := range l.requests {
		for _, r := range records {
			c.Request(int32(n), r.stored())
		}
	}
	for n, records := range l.rides {
		c.Rides(int32(n), func(yield func(check.Record) bool) {
			for _, r := range records {
				if !yield(r.stored()) {
					return
				}
			}
		})
	}
	for n := range l.locations {
		v := c.Vehicles(int32(n))
		for _, r := range l.locations[n] {
			v.Location(r.stored())
		}
		for _, r := range l.tracks[n] {
			v.Track(r.stored())
		}
		v.Finish()
	}
	c.Finish()
	for _, call := range l.acknowledged {
		var stored *check.Record
		if i := slices.IndexFunc(l.requests[call.Partition], func(r rec) bool { return r.offset == call.Offset }); i >= 0 {
			r := l.requests[call.Partition][i].stored()
			stored = &r
		}
		c.Acknowledged(call, stored)
	}
	for ride, events := range l.heard {
		c.Heard(ride, events, true)
	}
	return c
}

func TestAGoodLogHasNoFindings(t *testing.T) {
	c := good().judged()
	require.True(t, c.Findings.None(), "%s", &c.Findings)
	require.Equal(t, check.Totals{
		Requests: 2, Cancellations: 1, DriverActs: 2, Takeovers: 2, Events: 7, Rides: 2, Bindings: 2,
		Ended:     map[starlingv1.RideEventKind]int64{completed: 1, cancelled: 1},
		Proposals: 3, Granted: 2, Lost: 1, LostToHeld: 1, Releases: 2, Restatements: 2, Heard: 7,
	}, c.Totals)
}

// TestWhatMayHappenIsNoFault has what crashes and zombies leave in a good log.
func TestWhatMayHappenIsNoFault(t *testing.T) {
	for name, add := range map[string]func(l *ledger){
		"a record of an owner that was replaced": func(l *ledger) {
			r := happens(200, 0, "a", 5, cancelled, nil, 0)
			r.value.(*starlingv1.RideRecord).Generation = 0
			l.rides[0] = numbered(append(l.rides[0], takeover(190, 1), r)...)
		},
		"an event that comes twice": func(l *ledger) {
			again := l.rides[0][2]
			l.rides[0] = numbered(slices.Insert(l.rides[0], 3, again)...)
		},
		"a request that comes twice": func(l *ledger) {
			l.requests[1] = numbered(append(l.requests[1], ordered(140, "b"))...)
		},
		"tracks that are published again, out of turn too": func(l *ledger) {
			l.tracks[0] = slices.Concat(l.tracks[0][5:6], l.tracks[0][:4], l.tracks[0][1:6], l.tracks[0])
		},
		"a proposal that comes twice": func(l *ledger) {
			l.locations[0] = numbered(append(l.locations[0], proposes(140, "a", att(1, 0, 1)))...)
			l.tracks[0] = append(l.tracks[0], tracked(140, 7, "", nil, -1))
		},
	} {
		l := good()
		add(l)
		c := l.judged()
		require.True(t, c.Findings.None(), "%s: %s", name, &c.Findings)
	}
}

func TestARaisedEpochKeepsWhatIsRestated(t *testing.T) {
	raised := func(promised bool) *check.Checker {
		l := good()
		a1 := att(1, 0, 1)
		var promises []*starlingv1.Promise
		if promised {
			promises = []*starlingv1.Promise{{VehicleId: "v", Reservation: &starlingv1.Reservation{Ride: "a", Attempt: a1, Fence: &starlingv1.Fence{Epoch: 1, Offset: 2}}}}
		}
		restated := func(ms int64, n int32, p []*starlingv1.Promise) rec {
			return at(ms, "", &starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Reasserted{
				Reasserted: &starlingv1.Reasserted{Epoch: 2, RidesPartition: n, Generation: 3, Parts: 1, Promises: p},
			}})
		}
		// Ride a is bound across the raise, ride b was cancelled before.
		l.locations[0] = numbered(restates(2, 0), restates(3, 1), proposes(30, "a", a1), restated(50, 0, promises), restated(51, 1, nil),
			releases(80, "a", a1))
		l.tracks[0] = numbered(still(2, 0), still(3, 1), tracked(30, 2, "a", a1, 2), still(50, 3), still(51, 4), tracked(80, 5, "", nil, -1))
		l.tracks[0][3].value.(*starlingv1.TrackRecord).Dues = []*starlingv1.VehicleDue{{VehicleId: "v", Live: tracked(0, 0, "a", a1, 2).value.(*starlingv1.TrackRecord).Live}}
		for _, r := range l.tracks[0][3:] {
			r.value.(*starlingv1.TrackRecord).Epoch = 2
		}
		// The owner of rides b and c begins the epoch with an older state.
		l.requests[1] = numbered(ordered(11, "b"), cancels(12, "b"), ordered(13, "c"), cancels(14, "c"))
		l.rides[1] = numbered(takeover(1, 1), happens(21, 0, "b", 1, requested, nil, 0), happens(22, 1, "c", 1, requested, nil, 0),
			takeover(40, 2), happens(41, 0, "b", 2, cancelled, nil, 0), happens(42, 0, "c", 2, cancelled, nil, 0))
		for _, r := range l.rides[1][4:] {
			r.value.(*starlingv1.RideRecord).Epoch, r.value.(*starlingv1.RideRecord).Generation = 2, 3
		}
		l.heard = nil
		return l.judged()
	}
	require.True(t, raised(true).Findings.None(), "%s", &raised(true).Findings)
	require.Positive(t, raised(false).Findings.Count(check.Ungranted))
}

// TestEachFaultIsFound damages the good log in each way that must be found.
func TestEachFaultIsFound(t *testing.T) {
	garbled := at(500, "a", &starlingv1.Attempt{Epoch: 1 << 40})
	for name, damage := range map[string]struct {
		kind string
		do   func(l *ledger)
	}{
		"a garbled request":       {check.Undecodable, func(l *ledger) { l.requests[0] = append(l.requests[0], garbled) }},
		"a garbled event":         {check.Undecodable, func(l *ledger) { l.rides[0] = append(l.rides[0], garbled) }},
		"the track of another":    {check.Undecodable, func(l *ledger) { l.view(3).VehicleId = "w" }},
		"a request that was lost": {check.NotInLog, func(l *ledger) { l.requests[1] = l.requests[1][1:] }},
		"another order is stored": {check.NotInLog, func(l *ledger) { l.acknowledged[0].Order = order("c") }},
		"a cancellation is lost":  {check.NotInLog, func(l *ledger) { l.requests[1] = l.requests[1][:1] }},
		"a request without events": {check.Forgotten, func(l *ledger) {
			l.requests[1] = append(l.requests[1], rec{2, 140, "c", ordered(0, "c").value})
		}},
		"a ride that is still searched for": {check.Unfinished, func(l *ledger) { l.rides[1] = l.rides[1][:2] }},
		"a request is passed over": {check.PassedOver, func(l *ledger) {
			l.rides[0][1].value.(*starlingv1.RideRecord).RequestsBelow = 1
		}},
		"a cancellation is passed over": {check.PassedOver, func(l *ledger) {
			l.rides[1] = numbered(append(l.rides[1][:3], happens(110, 2, "c", 1, requested, nil, 0))...)
		}},
		"a watermark goes back":            {check.Backwards, func(l *ledger) { l.rides[0][4].value.(*starlingv1.RideRecord).RequestsBelow = 0 }},
		"completed without being on board": {check.ImpossibleEvent, func(l *ledger) { l.event(0, 3).Kind = completed }},
		"an event in another partition":    {check.ImpossibleEvent, func(l *ledger) { l.rides[1][3].key = "c" }},
		"another vehicle is assigned": {check.TwoVehicles, func(l *ledger) {
			l.event(0, 3).VehicleId = "w"
		}},
		"another attempt boards":         {check.TwoVehicles, func(l *ledger) { l.event(0, 3).Attempt = att(1, 0, 9) }},
		"an older generation's attempt":  {check.ForeignAttempt, func(l *ledger) { l.event(0, 2).Attempt = att(1, 7, 1) }},
		"boarded by nobody":              {check.Uncaused, func(l *ledger) { l.requests[0] = slices.Delete(l.requests[0], 1, 2) }},
		"completed by nobody":            {check.Uncaused, func(l *ledger) { l.requests[0] = l.requests[0][:2] }},
		"cancelled by nobody":            {check.Uncaused, func(l *ledger) { l.requests[1] = l.requests[1][:1] }},
		"an offer that nobody accepted":  {check.Uncaused, offerUnaccepted},
		"a ride that nobody asked for":   {check.Uncaused, func(l *ledger) { l.requests[1] = l.requests[1][1:] }},
		"another order than the first":   {check.OtherOrder, func(l *ledger) { l.event(0, 1).Order.PartySize = 4 }},
		"a refused attempt is bound":     {check.NotHeld, func(l *ledger) { l.event(1, 2).Attempt, l.event(1, 2).Fence.Offset = att(1, 0, 1), 3 }},
		"another ride's grant is bound":  {check.NotHeld, func(l *ledger) { l.event(1, 2).Fence.Offset = 2 }},
		"bound before it was granted":    {check.BoundEarly, func(l *ledger) { l.rides[0][2].ms = 29 }},
		"released before the ride's end": {check.ReleasedBound, func(l *ledger) { l.locations[0][4].ms = 74 }},
		"released and never unbound":     {check.ReleasedBound, func(l *ledger) { l.rides[0] = l.rides[0][:4] }},
		"two rides at once":              {check.TwoRides, func(l *ledger) { l.rides[1][2].ms = 70 }},
		"two rides, one without an end":  {check.TwoRides, func(l *ledger) { l.rides[0] = l.rides[0][:4] }},
		"a vehicle that is never free":   {check.HeldForever, func(l *ledger) { l.locations[0], l.tracks[0] = l.locations[0][:6], l.tracks[0][:6] }},
		"a copy is granted":              {check.GrantedTwice, copyGranted},
		"a released attempt is granted":  {check.GrantedTwice, func(l *ledger) { l.locations[0][3] = rec{3, 31, "v", releases(0, "b", att(1, 0, 2)).value} }},
		"granted too late":               {check.GrantedLate, func(l *ledger) { l.locations[0][5].value.(*starlingv1.LocationRecord).GetProposal().DecideByMs = 89 }},
		"granted before all have spoken": {check.GrantedUnrestated, func(l *ledger) { restatement(l, 1).RidesPartition = 0 }},
		"half a restatement":             {check.GrantedUnrestated, func(l *ledger) { restatement(l, 1).Parts = 2 }},
		"a restatement of another epoch": {check.GrantedUnrestated, func(l *ledger) { restatement(l, 1).Epoch = 2 }},
		"granted while it was held": {check.GrantedHeld, func(l *ledger) {
			l.view(3).Reservation = tracked(0, 0, "b", att(1, 0, 1), 3).value.(*starlingv1.TrackRecord).Live.Reservation
		}},
		"a reservation from nowhere":      {check.Ungranted, func(l *ledger) { l.view(4).Reservation = l.view(5).Reservation }},
		"a fence of another record":       {check.Ungranted, func(l *ledger) { l.view(5).Reservation.Fence.Offset = 4 }},
		"a reservation that expires":      {check.Unreleased, func(l *ledger) { l.view(3).Reservation = nil }},
		"released by a stranger":          {check.Unreleased, func(l *ledger) { l.locations[0][4].value = releases(0, "a", att(1, 0, 2)).value }},
		"a release without effect":        {check.StillHeld, func(l *ledger) { l.view(4).Reservation = l.view(3).Reservation }},
		"a proposal of nobody":            {check.UnknownGeneration, func(l *ledger) { l.locations[0][3].value = proposes(0, "b", att(1, 5, 1)).value }},
		"a missing track":                 {check.TracksGap, func(l *ledger) { l.tracks[0] = slices.Delete(l.tracks[0], 3, 4) }},
		"an event that is not in the log": {check.AnnouncedOtherwise, func(l *ledger) { l.heard["a"] = append(l.heard["a"], l.event(1, 3)) }},
		"an event that was left out":      {check.AnnouncedOtherwise, func(l *ledger) { l.heard["a"] = slices.Delete(slices.Clone(l.heard["a"]), 1, 2) }},
		"a ride that is not in the log":   {check.AnnouncedOtherwise, func(l *ledger) { l.heard["c"] = nil }},
		"a last event that was not sent":  {check.Unheard, func(l *ledger) { l.heard["a"] = l.heard["a"][:3] }},
	} {
		t.Run(name, func(t *testing.T) {
			l := good()
			damage.do(l)
			c := l.judged()
			require.Positive(t, c.Findings.Count(damage.kind), "%q among:\n%s", damage.kind, &c.Findings)
		})
	}
}

func restatement(l *ledger, i int) *starlingv1.Reasserted {
	return l.locations[0][i].value.(*starlingv1.LocationRecord).GetReasserted()
}

func offerUnaccepted(l *ledger) {
	b2 := att(1, 0, 2)
	l.rides[1] = numbered(slices.Insert(l.rides[1][:3:3], 2, happens(99, 1, "b", 2, offered, b2, 5))...)
	l.event(1, 3).Sequence = 3
}

// copyGranted grants b's first attempt, which was refused, by a later copy.
func copyGranted(l *ledger) {
	b1 := att(1, 0, 1)
	l.locations[0][5].value, l.locations[0][6].value = proposes(0, "b", b1).value, releases(0, "b", b1).value
	l.view(5).Reservation.Attempt = b1
	l.event(1, 2).Attempt, l.event(1, 3).Attempt = b1, b1
}
