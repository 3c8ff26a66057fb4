package step

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

// stateVersion is the version of the encodings in the topic `tracker-state`.
// One that a binary does not know is refused, and the partition given back.
const stateVersion = 2

// erasingStateVersion is that of a vehicle which waits to be erased: it ends with the
// erasure's device time.
const erasingStateVersion = 3

// UnknownStateError means that a checkpoint was written by a version that this
// binary can't read.
type UnknownStateError struct {
	Key     string
	Version byte
}

func (e *UnknownStateError) Error() string {
	return fmt.Sprintf("state of %q has version %d, this binary reads version %d", e.Key, e.Version, stateVersion)
}

// Bits of a vehicle's flags.
const (
	flagAttributes = 1 << iota
	flagSpeed
	flagHeading
	flagAccuracyScale
	flagVelocityCredibility
	flagClockPrevious
	flagClockSettled
	flagClockPreviousSettled
)

// Bits of a session's flags. Attributes that are the vehicle's are written once.
const (
	flagEntered = 1 << iota
	flagSessionAttributes
	flagVehicleAttributes
)

// appendVehicle appends v's encoding: the version, then every field in a fixed
// order, integers as varints, floating point as its bits. The live filter state
// is left out, because base and the open fixes make it again.
func appendVehicle(b []byte, v *vehicle) []byte {
	flags := flag(v.attributes != nil, flagAttributes) |
		flag(v.last.HasSpeed, flagSpeed) | flag(v.last.HasHeading, flagHeading) |
		flag(v.diagnosis.HasAccuracyScale, flagAccuracyScale) |
		flag(v.diagnosis.HasVelocityCredibility, flagVelocityCredibility) |
		flag(v.clock.hasPrev, flagClockPrevious) |
		flag(v.clock.settled, flagClockSettled) | flag(v.clock.prevSettled, flagClockPreviousSettled)
	version := byte(stateVersion)
	if v.eraseUntilMS != 0 {
		version = erasingStateVersion
	}
	b = append(b, version, flags, v.reports)
	b = appendFilterState(b, &v.base)
	b = appendFixes(b, &v.window)
	b = appendEstimate(b, &v.last)
	b = appendDoubles(b, v.odometerM, v.givenUpM)
	b = appendFloats(b, v.diagnosis.AccuracyScale, v.diagnosis.VelocityCredibility, v.diagnosis.BiasM, v.diagnosis.OutlierShare)
	b = appendInts(b, v.newestMS, v.lowWatermarkMS, v.seenMS, v.publishedMS, v.jumpSinceMS,
		v.authorityFixMS, v.conflictUntilMS, v.behind.sinceMS, v.behind.firstFixMS,
		v.clock.blockMS, v.clock.curMS, v.clock.prevMS, v.clock.agreedMS, v.clock.agreedSinceMS, int64(v.clock.count), int64(v.suspect.count), v.suspect.lastFixMS, v.suspect.aheadMS,
		v.counts.Accepted, v.counts.Duplicate, v.counts.Conflict, v.counts.Late, v.counts.SetAside, int64(v.availability))
	b = appendMemory(b, &v.memory)
	if v.attributes != nil {
		b = appendAttributes(b, v.attributes)
	}
	b = append(b, byte(len(v.sessions)))
	for i := range v.sessions {
		b = appendSession(b, &v.sessions[i], v.attributes)
	}
	var promises []byte
	if v.promises != nil {
		promises = v.promises.Append(nil)
	}
	b = appendString(b, string(promises))
	if v.eraseUntilMS != 0 {
		b = appendInts(b, v.eraseUntilMS)
	}
	return b
}

func appendSession(b []byte, s *session, ofVehicle *wire.Attributes) []byte {
	same := s.attributes != nil && ofVehicle != nil && sameAttributes(s.attributes, ofVehicle)
	b = append(b, flag(s.entered, flagEntered)|
		flag(s.attributes != nil && !same, flagSessionAttributes)|flag(same, flagVehicleAttributes))
	b = binary.LittleEndian.AppendUint64(b, s.id)
	b = binary.LittleEndian.AppendUint64(b, s.below)
	b = appendInts(b, s.highest, s.fence, s.seenMS, s.aheadMS, s.untilMS, s.availabilitySeq, s.attributesSeq, int64(s.availability))
	if s.attributes != nil && !same {
		b = appendAttributes(b, s.attributes)
	}
	return b
}

