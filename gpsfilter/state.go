package gpsfilter

import (
	"encoding/binary"
	"fmt"
	"math"
)

// State is what the filter knows of one vehicle. It is a plain value without
// pointers: an assignment copies it, and the copy is independent. The zero
// value knows nothing. One goroutine at a time may use a State.
type State struct {
	common
	tracks [modelCount]packed
}

// packed is a model in a state at rest.
type packed struct {
	e, n                       float64
	ve, vn, pp, pv, vv, weight float32
}

// working is a state in a step. What a state has at rest as well is changed in
// place: it is large, and a copy each way would cost more than some of the step.
type working struct {
	*common
	// tracks and weight are the models and how much each is believed.
	tracks [modelCount]track
	weight [modelCount]float64
}

func (s *State) unpack(w *working) {
	w.common = &s.common
	for j := range s.tracks {
		p := &s.tracks[j]
		w.tracks[j] = track{p.e, p.n, float64(p.ve), float64(p.vn), float64(p.pp), float64(p.pv), float64(p.vv)}
		w.weight[j] = float64(p.weight)
	}
}

// round puts into s what it keeps of the models, but for their positions, and
// leaves w with the same, so that what is stated in a step can be stated again
// from the state at rest.
func (s *State) round(w *working) {
	for j := range w.tracks {
		t, p := &w.tracks[j], &s.tracks[j]
		p.ve, p.vn, p.pp = float32(t.ve), float32(t.vn), float32(t.pp)
		p.pv, p.vv, p.weight = float32(t.pv), float32(t.vv), float32(w.weight[j])
		t.ve, t.vn, t.pp = float64(p.ve), float64(p.vn), float64(p.pp)
		t.pv, t.vv, w.weight[j] = float64(p.pv), float64(p.vv), float64(p.weight)
	}
}

// place puts the models' positions into s: they may move after round, with the
// plane that they are in.
func (s *State) place(w *working) {
	for j := range w.tracks {
		s.tracks[j].e, s.tracks[j].n = w.tracks[j].e, w.tracks[j].n
	}
}

// common is what a state has at rest and in a step.
type common struct {
	// timeMS is the newest fix's time.
	timeMS int64
	// anchor is where the plane touches; all positions below are in it.
	anchor plane
	// live and display are the two positions, odometerM the display track's
	// length, leastVar the least variance that is stated.
	liveE, liveN, odometerM      float64
	displayE, displayN, leastVar float32
	// chain is the last distinct position.
	chainLatDeg, chainLonDeg float64
	// whiteVar is the white noise of positions as they follow each other,
	// stepVar that against the reported velocity; devVar is the variance about
	// a dead-reckoned mean, biasVar what of it lasts; innovVar is the
	// innovations' variance beyond the expected.
	whiteVar, stepVar, devVar, biasVar float64
	innovVar                           float32

	// accuracyM is the accuracy that the device usually reports, 0 for none.
	accuracyM float32
	// vel is the velocity last reported, velAgeS how long ago, negative for
	// never; turn is its last change, jitter its noise.
	velE, velN, velAgeS, turnE, turnN, jitter float32
	// alongLag and acrossLag are by how much it is late.
	alongLag, acrossLag lag
	// innov is the last normalised innovation.
	innovE, innovN float32
	// last is the position of the fix before and slow the dead-reckoned mean of
	// slowCount positions in a row; none if the fix before was not used.
	lastE, lastN, slowE, slowN float32
	// trustNum / trustDen is the share of the bias that is believed. snap is
	// the dead-reckoned place where fixes were expected snapAgeS ago, snapB the
	// bias of then; a negative age for none.
	trustNum, trustDen, snapE, snapN, snapBE, snapBN, snapAgeS float32
	// chainCount distinct positions in a row are plausible together, the last
	// of them chainAgeS ago. staleS is how long the position has been repeated.
	chainAgeS, staleS float32
	// gapS is the time between the last two fixes.
	gapS float32
	// outliers and credible are for the diagnosis.
	outliers, credible float32
	// All counters are bounded. seen counts the fixes that were learned from,
	// support those that agree with the track; altCount is how many fixes in a
	// row have shown another place, gridCount how many had rounded coordinates,
	// doubts how many were doubtful, coarseCount how many far coarser than usual,
	// courseless how many had a speed but no course.
	seen, slowCount, courseless                                   uint16
	support, altCount, chainCount, gridCount, doubts, coarseCount uint8
	// recent are hashes of the last distinct positions, the newest first.
	recent [hashes]uint32
}

// TimeMS returns the device time of the newest fix that was stepped, in
// milliseconds since the Unix epoch; 0 when the state knows nothing.
func (s *common) TimeMS() int64 { return s.timeMS }

// OdometerM returns the length of the display track so far, in metres.
func (s *common) OdometerM() float64 { return s.odometerM }

// known reports whether the state has a position.
func (s *common) known() bool { return s.anchor.cosLat != 0 }

