package gpsfilter

import (
	"encoding/binary"
	"fmt"
	"math"
)

// StateVersion is the version of State's encoding and of what Step computes.
// Outputs of two versions may differ.
const StateVersion = 3

// State is what the filter knows of one vehicle. It is a plain value without
// pointers: an assignment copies it, and the copy is independent. The zero
// value knows nothing. One goroutine at a time may use a State.
type State struct {
	// timeMS is the newest fix's time.
	timeMS int64
	// anchor is where the plane touches; all positions below are in it.
	anchor plane
	k      kalman
	// whiteVar is the learned variance per axis of the position's white
	// noise, for a fix of the accuracy below.
	whiteVar float64
	// displayE and displayN are the display position, odometerM its way.
	displayE, displayN, odometerM float64

	// accuracyM is the accuracy last reported, 0 for none.
	accuracyM float32
	// reportedE and reportedN are the velocity last reported, reportedAgeS
	// how long ago; negative for never.
	reportedE, reportedN, reportedAgeS float32
	// fast and slow are running means of the reported position.
	fastE, fastN, slowE, slowN float32
	// leashE and leashN are the stated position minus the track's.
	leashE, leashN float32
	// offE and offN are the last innovation, where it was large.
	offE, offN float32
	// courses is the recent share of driving fixes that had a course.
	courses float32
	// standS is how long the vehicle has stood; 0 when it moves.
	standS float32
	// staleS is how long the position has been repeated.
	staleS float32
	// seen counts the fixes that the noise was learned from, at most maxSeen.
	seen float32
	// support counts the fixes that agree with the track, at most maxSupport.
	support float32
	// alt is a second place that fixes which disagree with the track have
	// shown: where, how many of them in a row agreed, how long ago.
	altE, altN, altCount, altAgeS float32
	// unseenS is for how long no position has been used.
	unseenS float32
	// speedLag and courseLag are by how much the reported speed and course are
	// late.
	speedLag, courseLag lag
	// outliers is the recent share of fixes that were not used.
	outliers float32
	// positionHash recognises a repeated position.
	positionHash uint32
}

// stateSize is the encoded size of a State in bytes.
const stateSize = 1 + 8 + 8*34 + 4*32

// TimeMS returns the device time of the newest fix that was stepped, in
// milliseconds since the Unix epoch; 0 when the state knows nothing.
func (s *State) TimeMS() int64 { return s.timeMS }

// known says whether the state has a position.
func (s *State) known() bool { return s.anchor.cosLat != 0 }

// AppendBinary appends the state's encoding, at most 768 bytes, to dst and
// returns it. Equal states have equal encodings, and decoding restores every
// bit of the state.
func (s *State) AppendBinary(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, StateVersion)
	dst = le.AppendUint64(dst, uint64(s.timeMS))
	dst = le.AppendUint64(dst, math.Float64bits(s.anchor.latDeg))
	dst = le.AppendUint64(dst, math.Float64bits(s.anchor.lonDeg))
	dst = le.AppendUint64(dst, math.Float64bits(s.anchor.cosLat))
	for _, v := range s.k.x {
		dst = le.AppendUint64(dst, math.Float64bits(v))
	}
	for _, v := range s.k.p {
		dst = le.AppendUint64(dst, math.Float64bits(v))
	}
	for _, v := range [...]float64{s.whiteVar, s.displayE, s.displayN, s.odometerM} {
		dst = le.AppendUint64(dst, math.Float64bits(v))
	}
	for _, v := range s.singles() {
		dst = le.AppendUint32(dst, math.Float32bits(*v))
	}
	return le.AppendUint32(dst, s.positionHash)
}

// UnmarshalBinary decodes what AppendBinary wrote. It refuses other versions,
// other lengths and numbers that are not finite, and then leaves the state as
// it was.
func (s *State) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != StateVersion {
		return fmt.Errorf("filter state: its version is not %d", StateVersion)
	}
	if len(b) != stateSize {
		return fmt.Errorf("filter state: %d bytes, want %d", len(b), stateSize)
	}
	var d State
	le := binary.LittleEndian
	d.timeMS = int64(le.Uint64(b[1:]))
	b = b[9:]
	finite := true
	double := func(v *float64) {
		*v = math.Float64frombits(le.Uint64(b))
		finite = finite && !math.IsNaN(*v) && !math.IsInf(*v, 0)
		b = b[8:]
	}
	double(&d.anchor.latDeg)
	double(&d.anchor.lonDeg)
	double(&d.anchor.cosLat)
	for i := range d.k.x {
		double(&d.k.x[i])
	}
	for i := range d.k.p {
		double(&d.k.p[i])
	}
	for _, v := range [...]*float64{&d.whiteVar, &d.displayE, &d.displayN, &d.odometerM} {
		double(v)
	}
	for _, v := range d.singles() {
		*v = math.Float32frombits(le.Uint32(b))
		finite = finite && !math.IsNaN(float64(*v)) && !math.IsInf(float64(*v), 0)
		b = b[4:]
	}
	d.positionHash = le.Uint32(b)
	if !finite {
		return fmt.Errorf("filter state: a number is not finite")
	}
	*s = d
	return nil
}

// singles lists the float32 fields in the order of the encoding.
func (s *State) singles() [31]*float32 {
	return [31]*float32{
		&s.accuracyM, &s.reportedE, &s.reportedN, &s.reportedAgeS,
		&s.fastE, &s.fastN, &s.slowE, &s.slowN, &s.leashE, &s.leashN, &s.offE, &s.offN, &s.courses,
		&s.standS, &s.staleS, &s.seen, &s.support,
		&s.altE, &s.altN, &s.altCount, &s.altAgeS, &s.unseenS,
		&s.speedLag.s, &s.speedLag.info, &s.speedLag.e, &s.speedLag.n,
		&s.courseLag.s, &s.courseLag.info, &s.courseLag.e, &s.courseLag.n, &s.outliers,
	}
}