// appendMemory writes the entries oldest first: times as differences, mark and
// check as three bytes.
func appendMemory(b []byte, m *memory) []byte {
	b = binary.AppendUvarint(b, uint64(len(m.entries)))
	previous := int64(0)
	for i := range m.entries {
		e := m.entries[(int(m.oldest)+i)%len(m.entries)]
		b = binary.AppendVarint(b, int64(e>>timeShift)-previous)
		previous = int64(e >> timeShift)
		b = append(b, byte(e), byte(e>>8), byte(e>>16)&(1<<(timeShift-16)-1))
	}
	return b
}

func appendAttributes(b []byte, a *wire.Attributes) []byte {
	b = appendString(b, a.Type)
	b = appendInts(b, int64(a.Seats), int64(len(a.Tags)))
	for _, tag := range a.Tags {
		b = appendString(b, tag)
	}
	return b
}

func sameAttributes(a, b *wire.Attributes) bool {
	return a == b || a.Type == b.Type && a.Seats == b.Seats && slices.Equal(a.Tags, b.Tags)
}

// decodeVehicle reads what appendVehicle wrote.
func decodeVehicle(id string, b []byte) (*vehicle, error) {
	if len(b) == 0 || b[0] != stateVersion && b[0] != erasingStateVersion {
		return nil, unknownState(id, b)
	}
	r := reader{rest: b[1:]}
	v := &vehicle{id: id, timerSlot: noSlot}
	flags := r.byte()
	if v.reports = r.byte(); v.reports > enoughReports {
		r.fail("a count is out of range")
	}
	r.filterState(&v.base)
	v.window = ordered(r.fixes())
	r.estimate(&v.last)
	v.last.HasSpeed, v.last.HasHeading = flags&flagSpeed != 0, flags&flagHeading != 0
	v.odometerM, v.givenUpM = r.float64(), r.float64()
	v.diagnosis = wire.Diagnosis{
		AccuracyScale: r.float32(), VelocityCredibility: r.float32(), BiasM: r.float32(), OutlierShare: r.float32(),
		HasAccuracyScale: flags&flagAccuracyScale != 0, HasVelocityCredibility: flags&flagVelocityCredibility != 0,
	}
	r.ints(&v.newestMS, &v.lowWatermarkMS, &v.seenMS, &v.publishedMS, &v.jumpSinceMS,
		&v.authorityFixMS, &v.conflictUntilMS, &v.behind.sinceMS, &v.behind.firstFixMS,
		&v.clock.blockMS, &v.clock.curMS, &v.clock.prevMS, &v.clock.agreedMS, &v.clock.agreedSinceMS)
	v.clock.hasPrev = flags&flagClockPrevious != 0
	v.clock.settled, v.clock.prevSettled = flags&flagClockSettled != 0, flags&flagClockPreviousSettled != 0
	v.clock.count, v.suspect.count = uint8(r.upTo(enoughObservations)), int8(r.upTo(confirmations-1))
	r.ints(&v.suspect.lastFixMS, &v.suspect.aheadMS,
		&v.counts.Accepted, &v.counts.Duplicate, &v.counts.Conflict, &v.counts.Late, &v.counts.SetAside)
	v.availability = starlingv1.Availability(r.int32())
	v.memory = r.memory()
	if flags&flagAttributes != 0 {
		v.attributes = r.attributes()
	}
	n := r.byte()
	if n > maxSessions {
		r.fail("too many sessions")
		n = 0
	}
	v.sessions = make(sessions, n)
	for i := range v.sessions {
		r.session(&v.sessions[i], v.attributes)
	}
	if encoded := r.bytes(); len(encoded) > 0 {
		promises, err := reserve.DecodeVehicle(encoded)
		if err != nil {
			r.fail(err.Error())
		}
		v.promises = &promises
	}
	if b[0] == erasingStateVersion {
		if v.eraseUntilMS = r.int(); v.eraseUntilMS <= 0 {
			r.fail("an erasure has no time")
		}
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("state of vehicle %q: %w", id, err)
	}
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("state of vehicle %q: %w", id, err)
	}
	return v, nil
}

// upTo reads a number from 0 to most.
func (r *reader) upTo(most int64) int64 {
	n := r.int()
	if n < 0 || n > most {
		r.fail("a count is out of range")
		return 0
	}
	return n
}

func (r *reader) session(s *session, ofVehicle *wire.Attributes) {
	flags := r.byte()
	s.entered = flags&flagEntered != 0
	s.id, s.below = r.uint64(), r.uint64()
	r.ints(&s.highest, &s.fence, &s.seenMS, &s.aheadMS, &s.untilMS, &s.availabilitySeq, &s.attributesSeq)
	s.availability = starlingv1.Availability(r.int32())
	switch {
	case flags&flagSessionAttributes != 0:
		s.attributes = r.attributes()
	case flags&flagVehicleAttributes != 0:
		s.attributes = ofVehicle
	}
}