// floats lists the float64 fields in the order of the encoding.
func (s *State) floats(visit func(*float64)) {
	for _, v := range [...]*float64{
		&s.anchor.latDeg, &s.anchor.lonDeg,
		&s.liveE, &s.liveN, &s.odometerM, &s.chainLatDeg, &s.chainLonDeg,
		&s.whiteVar, &s.stepVar, &s.devVar, &s.biasVar,
	} {
		visit(v)
	}
	for j := range s.tracks {
		t := &s.tracks[j]
		visit(&t.e)
		visit(&t.n)
	}
}

// singles lists the float32 fields in the order of the encoding.
func (s *State) singles(visit func(*float32)) {
	for _, v := range [...]*float32{
		&s.displayE, &s.displayN, &s.leastVar, &s.innovVar, &s.accuracyM, &s.velE, &s.velN, &s.velAgeS, &s.turnE, &s.turnN, &s.jitter,
		&s.alongLag.num, &s.alongLag.den, &s.acrossLag.num, &s.acrossLag.den,
		&s.innovE, &s.innovN, &s.lastE, &s.lastN, &s.slowE, &s.slowN,
		&s.trustNum, &s.trustDen, &s.snapE, &s.snapN, &s.snapBE, &s.snapBN, &s.snapAgeS,
		&s.chainAgeS, &s.staleS, &s.gapS, &s.outliers, &s.credible,
	} {
		visit(v)
	}
	for j := range s.tracks {
		t := &s.tracks[j]
		for _, v := range [...]*float32{&t.ve, &t.vn, &t.pp, &t.pv, &t.vv, &t.weight} {
			visit(v)
		}
	}
}

// counters lists the counters in the order of the encoding.
func (s *State) counters(long func(*uint16), short func(*uint8)) {
	for _, v := range [...]*uint16{&s.seen, &s.slowCount, &s.courseless} {
		long(v)
	}
	for _, v := range [...]*uint8{&s.support, &s.altCount, &s.chainCount, &s.gridCount, &s.doubts, &s.coarseCount} {
		short(v)
	}
}

// AppendBinary appends the state's encoding, at most 512 bytes, to dst and
// returns it. Equal states have equal encodings, and decoding restores every
// bit of the state.
func (s *State) AppendBinary(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, StateVersion)
	dst = le.AppendUint64(dst, uint64(s.timeMS))
	s.floats(func(v *float64) { dst = le.AppendUint64(dst, math.Float64bits(*v)) })
	s.singles(func(v *float32) { dst = le.AppendUint32(dst, math.Float32bits(*v)) })
	s.counters(func(v *uint16) { dst = le.AppendUint16(dst, *v) }, func(v *uint8) { dst = append(dst, *v) })
	for _, h := range s.recent {
		dst = le.AppendUint32(dst, h)
	}
	return dst
}

// UnmarshalBinary decodes what AppendBinary wrote. It refuses other versions,
// other lengths and numbers that are not finite, and then leaves the state as
// it was.
func (s *State) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != StateVersion {
		return fmt.Errorf("filter state: its version is not %d", StateVersion)
	}
	var d State
	r := decoder{rest: b[1:], finite: true}
	d.timeMS = int64(r.uint64())
	d.floats(func(v *float64) {
		*v = math.Float64frombits(r.uint64())
		r.check(*v)
	})
	d.singles(func(v *float32) {
		*v = math.Float32frombits(r.uint32())
		r.check(float64(*v))
	})
	d.counters(func(v *uint16) { *v = r.uint16() }, func(v *uint8) { *v = r.uint8() })
	for i := range d.recent {
		d.recent[i] = r.uint32()
	}
	switch {
	case r.short || len(r.rest) > 0:
		return fmt.Errorf("filter state: %d bytes, want %d", len(b), len(new(State).AppendBinary(nil)))
	case !r.finite:
		return fmt.Errorf("filter state: a number is not finite")
	}
	if d.timeMS != 0 {
		if !d.positive() {
			return fmt.Errorf("filter state: a number that is positive in every state is not")
		}
		d.anchor = newPlane(d.anchor.latDeg, d.anchor.lonDeg)
	}
	*s = d
	return nil
}

// positive reports whether what Step divides by is positive.
func (s *State) positive() bool {
	ok := s.alongLag.den > 0 && s.acrossLag.den > 0 && s.trustDen > 0 && s.whiteVar > 0 && s.stepVar > 0 && s.devVar > 0
	for j := range s.tracks {
		ok = ok && s.tracks[j].weight > 0 && s.tracks[j].pp > 0
	}
	return ok
}

// decoder reads little-endian words and notes what is wrong.
type decoder struct {
	rest          []byte
	short, finite bool
}

func (r *decoder) take(n int) []byte {
	if len(r.rest) < n {
		r.short = true
		r.rest = nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *decoder) uint64() uint64 {
	low, high := r.uint32(), r.uint32()
	return uint64(high)<<wordBits | uint64(low)
}

func (r *decoder) uint32() uint32 {
	b := r.take(wordBits / byteBits)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

func (r *decoder) uint16() uint16 {
	b := r.take(wordBits / byteBits / 2)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint16(b)
}

func (r *decoder) uint8() uint8 {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *decoder) check(v float64) {
	r.finite = r.finite && !math.IsNaN(v) && !math.IsInf(v, 0)
}
