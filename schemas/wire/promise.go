package wire

import (
	"slices"

	"github.com/starling-fleet/starling/schemas/protoappend"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Attempt is starlingv1.Attempt.
type Attempt struct {
	Epoch, Generation, Counter int64
}

// Fence is starlingv1.Fence.
type Fence struct {
	Epoch, Offset int64
}

// Before returns whether f is an older grant than other.
func (f Fence) Before(other Fence) bool {
	return f.Epoch < other.Epoch || f.Epoch == other.Epoch && f.Offset < other.Offset
}

// Reservation is starlingv1.Reservation.
type Reservation struct {
	Ride    string
	Attempt Attempt
	Fence   Fence
}

// Proposal is starlingv1.Proposal.
type Proposal struct {
	Ride                 string
	Attempt              Attempt
	DecideByMS, MaxAgeMS int64
}

// Release is starlingv1.Release.
type Release struct {
	Ride       string
	Attempt    Attempt
	DecideByMS int64
	Operator   bool
}

// Promise is starlingv1.Promise.
type Promise struct {
	VehicleID   string
	Reservation Reservation
	OnBoard     bool
}

// Reasserted is starlingv1.Reasserted.
type Reasserted struct {
	Epoch          int64
	RidesPartition int32
	Generation     int64
	Part, Parts    int32
	Promises       []Promise
}

func (a Attempt) appendField(b []byte, field protoappend.Number) []byte {
	if a == (Attempt{}) {
		return b
	}
	b, start := protoappend.Open(b, field)
	b = protoappend.Varint(b, 1, uint64(a.Epoch))
	b = protoappend.Varint(b, 2, uint64(a.Generation))
	b = protoappend.Varint(b, 3, uint64(a.Counter))
	return protoappend.Close(b, start)
}

func (a *Attempt) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			a.Epoch = int64(s.num)
		case 2<<3 | typeVarint:
			a.Generation = int64(s.num)
		case 3<<3 | typeVarint:
			a.Counter = int64(s.num)
		}
	}
	return s.err
}

func (f Fence) appendField(b []byte, field protoappend.Number) []byte {
	if f == (Fence{}) {
		return b
	}
	b, start := protoappend.Open(b, field)
	b = protoappend.Varint(b, 1, uint64(f.Epoch))
	b = protoappend.Varint(b, 2, uint64(f.Offset))
	return protoappend.Close(b, start)
}

func (f *Fence) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			f.Epoch = int64(s.num)
		case 2<<3 | typeVarint:
			f.Offset = int64(s.num)
		}
	}
	return s.err
}

func (r *Reservation) appendField(b []byte, field protoappend.Number) []byte {
	if r == nil {
		return b
	}
	b, start := protoappend.Open(b, field)
	b = protoappend.String(b, 1, r.Ride)
	b = r.Attempt.appendField(b, 2)
	b = r.Fence.appendField(b, 3)
	return protoappend.Close(b, start)
}

func (r *Reservation) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&r.Ride, r.Ride)
		case 2<<3 | typeBytes:
			s.invalid(r.Attempt.merge(s.data))
		case 3<<3 | typeBytes:
			s.invalid(r.Fence.merge(s.data))
		}
	}
	return s.err
}

func (p *Proposal) append(b []byte) []byte {
	b = protoappend.String(b, 1, p.Ride)
	b = p.Attempt.appendField(b, 2)
	b = protoappend.Varint(b, 3, uint64(p.DecideByMS))
	return protoappend.Varint(b, 4, uint64(p.MaxAgeMS))
}

func (p *Proposal) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&p.Ride, p.Ride)
		case 2<<3 | typeBytes:
			s.invalid(p.Attempt.merge(s.data))
		case 3<<3 | typeVarint:
			p.DecideByMS = int64(s.num)
		case 4<<3 | typeVarint:
			p.MaxAgeMS = int64(s.num)
		}
	}
	return s.err
}

func (r *Release) append(b []byte) []byte {
	b = protoappend.String(b, 1, r.Ride)
	b = r.Attempt.appendField(b, 2)
	b = protoappend.Varint(b, 3, uint64(r.DecideByMS))
	if r.Operator {
		b = protoappend.OptionalBool(b, 4, true)
	}
	return b
}

func (r *Release) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&r.Ride, r.Ride)
		case 2<<3 | typeBytes:
			s.invalid(r.Attempt.merge(s.data))
		case 3<<3 | typeVarint:
			r.DecideByMS = int64(s.num)
		case 4<<3 | typeVarint:
			r.Operator = s.num != 0
		}
	}
	return s.err
}

func (p *Promise) append(b []byte) []byte {
	b = protoappend.String(b, 1, p.VehicleID)
	if p.Reservation != (Reservation{}) {
		b = p.Reservation.appendField(b, 2)
	}
	if p.OnBoard {
		b = protoappend.OptionalBool(b, 3, true)
	}
	return b
}

func (p *Promise) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&p.VehicleID, p.VehicleID)
		case 2<<3 | typeBytes:
			s.invalid(p.Reservation.merge(s.data))
		case 3<<3 | typeVarint:
			p.OnBoard = s.num != 0
		}
	}
	return s.err
}

// PromiseSize returns how many bytes p takes in an encoded Reasserted.
func PromiseSize(p *Promise) int {
	return len(p.append(nil)) + 4
}

