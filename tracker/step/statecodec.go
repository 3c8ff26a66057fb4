package step

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// stateVersion is the version of the encodings in the topic `tracker-state`.
// One that a binary does not know is refused, and the partition given back.
const stateVersion = 1

// UnknownStateError says that a checkpoint was written by a version that this
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
	flagTailClosed = 1 << iota
	flagAttributes
	flagSpeed
	flagHeading
)

// appendVehicle appends v's encoding: the version, then every field in a fixed
// order, integers as varints, floating point as its bits. The live filter state
// is left out, because base and the open fixes make it again.
func appendVehicle(b []byte, v *vehicle) []byte {
	flags := flag(v.tailClosed, flagTailClosed) | flag(v.attributes != nil, flagAttributes) |
		flag(v.last.HasSpeed, flagSpeed) | flag(v.last.HasHeading, flagHeading)
	b = append(b, stateVersion, flags)
	b = appendFilterState(b, &v.base)
	b = appendFixes(b, v.window)
	b = appendEstimate(b, &v.last)
	b = appendInts(b, v.newestMS, v.lowWatermarkMS, v.seenMS, v.refreshedMS, v.behind.sinceMS, v.behind.firstFixMS,
		v.counts.Accepted, v.counts.Duplicate, v.counts.Conflict, v.counts.Late,
		int64(v.availability), v.availabilitySeq, v.attributesSeq)
	b = append(b, v.sessions.count)
	for _, s := range v.sessions.list[:v.sessions.count] {
		b = binary.LittleEndian.AppendUint64(b, s.id)
		b = binary.LittleEndian.AppendUint64(b, s.below)
		b = appendInts(b, s.highest, s.fence)
	}
	if v.attributes != nil {
		b = appendString(b, v.attributes.Type)
		b = appendInts(b, int64(v.attributes.Seats), int64(len(v.attributes.Tags)))
		for _, tag := range v.attributes.Tags {
			b = appendString(b, tag)
		}
	}
	return b
}

// decodeVehicle reads what appendVehicle wrote.
func decodeVehicle(id string, b []byte) (*vehicle, error) {
	if len(b) == 0 || b[0] != stateVersion {
		return nil, unknownState(id, b)
	}
	r := reader{rest: b[1:]}
	v := &vehicle{id: id, timerSlot: noSlot}
	flags := r.byte()
	v.tailClosed = flags&flagTailClosed != 0
	r.filterState(&v.base)
	v.window = r.fixes()
	r.estimate(&v.last)
	v.last.HasSpeed, v.last.HasHeading = flags&flagSpeed != 0, flags&flagHeading != 0
	r.ints(&v.newestMS, &v.lowWatermarkMS, &v.seenMS, &v.refreshedMS, &v.behind.sinceMS, &v.behind.firstFixMS,
		&v.counts.Accepted, &v.counts.Duplicate, &v.counts.Conflict, &v.counts.Late)
	v.availability = starlingv1.Availability(r.int32())
	r.ints(&v.availabilitySeq, &v.attributesSeq)
	v.sessions.count = r.byte()
	if v.sessions.count > maxSessions {
		r.fail("too many sessions")
		v.sessions.count = 0
	}
	for i := range v.sessions.list[:v.sessions.count] {
		s := &v.sessions.list[i]
		s.id, s.below = r.uint64(), r.uint64()
		r.ints(&s.highest, &s.fence)
	}
	if flags&flagAttributes != 0 {
		v.attributes = &wire.Attributes{Type: r.string(), Seats: r.int32()}
		for range r.count(1) {
			v.attributes.Tags = append(v.attributes.Tags, r.string())
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

// check refuses what the step relies on never to see.
func (v *vehicle) check() error {
	if v.tailClosed && len(v.window) != 1 {
		return errors.New("a closed window does not hold one fix")
	}
	if n := len(v.window); n > 0 && v.window[n-1].DeviceTimeMS != v.newestMS {
		return errors.New("the newest fix is not the window's last")
	}
	if (len(v.window) == 0) != (v.newestMS == 0) {
		return errors.New("the window does not fit the newest fix")
	}
	for i := 1; i < len(v.window); i++ {
		if v.window[i-1].DeviceTimeMS >= v.window[i].DeviceTimeMS {
			return errors.New("the window is not in order")
		}
	}
	return nil
}

// header is what a checkpoint says of its partition.
type header struct {
	stepVersion, epoch, streamMS, offset int64
	// settings are encoded: another version may have others.
	settings []byte
}

func appendHeader(b []byte, h header) []byte {
	b = append(b, stateVersion)
	b = appendInts(b, h.stepVersion, h.epoch, h.streamMS, h.offset)
	return appendString(b, string(h.settings))
}

func decodeHeader(b []byte) (header, error) {
	if len(b) == 0 || b[0] != stateVersion {
		return header{}, unknownState(headerKey, b)
	}
	var h header
	r := reader{rest: b[1:]}
	r.ints(&h.stepVersion, &h.epoch, &h.streamMS, &h.offset)
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
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(e.LatDeg))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(e.LonDeg))
	for _, f := range [...]float32{e.SpeedMPS, e.HeadingDeg, e.VarEastM2, e.CovEastNorthM2, e.VarNorthM2} {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return appendInts(b, int64(e.Verdict))
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
