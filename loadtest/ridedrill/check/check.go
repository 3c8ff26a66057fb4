// Package check judges the log that a drill of rides leaves behind. It shares no
// code with the roles: it reads records with the generated protobuf types, and
// states takeovers, the life of a ride and the reservations of a vehicle again,
// from docs/rides.md. What it takes on trust is the log: that its adapter returns
// every record of a partition in order, with the stamp of its append.
//
// It is given `ride-requests`, `rides`, and for each partition `locations` and
// then `tracks`, and last what the clients were answered.
package check

import (
	"cmp"
	"slices"
	"time"

	findings "github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Record is one record of the log.
type Record struct {
	Offset int64
	// AppendMS is the log's stamp, in milliseconds since the Unix epoch.
	AppendMS   int64
	Key, Value []byte
}

// Kinds of findings.
const (
	Undecodable        = "a record that can't be decoded"
	NotInLog           = "an acknowledged call that is not in the log"
	Forgotten          = "a request without its ride"
	Unfinished         = "a ride that has not ended"
	PassedOver         = "a watermark that passes a request without effect"
	Backwards          = "a watermark that goes back"
	ImpossibleEvent    = "an event that a ride's phase does not allow"
	TwoVehicles        = "a ride with two vehicles"
	ForeignAttempt     = "a binding of an attempt of another generation"
	Uncaused           = "an event that nobody asked for"
	OtherOrder         = "a ride with another order than was asked for first"
	NotHeld            = "a binding whose vehicle did not hold the attempt"
	BoundEarly         = "a binding before its grant"
	ReleasedBound      = "a vehicle that was released while it was bound"
	TwoRides           = "a vehicle bound to two rides at once"
	HeldForever        = "a vehicle that is held in the end"
	GrantedTwice       = "an attempt that was decided twice"
	GrantedLate        = "an attempt that was granted after its decide-by"
	GrantedUnrestated  = "a grant before every partition has restated its promises"
	GrantedHeld        = "a grant of a vehicle that was held"
	Ungranted          = "a reservation that no proposal granted"
	Unreleased         = "a reservation that ended without a release"
	StillHeld          = "a release that did not end its reservation"
	UnknownGeneration  = "a proposal of a generation without a takeover"
	TracksGap          = "a record of locations without its track"
	AnnouncedOtherwise = "an event that clients were sent and the log does not have"
	Unheard            = "an event that its subscriber was not sent"
	LostWithoutCause   = "a loss that was announced without cause"
	Disowned           = "a ride that was said not to be, once it had been followed"
	PositionOff        = "a position of another vehicle, or older than the last"
)

// Totals are what was read.
type Totals struct {
	Requests, Cancellations, DriverActs int64
	// Takeovers, Events that count, and Void ones of owners that were replaced or
	// that are not their ride's next.
	Takeovers, Events, Void int64
	Rides                   int64
	// Ended counts the rides by their last event.
	Ended map[starlingv1.RideEventKind]int64
	// Bindings and those that ended before the ride did.
	Bindings, Unbound int64
	// Proposals are those in the log, copies not counted; Granted and Lost are
	// what became of them. LostToHeld are those of the lost whose vehicle was held
	// by another attempt.
	Proposals, Granted, Lost, LostToHeld int64
	Releases, Restatements               int64
	Heard                                int64
	// Followed are the rides that followers followed, each once for each follower, over
	// so many Connections. Resumed are the events that were older than the connection
	// they came by, Snapshots the announced losses, Positions those that were sent.
	Followed, Connections, Resumed, Snapshots, Positions int64
}

// Checker reads the log and keeps what it needs to judge it.
type Checker struct {
	Findings findings.Findings
	Totals   Totals
	// Live, if not nil, is called with how long an event took from its append to a
	// follower who was connected then.
	Live func(time.Duration)

	partitions int32
	rides      map[string]*ride
	requests   [][]request // by partition, by offset
	takeovers  []map[generation]bool
	holds      map[string][]*hold // by vehicle, by grant
}

// generation names one takeover of a partition of rides.
type generation struct{ epoch, offset int64 }

// attempt names one proposal.
type attempt struct{ epoch, generation, counter int64 }

func attemptOf(m *starlingv1.Attempt) attempt {
	return attempt{m.GetEpoch(), m.GetGeneration(), m.GetCounter()}
}

// fence is where an attempt was granted.
type fence struct{ epoch, offset int64 }

func fenceOf(m *starlingv1.Fence) fence { return fence{m.GetEpoch(), m.GetOffset()} }

// New returns a checker of a log with so many partitions of every topic.
func New(partitions int32) *Checker {
	return &Checker{
		Totals:     Totals{Ended: make(map[starlingv1.RideEventKind]int64)},
		partitions: partitions, rides: make(map[string]*ride), requests: make([][]request, partitions),
		takeovers: make([]map[generation]bool, partitions), holds: make(map[string][]*hold),
	}
}

// Finish judges what belongs together once all of the log was read.
func (c *Checker) Finish() {
	vehicles := make(map[string][]*binding)
	for _, name := range c.rideNames() {
		r := c.rides[name]
		c.finishRide(r)
		for _, b := range r.bindings {
			vehicles[b.vehicle] = append(vehicles[b.vehicle], b)
		}
	}
	for vehicle, bindings := range vehicles {
		c.finishVehicle(vehicle, bindings)
	}
	for vehicle, holds := range c.holds {
		if last := holds[len(holds)-1]; last.open() {
			c.Findings.Add(HeldForever, "%s by %s %v", vehicle, last.ride, last.attempt)
		}
	}
}

func (c *Checker) rideNames() []string {
	names := make([]string, 0, len(c.rides))
	for name := range c.rides {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// finishRide judges the whole life of a ride.
func (c *Checker) finishRide(r *ride) {
	if len(r.events) == 0 {
		if r.ordered || r.cancelled {
			c.Findings.Add(Forgotten, "%s, asked for in partition %d", r.name, r.partition)
		}
		return
	}
	c.Totals.Rides++
	last := r.events[len(r.events)-1].kind
	c.Totals.Ended[last]++
	if !r.phase.ended() {
		c.Findings.Add(Unfinished, "%s ends with %v", r.name, last)
	}
	for _, b := range r.bindings {
		c.finishBinding(b)
	}
}

// finishBinding compares a binding with what its vehicle held.
func (c *Checker) finishBinding(b *binding) {
	i := slices.IndexFunc(c.holds[b.vehicle], func(h *hold) bool {
		return h.ride == b.ride && h.attempt == b.attempt && h.fence == b.fence
	})
	if i < 0 {
		c.Findings.Add(NotHeld, "%s of %s: %v granted at %v", b.vehicle, b.ride, b.attempt, b.fence)
		return
	}
	h := c.holds[b.vehicle][i]
	if h.grantMS > b.fromMS {
		c.Findings.Add(BoundEarly, "%s of %s: granted at %d ms, bound at %d ms", b.vehicle, b.ride, h.grantMS, b.fromMS)
	}
	if h.released && !h.operator && (!b.ended || h.endMS < b.endMS) {
		c.Findings.Add(ReleasedBound, "%s of %s: released at %d ms, bound until %d ms", b.vehicle, b.ride, h.endMS, b.endMS)
	}
}

// finishVehicle looks for two bindings of a vehicle at the same time.
func (c *Checker) finishVehicle(vehicle string, bindings []*binding) {
	slices.SortFunc(bindings, func(a, b *binding) int {
		return cmp.Or(cmp.Compare(a.fromMS, b.fromMS), cmp.Compare(a.fence.epoch, b.fence.epoch), cmp.Compare(a.fence.offset, b.fence.offset))
	})
	for i := 1; i < len(bindings); i++ {
		before, after := bindings[i-1], bindings[i]
		if !before.ended || after.fromMS < before.endMS {
			c.Findings.Add(TwoRides, "%s: of %s until %d ms, of %s from %d ms", vehicle, before.ride, before.endMS, after.ride, after.fromMS)
		}
	}
}