func (r *Reasserted) append(b []byte) []byte {
	b = protoappend.Varint(b, 1, uint64(r.Epoch))
	b = protoappend.Varint(b, 2, uint64(int64(r.RidesPartition)))
	b = protoappend.Varint(b, 3, uint64(r.Generation))
	b = protoappend.Varint(b, 4, uint64(int64(r.Part)))
	b = protoappend.Varint(b, 5, uint64(int64(r.Parts)))
	for i := range r.Promises {
		var start int
		b, start = protoappend.Open(b, 6)
		b = protoappend.Close(r.Promises[i].append(b), start)
	}
	return b
}

func (r *Reasserted) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			r.Epoch = int64(s.num)
		case 2<<3 | typeVarint:
			r.RidesPartition = int32(s.num)
		case 3<<3 | typeVarint:
			r.Generation = int64(s.num)
		case 4<<3 | typeVarint:
			r.Part = int32(s.num)
		case 5<<3 | typeVarint:
			r.Parts = int32(s.num)
		case 6<<3 | typeBytes:
			var p Promise
			s.invalid(p.merge(s.data))
			r.Promises = append(r.Promises, p)
		}
	}
	return s.err
}

// AttemptFromProto converts an attempt.
func AttemptFromProto(m *starlingv1.Attempt) Attempt {
	return Attempt{Epoch: m.GetEpoch(), Generation: m.GetGeneration(), Counter: m.GetCounter()}
}

// ToProto converts an attempt; the zero attempt becomes nil, as it is encoded.
func (a Attempt) ToProto() *starlingv1.Attempt {
	if a == (Attempt{}) {
		return nil
	}
	return &starlingv1.Attempt{Epoch: a.Epoch, Generation: a.Generation, Counter: a.Counter}
}

// FenceFromProto converts a fence.
func FenceFromProto(m *starlingv1.Fence) Fence {
	return Fence{Epoch: m.GetEpoch(), Offset: m.GetOffset()}
}

// ToProto converts a fence; the zero fence becomes nil, as it is encoded.
func (f Fence) ToProto() *starlingv1.Fence {
	if f == (Fence{}) {
		return nil
	}
	return &starlingv1.Fence{Epoch: f.Epoch, Offset: f.Offset}
}

// ReservationFromProto converts a reservation; nil stays nil.
func ReservationFromProto(m *starlingv1.Reservation) *Reservation {
	if m == nil {
		return nil
	}
	return &Reservation{Ride: m.Ride, Attempt: AttemptFromProto(m.Attempt), Fence: FenceFromProto(m.Fence)}
}

// ToProto converts a reservation; nil stays nil.
func (r *Reservation) ToProto() *starlingv1.Reservation {
	if r == nil {
		return nil
	}
	return &starlingv1.Reservation{Ride: r.Ride, Attempt: r.Attempt.ToProto(), Fence: r.Fence.ToProto()}
}

// ProposalFromProto converts a proposal.
func ProposalFromProto(m *starlingv1.Proposal) Proposal {
	return Proposal{Ride: m.GetRide(), Attempt: AttemptFromProto(m.GetAttempt()), DecideByMS: m.GetDecideByMs(), MaxAgeMS: m.GetMaxAgeMs()}
}

// ToProto converts a proposal.
func (p *Proposal) ToProto() *starlingv1.Proposal {
	return &starlingv1.Proposal{Ride: p.Ride, Attempt: p.Attempt.ToProto(), DecideByMs: p.DecideByMS, MaxAgeMs: p.MaxAgeMS}
}

// ReleaseFromProto converts a release.
func ReleaseFromProto(m *starlingv1.Release) Release {
	return Release{Ride: m.GetRide(), Attempt: AttemptFromProto(m.GetAttempt()), DecideByMS: m.GetDecideByMs(), Operator: m.GetOperator()}
}

// ToProto converts a release.
func (r *Release) ToProto() *starlingv1.Release {
	return &starlingv1.Release{Ride: r.Ride, Attempt: r.Attempt.ToProto(), DecideByMs: r.DecideByMS, Operator: r.Operator}
}

// ReassertedFromProto converts what an owner of rides restates.
func ReassertedFromProto(m *starlingv1.Reasserted) Reasserted {
	r := Reasserted{
		Epoch: m.GetEpoch(), RidesPartition: m.GetRidesPartition(), Generation: m.GetGeneration(),
		Part: m.GetPart(), Parts: m.GetParts(),
	}
	for _, p := range m.GetPromises() {
		promise := Promise{VehicleID: p.GetVehicleId(), OnBoard: p.GetOnBoard()}
		if reservation := ReservationFromProto(p.GetReservation()); reservation != nil {
			promise.Reservation = *reservation
		}
		r.Promises = append(r.Promises, promise)
	}
	return r
}

// ToProto converts what an owner of rides restates.
func (r *Reasserted) ToProto() *starlingv1.Reasserted {
	m := &starlingv1.Reasserted{
		Epoch: r.Epoch, RidesPartition: r.RidesPartition, Generation: r.Generation, Part: r.Part, Parts: r.Parts,
	}
	for _, p := range slices.Clone(r.Promises) {
		promise := &starlingv1.Promise{VehicleId: p.VehicleID, OnBoard: p.OnBoard}
		if p.Reservation != (Reservation{}) {
			promise.Reservation = p.Reservation.ToProto()
		}
		m.Promises = append(m.Promises, promise)
	}
	return m
}