func (r *reader) attributes() *wire.Attributes {
	a := &wire.Attributes{Type: r.string(), Seats: r.int32()}
	for range r.count(1) {
		a.Tags = append(a.Tags, r.string())
	}
	return a
}

func (r *reader) memory() memory {
	const smallest = 4
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > uint64(len(r.rest)-size)/smallest || n > maxRememberFixes {
		r.fail("a count of remembered fixes is too large")
		return memory{}
	}
	r.rest = r.rest[size:]
	if n == 0 {
		return memory{}
	}
	m := memory{entries: make([]uint64, 0, n)}
	time := int64(0)
	for range n {
		time += r.int()
		check := r.take(3)
		e := uint64(time)&timeMask<<timeShift | uint64(check[0]) | uint64(check[1])<<8 | uint64(check[2])&(1<<(timeShift-16)-1)<<16
		m.entries = append(m.entries, e)
	}
	m.findLatest()
	return m
}

// check refuses what the step relies on never to see.
func (v *vehicle) check() error {
	if v.window.len() > 0 && v.window.newest().DeviceTimeMS != v.newestMS {
		return errors.New("the newest fix is not the window's last")
	}
	for i := 1; i < v.window.len(); i++ {
		if v.window.at(i-1).DeviceTimeMS >= v.window.at(i).DeviceTimeMS {
			return errors.New("the window is not in order")
		}
	}
	if len(v.sessions) == 0 && v.newestMS == 0 {
		return nil // known by a promise alone
	}
	if len(v.sessions) == 0 || !v.sessions[0].entered {
		return errors.New("no session is authoritative")
	}
	return nil
}

// header is what a checkpoint states of its partition.
type header struct {
	stepVersion, epoch, streamMS, offset int64
	jump                                 jump
	repeated                             moment
	assertions                           reserve.Assertions
	// settings are encoded: another version may have others.
	settings []byte
}

func appendHeader(b []byte, h header) []byte {
	b = append(b, stateVersion)
	b = appendInts(b, h.stepVersion, h.epoch, h.streamMS, h.jump.sinceMS, h.jump.lastMS, h.offset, h.repeated.atMS)
	b = appendString(b, h.repeated.vehicle)
	b = appendString(b, string(h.assertions.Append(nil)))
	return appendString(b, string(h.settings))
}

func decodeHeader(b []byte) (header, error) {
	if len(b) == 0 || b[0] != stateVersion {
		return header{}, unknownState(headerKey, b)
	}
	var h header
	r := reader{rest: b[1:]}
	r.ints(&h.stepVersion, &h.epoch, &h.streamMS, &h.jump.sinceMS, &h.jump.lastMS, &h.offset, &h.repeated.atMS)
	h.repeated.vehicle = r.string()
	if encoded := r.bytes(); r.err == nil {
		var err error
		if h.assertions, err = reserve.DecodeAssertions(encoded); err != nil {
			r.fail(err.Error())
		}
	}
	h.settings = []byte(r.string())
	if err := r.end(); err != nil {
		return header{}, fmt.Errorf("state of the partition: %w", err)
	}
	return h, nil
}

func unknownState(key string, b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("state of %q is empty", key)
	}
	return &UnknownStateError{Key: key, Version: b[0]}
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

func appendFilterState(b []byte, s *gpsfilter.State) []byte {
	if s.TimeMS() == 0 {
		return append(b, 0) // knows nothing
	}
	start := len(b)
	b = s.AppendBinary(append(b, 0, 0))
	size := len(b) - start - 2
	// Two bytes of varint hold up to 16383, and a state has at most 768.
	b[start], b[start+1] = byte(size)|0x80, byte(size>>7)
	return b
}

func appendEstimate(b []byte, e *wire.Estimate) []byte {
	b = appendDoubles(b, e.LatDeg, e.LonDeg, e.DisplayLatDeg, e.DisplayLonDeg)
	b = appendFloats(b, e.SpeedMPS, e.HeadingDeg, e.VarEastM2, e.CovEastNorthM2, e.VarNorthM2)
	return appendInts(b, int64(e.Verdict))
}

func appendDoubles(b []byte, values ...float64) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

func appendFloats(b []byte, values ...float32) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func appendInts(b []byte, values ...int64) []byte {
	for _, v := range values {
		b = binary.AppendVarint(b, v)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
