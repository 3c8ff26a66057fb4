package step

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// A checkpoint holds the open fixes of every vehicle that changed, so they are
// written small: times as differences, and coordinates as differences in units
// of 1e-7 degrees where that loses nothing, which is how devices report them.
const (
	fixMocked     = 1 << 5
	fixLatDecimal = 1 << 6
	fixLonDecimal = 1 << 7
	fixHas        = 1<<5 - 1
)

func appendFixes(b []byte, fixes *openFixes) []byte {
	b = binary.AppendUvarint(b, uint64(fixes.len()))
	var timeMS, latE7, lonE7 int64
	for i := range fixes.len() {
		f := fixes.at(i)
		lat, latDecimal := toE7(f.LatDeg)
		lon, lonDecimal := toE7(f.LonDeg)
		b = append(b, byte(f.Has)&fixHas|flag(f.Mocked, fixMocked)|flag(latDecimal, fixLatDecimal)|flag(lonDecimal, fixLonDecimal))
		b = binary.AppendVarint(b, f.DeviceTimeMS-timeMS)
		timeMS = f.DeviceTimeMS
		b = appendCoordinate(b, f.LatDeg, lat, &latE7, latDecimal)
		b = appendCoordinate(b, f.LonDeg, lon, &lonE7, lonDecimal)
		for j, value := range optional(f) {
			if f.Has&(1<<j) != 0 {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(*value))
			}
		}
	}
	return b
}

// optional lists a fix's optional numbers in the order of their Has bits.
func optional(f *wire.Fix) [4]*float32 {
	return [4]*float32{&f.AccuracyM, &f.SpeedMPS, &f.HeadingDeg, &f.AltitudeM}
}

// toE7 returns deg in units of 1e-7 degrees and whether that is exact.
func toE7(deg float64) (int64, bool) {
	e7 := int64(math.Round(deg * 1e7))
	return e7, math.Float64bits(float64(e7)/1e7) == math.Float64bits(deg)
}

func appendCoordinate(b []byte, deg float64, e7 int64, previousE7 *int64, decimal bool) []byte {
	if !decimal {
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(deg))
	}
	b = binary.AppendVarint(b, e7-*previousE7)
	*previousE7 = e7
	return b
}

// reader reads the encodings of the state. After the first fault it returns
// zeros, and end returns the fault.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err = errors.New(reason)
	}
	r.rest = nil
}

func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.fail("bytes are left over")
	}
	return r.err
}

// take returns the next n bytes, or n zeros after a fault; n is small.
func (r *reader) take(n int) []byte {
	if len(r.rest) < n {
		r.fail("it ends too early")
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte { return r.take(1)[0] }

func (r *reader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *reader) float64() float64 {
	f := math.Float64frombits(r.uint64())
	if math.IsNaN(f) || math.IsInf(f, 0) {
		r.fail("a number is not finite")
	}
	return f
}

func (r *reader) float32() float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(r.take(4)))
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail("a number is cut off")
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

func (r *reader) ints(values ...*int64) {
	for _, v := range values {
		*v = r.int()
	}
}

// count reads a number of elements that take at least size bytes each.
func (r *reader) count(size int) int {
	v := r.int()
	if v < 0 || v > int64(len(r.rest)/size) {
		r.fail("a count is larger than what follows")
		return 0
	}
	return int(v)
}

// bytes reads a length and so many bytes.
func (r *reader) bytes() []byte {
	size, n := binary.Uvarint(r.rest)
	if n <= 0 || size > uint64(len(r.rest)-n) {
		r.fail("a length is larger than what follows")
		return nil
	}
	b := r.rest[n : n+int(size)]
	r.rest = r.rest[n+int(size):]
	return b
}

func (r *reader) string() string { return string(r.bytes()) }

func (r *reader) filterState(s *gpsfilter.State) {
	b := r.bytes()
	if r.err != nil || len(b) == 0 {
		return
	}
	if err := s.UnmarshalBinary(b); err != nil {
		r.fail(err.Error())
	}
}

func (r *reader) estimate(e *wire.Estimate) {
	e.LatDeg, e.LonDeg, e.DisplayLatDeg, e.DisplayLonDeg = r.float64(), r.float64(), r.float64(), r.float64()
	for _, f := range [...]*float32{&e.SpeedMPS, &e.HeadingDeg, &e.VarEastM2, &e.CovEastNorthM2, &e.VarNorthM2} {
		*f = r.float32()
	}
	e.Verdict = starlingv1.Verdict(r.int32())
}

func (r *reader) fixes() []wire.Fix {
	const smallest = 4 // flags, time and coordinates take a byte each
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > uint64(len(r.rest)-size)/smallest {
		r.fail("a count of fixes is larger than what follows")
		return nil
	}
	r.rest = r.rest[size:]
	fixes := make([]wire.Fix, n, (n+3)/4*4) // as openFixes.grow
	var timeMS, latE7, lonE7 int64
	for i := range fixes {
		f := &fixes[i]
		flags := r.byte()
		f.Has, f.Mocked = wire.Has(flags&fixHas), flags&fixMocked != 0
		timeMS += r.int()
		f.DeviceTimeMS = timeMS
		f.LatDeg = r.coordinate(&latE7, flags&fixLatDecimal != 0)
		f.LonDeg = r.coordinate(&lonE7, flags&fixLonDecimal != 0)
		for j, value := range optional(f) {
			if f.Has&(1<<j) != 0 {
				*value = r.float32()
			}
		}
	}
	return fixes
}

func (r *reader) coordinate(previousE7 *int64, decimal bool) float64 {
	if !decimal {
		return r.float64()
	}
	*previousE7 += r.int()
	return float64(*previousE7) / 1e7
}
