package owner_test

import (
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// template is an encoding with gaps for the numbers of which only the order
// counts: two states whose numbers have the same ranks behave alike.
type template struct {
	bytes  []byte
	ranked []ranked
}

type ranked struct {
	kind owner.Kind
	v    int64
}

// Int implements owner.Encoder. An offset below zero and a nonce of zero stand
// for none.
func (t *template) Int(kind owner.Kind, v int64) {
	if kind == owner.Plain {
		t.bytes = binary.AppendVarint(t.bytes, v)
		return
	}
	none := v < 0 || v == 0 && kind == owner.Nonce
	t.bool(none)
	if !none {
		t.ranked = append(t.ranked, ranked{kind, v})
	}
}

// Text implements owner.Encoder.
func (t *template) Text(s string) {
	t.bytes = append(binary.AppendVarint(t.bytes, int64(len(s))), s...)
}

func (t *template) plain(values ...int) {
	for _, v := range values {
		t.bytes = binary.AppendVarint(t.bytes, int64(v))
	}
}

func (t *template) bool(set bool) {
	v := 0
	if set {
		v = 1
	}
	t.plain(v)
}

func (t *template) add(other *template) {
	t.bytes = append(t.bytes, other.bytes...)
	t.ranked = append(t.ranked, other.ranked...)
	t.plain(len(other.ranked))
}

// ofProcess and those behind it are the kinds of the processes' tokens.
const ofProcess = owner.Nonce + 1

// addOf adds what belongs to one process: its tokens compare with its own only.
func (t *template) addOf(process int, other *template) {
	from := len(t.ranked)
	t.add(other)
	for i := from; i < len(t.ranked); i++ {
		if t.ranked[i].kind == owner.Token {
			t.ranked[i].kind = ofProcess + owner.Kind(process)
		}
	}
}

func (t *template) rideRecord(r *starlingv1.RideRecord) {
	t.plain(int(r.GetEpoch()), int(r.GetRequestsBelow()))
	t.Int(owner.RidesOffset, r.GetGeneration())
	if takeover := r.GetTakeover(); takeover != nil {
		t.Int(owner.Nonce, int64(takeover.GetNonce()))
		return
	}
	e := r.GetEvent()
	t.Text(e.GetRide())
	t.plain(int(e.GetSequence()), int(e.GetKind()), int(e.GetExpiresMs()))
	t.Text(e.GetVehicleId())
	owner.EncodeAttempt(t, wire.AttemptFromProto(e.GetAttempt()))
	owner.EncodeFence(t, wire.FenceFromProto(e.GetFence()))
}

func (t *template) location(l *wire.Location) {
	t.plain(int(l.Kind))
	switch l.Kind {
	case wire.KindProposal:
		t.Text(l.Proposal.Ride)
		owner.EncodeAttempt(t, l.Proposal.Attempt)
		t.plain(int(l.Proposal.DecideByMS))
	case wire.KindRelease:
		t.Text(l.Release.Ride)
		owner.EncodeAttempt(t, l.Release.Attempt)
		t.plain(int(l.Release.DecideByMS))
		t.bool(l.Release.Operator)
	case wire.KindReasserted:
		r := &l.Reasserted
		t.plain(int(r.Epoch), int(r.RidesPartition), int(r.Part), int(r.Parts))
		t.Int(owner.RidesOffset, r.Generation)
		for i := range r.Promises {
			t.promise(&r.Promises[i])
		}
	}
}

func (t *template) promise(p *wire.Promise) {
	t.Text(p.VehicleID)
	t.bool(p.OnBoard)
	owner.EncodeReservation(t, &p.Reservation)
}

func (t *template) view(v *wire.View) {
	t.Text(v.VehicleID)
	t.plain(int(v.SeenTimeMS), int(v.Availability))
	owner.EncodeReservation(t, v.Reservation)
}

func (t *template) track(track *wire.Track) {
	t.plain(int(track.Epoch), int(track.ClockMS), len(track.Fired))
	t.Int(owner.LocationOffset, track.SourceOffset)
	t.bool(track.HasLive)
	if track.HasLive {
		t.view(&track.Live)
	}
	for i := range track.Fired {
		t.view(&track.Fired[i].Live)
	}
}

// codec reads what tracker/reserve writes as its state, so that its offsets can
// be ranked like all others.
type codec struct{ rest []byte }

func (c *codec) int() int64 {
	v, n := binary.Varint(c.rest)
	if n <= 0 {
		panic("the state of reservations ends too early")
	}
	c.rest = c.rest[n:]
	return v
}

func (c *codec) text() string {
	n := c.int()
	s := string(c.rest[:n])
	c.rest = c.rest[n:]
	return s
}

func (c *codec) attempt(t *template) {
	t.Text(c.text())
	owner.EncodeAttempt(t, wire.Attempt{Epoch: c.int(), Generation: c.int(), Counter: c.int()})
}

func (c *codec) reservation(t *template) {
	c.attempt(t)
	owner.EncodeFence(t, wire.Fence{Epoch: c.int(), Offset: c.int()})
}

func (t *template) reserveVehicle(state []byte) {
	c := codec{state}
	held := c.int()
	t.plain(int(held))
	if held != 0 {
		c.reservation(t)
	}
	n := c.int()
	t.plain(int(n))
	for range n {
		c.attempt(t)
		t.plain(int(c.int()))
	}
}

func (t *template) assertions(state []byte) {
	c := codec{state}
	complete := c.int()
	t.plain(int(complete))
	for range complete {
		t.plain(int(c.int()))
	}
	for range c.int() {
		t.plain(int(c.int()))
		t.Int(owner.RidesOffset, c.int())
		t.plain(int(c.int()))
		for range c.int() {
			t.plain(int(c.int()))
			for range c.int() {
				t.Text(c.text())
				t.plain(int(c.int()))
				c.reservation(t)
			}
		}
	}
}

// key is a hash of a state, long enough that no two of all that are reached
// share one.
type key [2]uint64

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// key writes ranks for numbers and hashes the whole.
func (t *template) key(scratch []int64) (key, []int64) {
	for kind := owner.Plain + 1; kind < ofProcess+8; kind++ {
		scratch = scratch[:0]
		for i := range t.ranked {
			if t.ranked[i].kind == kind {
				scratch = append(scratch, t.ranked[i].v)
			}
		}
		if len(scratch) == 0 {
			continue
		}
		slices.Sort(scratch)
		values := slices.Compact(scratch)
		for i := range t.ranked {
			if t.ranked[i].kind == kind {
				rank, _ := slices.BinarySearch(values, t.ranked[i].v)
				t.plain(rank)
			}
		}
	}
	return key{maphash.Bytes(seeds[0], t.bytes), maphash.Bytes(seeds[1], t.bytes)}, scratch
}
