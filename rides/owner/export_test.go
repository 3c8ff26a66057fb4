package owner

import (
	"maps"
	"slices"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Kind is which sort of number an Encoder is given. Of numbers of a kind other
// than Plain the owner reads only how they compare, so an encoder may write
// their ranks instead.
type Kind uint8

// Kinds of numbers.
const (
	Plain Kind = iota
	LocationOffset
	RidesOffset
	Counter
	Token
	Nonce
)

// Encoder takes what a state consists of.
type Encoder interface {
	Int(kind Kind, v int64)
	Text(s string)
}

// Clone returns an independent copy of an owner whose output was taken.
func (o *Owner) Clone() *Owner {
	if len(o.out) > 0 || len(o.events) > 0 {
		panic("the output must be taken first")
	}
	c := *o
	c.state = o.state.Clone()
	c.attempts = make(map[string]*attempt, len(o.attempts))
	for name, a := range o.attempts {
		copied := *a
		c.attempts[name] = &copied
	}
	c.asked, c.inFlight, c.changing, c.releases = maps.Clone(o.asked), maps.Clone(o.inFlight), maps.Clone(o.changing), maps.Clone(o.releases)
	c.vehicles, c.bound, c.waiting = maps.Clone(o.vehicles), maps.Clone(o.bound), maps.Clone(o.waiting)
	c.requests, c.restated, c.partitions = slices.Clone(o.requests), slices.Clone(o.restated), slices.Clone(o.partitions)
	for i := range c.partitions {
		c.partitions[i].asking = slices.Clone(c.partitions[i].asking)
	}
	return &c
}

// NowMS returns the time that the owner was given last.
func (o *Owner) NowMS() int64 { return o.nowMS }

// Pending returns how many requests were read whose effect was not read back.
func (o *Owner) Pending() int { return len(o.requests) }

// Encode writes everything that the owner decides by, the same for equal states.
func (o *Owner) Encode(e Encoder) {
	e.Int(Plain, o.epoch)
	if o.state.Owner.Epoch < o.epoch {
		e.Int(Plain, o.startRequests)
	}
	EncodeState(e, &o.state)
	e.Int(Nonce, int64(o.nonce))
	flag(e, o.leading)
	e.Int(Counter, o.counter)
	e.Int(Plain, o.nowMS)
	e.Int(Plain, o.next)
	sorted(e, o.attempts, func(a *attempt) {
		e.Text(a.vehicleID)
		EncodeAttempt(e, a.id)
		e.Int(LocationOffset, a.offset)
		e.Int(Plain, a.decideByMS)
		flag(e, a.lost)
	})
	sorted(e, o.inFlight, func(bool) {})
	e.Int(Plain, int64(len(o.requests)))
	for _, r := range o.requests {
		e.Int(Plain, r.offset)
		flag(e, r.acted)
	}
	sorted(e, o.releases, func(r release) {
		EncodeAttempt(e, r.attempt)
		e.Int(LocationOffset, r.offset)
	})
	for _, at := range o.restated {
		flag(e, at.begun)
		e.Int(Plain, int64(at.missing))
		e.Int(LocationOffset, at.offset)
	}
	for _, p := range o.partitions {
		flag(e, p.read)
		e.Int(LocationOffset, p.source)
		e.Int(Plain, p.streamMS)
		e.Int(Plain, p.sinceMS)
		for _, name := range p.asking {
			e.Text(name)
		}
	}
	sorted(e, o.vehicles, func(v seen) {
		e.Int(LocationOffset, v.source)
		e.Int(Plain, v.seenMS)
		e.Int(Plain, int64(v.availability))
		EncodeReservation(e, v.reservation)
	})
	sorted(e, o.bound, e.Text)
	o.encodeWaiting(e)
}

func (o *Owner) encodeWaiting(e Encoder) {
	for _, token := range slices.Sorted(maps.Keys(o.waiting)) {
		a := o.waiting[token]
		e.Int(Token, int64(token))
		e.Text(a.ride)
		e.Text(a.proposal)
		e.Text(a.released)
		e.Int(Nonce, int64(a.takeover))
		flag(e, a.reasserts != nil)
	}
}

// EncodeState writes a fold.
func EncodeState(e Encoder, s *life.State) {
	e.Int(Plain, s.Owner.Epoch)
	e.Int(RidesOffset, s.Owner.Generation)
	e.Int(Nonce, int64(s.Owner.Nonce))
	e.Int(Plain, s.RequestsBelow)
	for _, r := range s.Sorted() {
		e.Text(r.Name)
		e.Int(Plain, r.Sequence)
		e.Int(Plain, int64(r.Phase))
		e.Int(Plain, r.ExpiresMS)
		e.Int(Plain, int64(len(r.Declined)))
		for _, v := range r.Declined {
			e.Text(v)
		}
		encodeBinding(e, r.Bound)
		encodeBinding(e, r.Last)
	}
}

func encodeBinding(e Encoder, b *life.Binding) {
	flag(e, b != nil)
	if b != nil {
		e.Text(b.VehicleID)
		EncodeAttempt(e, b.Attempt)
		EncodeFence(e, b.Fence)
	}
}

// EncodeReservation writes a reservation, or that there is none.
func EncodeReservation(e Encoder, r *wire.Reservation) {
	flag(e, r != nil)
	if r != nil {
		e.Text(r.Ride)
		EncodeAttempt(e, r.Attempt)
		EncodeFence(e, r.Fence)
	}
}

// EncodeAttempt writes an attempt.
func EncodeAttempt(e Encoder, a wire.Attempt) {
	e.Int(Plain, a.Epoch)
	e.Int(RidesOffset, a.Generation)
	e.Int(Counter, a.Counter)
}

// EncodeFence writes a fence.
func EncodeFence(e Encoder, f wire.Fence) {
	e.Int(Plain, f.Epoch)
	e.Int(LocationOffset, f.Offset)
}

func flag(e Encoder, set bool) {
	v := int64(0)
	if set {
		v = 1
	}
	e.Int(Plain, v)
}

func sorted[V any](e Encoder, m map[string]V, encode func(V)) {
	e.Int(Plain, int64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.Text(k)
		encode(m[k])
	}
}
