// Package check judges a crash drill: it compares what clients were answered with
// what the log holds and what the fleet answers. It shares no code with the
// roles that it judges: it decodes with the generated protobuf code and states
// the rules of the contract anew, in the simplest form.
package check

import (
	"encoding/binary"
	"hash/fnv"
	"math"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Fix is one fix as a client sent it.
type Fix struct {
	// DeviceTimeMS is the fix's identity within its vehicle.
	DeviceTimeMS int64
	// Digest is DigestOf the fix.
	Digest uint64
	// Refusable is the reason for which the fix must be refused, or
	// unspecified for a fix that must be taken.
	Refusable starlingv1.RefusalReason
	// Ahead is true if the fix is stamped ahead on purpose: it must be set aside.
	Ahead bool
}

// Report is one report as a client sent it, and what it was answered.
type Report struct {
	Session      uint64
	Sequence     int64
	Fixes        []Fix
	Availability starlingv1.Availability
	Attributes   *starlingv1.Attributes
	// Acknowledged is true if the client was answered that the report is durable.
	Acknowledged bool
	// Refused are the indexes of the fixes that the client was answered are
	// refused, with the reason.
	Refused map[int32]starlingv1.RefusalReason
}

// Reports is everything that clients sent and were answered, by vehicle, in the order
// of sending.
type Reports map[string][]*Report

// DigestOf is a digest of everything that a fix carries.
func DigestOf(f *starlingv1.Fix) uint64 {
	var b [64]byte
	n := 0
	put := func(v uint64) {
		binary.LittleEndian.PutUint64(b[n:], v)
		n += 8
	}
	optional := func(v *float32) {
		if v == nil {
			put(math.MaxUint64)
			return
		}
		put(uint64(math.Float32bits(*v)))
	}
	put(uint64(f.DeviceTimeMs))
	put(math.Float64bits(f.Latitude))
	put(math.Float64bits(f.Longitude))
	optional(f.AccuracyM)
	optional(f.SpeedMps)
	optional(f.HeadingDeg)
	optional(f.AltitudeM)
	switch {
	case f.Mocked == nil:
		put(2)
	case *f.Mocked:
		put(1)
	default:
		put(0)
	}
	h := fnv.New64a()
	_, _ = h.Write(b[:n])
	return h.Sum64()
}
