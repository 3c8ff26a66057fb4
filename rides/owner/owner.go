// Package owner decides what the owner of a partition of `rides` appends. It is
// pure: it reads records, completions of its own appends, the time and what the
// matcher chose, and returns appends; it does no I/O and knows no clock.
//
// What holds at any moment, whatever crashes, is late, is lost or comes twice:
//
//   - A vehicle is bound to a ride only by a record of the latest takeover, which
//     was appended after its tracker had granted exactly that attempt.
//   - An attempt is released only when it can't be bound any more: it is of this
//     generation and closed here, or of an older one and not bound in the log
//     behind this generation's takeover. Never one of a newer generation.
//   - Nothing is announced before it has been read back.
package owner

import (
	"maps"
	"slices"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Mode is who decides whether a vehicle that was found takes the ride.
type Mode uint8

// Modes.
const (
	// Auto: the vehicle that granted is assigned.
	Auto Mode = iota
	// Offer: its driver has Config.OfferMS to accept.
	Offer
)

// Config is what an owner is set to. Times are in milliseconds.
type Config struct {
	// Partition is the partition of `rides` that it owns, of Partitions.
	Partition, Partitions int32
	Mode                  Mode
	// OfferMS is how long a driver may consider an offer.
	OfferMS int64
	// DecideMS is how long a proposal may wait for its tracker, in the stream
	// time of the vehicle's partition.
	DecideMS int64
	// MaxFixAgeMS is how old a vehicle's newest fix may be when it is reserved.
	MaxFixAgeMS int64
	// SearchMS is how long a vehicle is searched when the order names no deadline.
	SearchMS int64
	// SilenceMS is how long a bound vehicle may be silent before it is lost, in
	// the stream time of its partition.
	SilenceMS int64
	// ArrivingM is how near to the pickup an assigned vehicle is arriving, in metres;
	// 0 leaves arriving and arrival to the driver.
	ArrivingM float64
	// ArrivedM is how near it is at the pickup, once its fixes have been within
	// twice as much for ArrivedMS, by their device's clock, since one was within it.
	ArrivedM  float64
	ArrivedMS int64
	// MaxPromisesBytes bounds the promises of one part of a restatement.
	MaxPromisesBytes int
	// PartitionOf returns the partition of a vehicle.
	PartitionOf func(vehicleID string) int32
	// OwnsRide returns whether a ride's name is of this partition.
	OwnsRide func(name string) bool
	// Acceptable returns whether a request for a name that has no ride may
	// create one, by the request's append stamp: not too old, not of the future.
	Acceptable func(name string, appendMS int64) bool
}

// Append is a record that the owner wants appended. Its completion is passed to
// Completed with the token. Exactly one of Ride and Location is set.
type Append struct {
	Token     uint64
	Partition int32
	// Key is the ride's name or the vehicle; empty for takeovers and
	// restatements.
	Key string
	// Ride goes to `rides`, Location to `locations`.
	Ride     *starlingv1.RideRecord
	Location *wire.Location
}

// Owner is the state of an owner of one partition. It is not safe for concurrent
// use.
type Owner struct {
	cfg   Config
	epoch int64
	state life.State
	// startRequests is state.RequestsBelow at the start: what records of an older
	// epoch that are read later state of it is of other offsets.
	startRequests int64
	// nonce is that of the last takeover that this owner appended, and leading is
	// true once it was read back and as long as no later one was.
	nonce   uint64
	leading bool

	// What follows is of the present generation and dies with it.
	counter  int64
	attempts map[string]*attempt // by ride
	asked    map[string]string   // vehicle to the ride that asks for it, or is being bound to it
	inFlight map[string]bool     // rides with an event that was not read back
	changing map[string]bool     // zones with a change of their queue that was not read back
	requests []request           // whose effect was not read back, by offset
	next     int64               // the offset in `ride-requests` behind the last that was read
	releases map[string]release  // by vehicle
	near     map[string]int64    // ride to the device time since when its vehicle is near the pickup, in milliseconds
	restated []restatement       // by partition of `locations`

	// What follows is what the trackers published.
	partitions []partition
	vehicles   map[string]seen
	bound      map[string]string // vehicle to the ride that it is bound to

	nowMS int64
	// listenedMS is when it last looked for vehicles that are silent.
	listenedMS int64
	tokens     uint64
	waiting    map[uint64]appended
	out        []Append
	events     []*starlingv1.RideEvent
	// wanting is true when a ride has begun to want a vehicle since Wanting was
	// called.
	wanting bool
}

// attempt is a proposal that was appended and not decided.
type attempt struct {
	vehicleID  string
	id         wire.Attempt
	partition  int32
	offset     int64 // -1 until it is known
	decideByMS int64
	// lost is true when the append certainly left nothing in the log.
	lost bool
}

type request struct {
	offset, appendMS int64
	record           *starlingv1.RideRequestRecord
	// acted is true once the event that it leads to was appended.
	acted bool
}

// release is the last release of a vehicle, not to be repeated before its effect
// could be seen.
type release struct {
	attempt wire.Attempt
	offset  int64 // -1 while it is in flight
}

// restatement is how far this generation's restatement to a partition of
// `locations` has come. The zero value has not begun.
type restatement struct {
	begun bool
	// missing is how many of its parts are not in the log.
	missing int
	// offset is that of the last part that came to the log.
	offset int64
}

// partition is how far a partition of `tracks` was read.
type partition struct {
	source, streamMS int64
	// sinceMS is the stream time of the first record that was read.
	sinceMS int64
	read    bool
	// asking are the rides with an attempt there, oldest first.
	asking []string
}

// seen is a vehicle as its tracker saw it last.
type seen struct {
	epoch, source int64
	reservation   *wire.Reservation
	seenMS        int64
	availability  starlingv1.Availability
}

// appended is what is done when an append completes.
type appended struct {
	ride     string // an event of it
	zone     string // a change of its queue
	proposal string // of the ride
	released string // the vehicle
	takeover uint64 // its nonce
	// reasserts is a part of a restatement, nil if it is none. What fails is
	// appended again as it was: parts of one generation must agree.
	reasserts *Append
}

// New returns an owner of a partition whose records were folded into state so
// far, in a log of the given epoch. If state is of an older epoch, its
// RequestsBelow must have been lowered to where `ride-requests` ended when the
// epoch was raised: behind it the offsets of a log that was shortened repeat.
func New(cfg Config, epoch int64, state life.State) *Owner {
	o := &Owner{
		cfg: cfg, epoch: epoch, state: state, startRequests: state.RequestsBelow,
		partitions: make([]partition, cfg.Partitions), vehicles: make(map[string]seen), waiting: make(map[uint64]appended),
	}
	o.reset()
	return o
}

// reset drops what belonged to a generation.
func (o *Owner) reset() {
	o.counter, o.requests, o.next = 0, nil, o.state.RequestsBelow
	o.attempts, o.asked = make(map[string]*attempt), make(map[string]string)
	o.inFlight, o.changing = make(map[string]bool), make(map[string]bool)
	o.releases, o.near = make(map[string]release), make(map[string]int64)
	for i := range o.partitions {
		o.partitions[i].asking = nil
	}
	// A takeover of its own may be under way: its failure counts.
	maps.DeleteFunc(o.waiting, func(_ uint64, a appended) bool { return a.takeover == 0 })
	o.restated = make([]restatement, o.cfg.Partitions)
	o.bound = make(map[string]string)
	o.state.Each(func(r *life.Ride) {
		if r.Bound != nil {
			o.bound[r.Bound.VehicleID] = r.Name
		}
	})
}

// State is the fold of what was read back. It must not be changed.
func (o *Owner) State() *life.State { return &o.state }

// Leading returns whether the owner may act: its takeover is the last.
func (o *Owner) Leading() bool { return o.leading }

// NextRequest is the offset in `ride-requests` at which it reads on. It goes
// back when the owner takes over.
func (o *Owner) NextRequest() int64 { return o.next }

// Take returns what is to be appended, in order, and what has happened and was
// read back, and forgets both.
func (o *Owner) Take() ([]Append, []*starlingv1.RideEvent) {
	out, events := o.out, o.events
	o.out, o.events = nil, nil
	return out, events
}

// TakeOver begins a new generation. The nonce is drawn at random by the caller.
// It is called once at the start, and again whenever MustTakeOver returns true.
func (o *Owner) TakeOver(nonce uint64, address string) {
	o.nonce, o.leading = nonce, false
	below := o.state.RequestsBelow
	if o.state.Owner.Epoch < o.epoch {
		below = o.startRequests
	}
	o.append(Append{Partition: o.cfg.Partition, Ride: &starlingv1.RideRecord{
		Epoch: o.epoch, RequestsBelow: below,
		Record: &starlingv1.RideRecord_Takeover{Takeover: &starlingv1.RideTakeover{Nonce: nonce, Address: address}},
	}}, appended{takeover: nonce})
}

// MustTakeOver returns whether the owner has to take over (again): somebody else
// has, or the outcome of an append is unknown and a late copy of it must not
// count.
func (o *Owner) MustTakeOver() bool { return o.nonce == 0 }

// ReadRide takes the next record of the partition of `rides`.
func (o *Owner) ReadRide(offset int64, r *starlingv1.RideRecord) life.Verdict {
	verdict := o.state.Apply(offset, r)
	switch verdict {
	case life.TookOver:
		led := o.leading
		o.leading = o.nonce != 0 && r.GetTakeover().GetNonce() == o.nonce && r.GetEpoch() == o.epoch
		o.reset()
		switch {
		case o.leading:
			o.lead()
		case led && o.state.Owner.Epoch <= o.epoch:
			// One that has not read its own takeover yet has it before it, or learns
			// that it has failed: to take over again now would never end.
			o.nonce = 0
		}
	case life.Happened:
		o.happened(r.GetEvent())
	case life.QueueChanged:
		delete(o.changing, r.GetZoneChange().GetZone())
	}
	return verdict
}

// lead begins to act: it restates what is promised and ends what is not.
func (o *Owner) lead() {
	o.wanting = true
	o.reassert()
	for _, vehicle := range slices.Sorted(maps.Keys(o.vehicles)) {
		o.examine(vehicle)
	}
}

func (o *Owner) happened(e *starlingv1.RideEvent) {
	name := e.GetRide()
	ride := o.state.Ride(name)
	delete(o.inFlight, name)
	if b := ride.Bound; b != nil {
		o.bound[b.VehicleID] = name
		if o.asked[b.VehicleID] == name {
			delete(o.asked, b.VehicleID)
		}
	} else if b := ride.Last; b != nil && o.bound[b.VehicleID] == name {
		delete(o.bound, b.VehicleID)
		delete(o.near, name)
	}
	o.events = append(o.events, e)
	o.requests = slices.DeleteFunc(o.requests, func(r request) bool { return r.acted && r.record.GetRide() == name })
	if !o.leading {
		return
	}
	if ride.Bound != nil {
		o.examine(ride.Bound.VehicleID)
	} else if ride.Last != nil {
		o.examine(ride.Last.VehicleID)
	}
	if o.attempts[name] != nil {
		o.decide(name)
	}
	o.wanting = o.wanting || ride.Phase == life.Searching
	o.serve()
}

// Completed takes the outcome of an append: its offset, or what is known of its
// failure. certain is true when the record is certainly not in the log.
func (o *Owner) Completed(token uint64, offset int64, failed, certain bool) {
	a, ok := o.waiting[token]
	if !ok {
		return // of a generation that is over
	}
	delete(o.waiting, token)
	switch {
	case a.takeover != 0:
		if failed && a.takeover == o.nonce {
			o.nonce, o.leading = 0, false
		}
	case a.ride != "", a.zone != "":
		// A late copy must not count. If a takeover is on its way, it ends that.
		if failed && o.leading {
			o.nonce, o.leading = 0, false
		}
	case a.proposal != "":
		if at := o.attempts[a.proposal]; at != nil && !failed {
			at.offset = offset
			o.decide(a.proposal)
		} else if at != nil && certain {
			at.lost = true
			o.decide(a.proposal)
		}
	case a.released != "":
		if r, ok := o.releases[a.released]; ok && failed {
			delete(o.releases, a.released)
		} else if ok {
			r.offset = offset
			o.releases[a.released] = r
		}
	case a.reasserts != nil && failed:
		o.append(*a.reasserts, a)
	case a.reasserts != nil:
		o.partRestated(a.reasserts.Partition, offset)
	}
}

// partRestated notes that a part of a restatement is in the log. Behind the last
// one a bound vehicle that is not held is gone.
func (o *Owner) partRestated(n int32, offset int64) {
	at := &o.restated[n]
	at.missing--
	at.offset = max(at.offset, offset)
	if at.missing > 0 {
		return
	}
	for _, vehicle := range slices.Sorted(maps.Keys(o.bound)) {
		if o.cfg.PartitionOf(vehicle) == n {
			o.examine(vehicle)
		}
	}
}

func (o *Owner) append(a Append, then appended) {
	o.tokens++
	a.Token = o.tokens
	o.waiting[a.Token] = then
	o.out = append(o.out, a)
}

// event appends what happens to a ride; the ride waits until it is read back.
func (o *Owner) event(e *starlingv1.RideEvent) {
	ride := o.state.Ride(e.GetRide())
	e.Sequence = 1
	if ride != nil {
		e.Sequence = ride.Sequence + 1
	}
	e.TimeMs = o.nowMS
	o.inFlight[e.GetRide()] = true
	o.append(Append{Partition: o.cfg.Partition, Key: e.GetRide(), Ride: &starlingv1.RideRecord{
		Epoch: o.epoch, Generation: o.state.Owner.Generation, RequestsBelow: o.RequestsBelow(),
		Record: &starlingv1.RideRecord_Event{Event: e},
	}}, appended{ride: e.GetRide()})
}

// RequestsBelow is the offset in `ride-requests` below which every request has
// had its effect, read back.
func (o *Owner) RequestsBelow() int64 {
	if len(o.requests) > 0 {
		return o.requests[0].offset
	}
	return o.next
}

// free returns whether the owner may decide about a ride now.
func (o *Owner) free(name string) bool { return o.leading && !o.inFlight[name] }

// BoundVehicles are the vehicles that rides of the partition are bound to, in no
// set order.
func (o *Owner) BoundVehicles() []string { return slices.Collect(maps.Keys(o.bound)) }
