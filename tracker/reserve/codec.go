package reserve

import (
	"encoding/binary"
	"errors"

	"github.com/starling-fleet/starling/schemas/wire"
)

// Append appends the encoding of v, which is the same for equal states.
func (v *Vehicle) Append(b []byte) []byte {
	held := int64(0)
	if v.held != nil {
		held = 1
		if v.onBoard {
			held = 2
		}
	}
	b = ints(b, held)
	if v.held != nil {
		b = appendReservation(b, v.held)
	}
	b = ints(b, int64(len(v.decided)))
	for _, d := range v.decided {
		b = appendAttempt(text(b, d.ride), d.attempt)
		b = ints(b, d.untilMS)
	}
	return b
}

// DecodeVehicle decodes what Append has written.
func DecodeVehicle(b []byte) (v Vehicle, err error) {
	r := reader{rest: b}
	switch held := r.int(); held {
	case 0:
	case 1, 2:
		reservation := r.reservation()
		v.held, v.onBoard = &reservation, held == 2
	default:
		r.fail("the mark of a reservation is unknown")
	}
	for range r.count() {
		v.decided = append(v.decided, decided{r.text(), r.attempt(), r.int()})
	}
	return v, r.end()
}

// Append appends the encoding of a, which is the same for equal states.
func (a *Assertions) Append(b []byte) []byte {
	b = ints(b, int64(len(a.complete)))
	for _, p := range a.complete {
		b = ints(b, int64(p))
	}
	b = ints(b, int64(len(a.pending)))
	for _, p := range a.pending {
		b = ints(b, int64(p.ridesPartition), p.generation, int64(p.parts), int64(len(p.got)))
		for _, g := range p.got {
			b = ints(b, int64(g.number), int64(len(g.promises)))
			for i := range g.promises {
				onBoard := int64(0)
				if g.promises[i].OnBoard {
					onBoard = 1
				}
				b = ints(text(b, g.promises[i].VehicleID), onBoard)
				b = appendReservation(b, &g.promises[i].Reservation)
			}
		}
	}
	return b
}

// DecodeAssertions decodes what Append has written.
func DecodeAssertions(b []byte) (a Assertions, err error) {
	r := reader{rest: b}
	for range r.count() {
		a.complete = append(a.complete, r.int32())
	}
	for range r.count() {
		p := pending{ridesPartition: r.int32(), generation: r.int(), parts: r.int32()}
		for range r.count() {
			g := part{number: r.int32()}
			for range r.count() {
				promise := wire.Promise{VehicleID: r.text(), OnBoard: r.int() == 1}
				promise.Reservation = r.reservation()
				g.promises = append(g.promises, promise)
			}
			p.got = append(p.got, g)
		}
		a.pending = append(a.pending, p)
	}
	return a, r.end()
}

func ints(b []byte, values ...int64) []byte {
	for _, v := range values {
		b = binary.AppendVarint(b, v)
	}
	return b
}

func text(b []byte, s string) []byte { return append(ints(b, int64(len(s))), s...) }

func appendAttempt(b []byte, a wire.Attempt) []byte { return ints(b, a.Epoch, a.Generation, a.Counter) }

func appendReservation(b []byte, r *wire.Reservation) []byte {
	return ints(appendAttempt(text(b, r.Ride), r.Attempt), r.Fence.Epoch, r.Fence.Offset)
}

// reader decodes; after a fault it returns zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err = errors.New("state of reservations: " + reason)
	}
	r.rest = nil
}

func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.fail("bytes are left over")
	}
	return r.err
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail("it ends too early")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) int32() int32 {
	v := r.int()
	if v != int64(int32(v)) {
		r.fail("a number is too large")
	}
	return int32(v)
}

// count reads a number of elements, each of which takes at least a byte.
func (r *reader) count() int {
	v := r.int()
	if v < 0 || v > int64(len(r.rest)) {
		r.fail("a count is larger than what follows")
		return 0
	}
	return int(v)
}

func (r *reader) text() string {
	n := r.count()
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) attempt() wire.Attempt {
	return wire.Attempt{Epoch: r.int(), Generation: r.int(), Counter: r.int()}
}

func (r *reader) reservation() wire.Reservation {
	return wire.Reservation{Ride: r.text(), Attempt: r.attempt(), Fence: wire.Fence{Epoch: r.int(), Offset: r.int()}}
}
