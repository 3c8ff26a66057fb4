package gpsfilter

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// GoldenDigest is the SHA-256 of what f makes of a fixed list of fixes: every
// estimate and every encoded state. Two filters with the same digest compute
// the same; a binary can thus be asked whether it reproduces another's step.
// It takes some milliseconds.
func (f *Filter) GoldenDigest() [sha256.Size]byte {
	h := sha256.New()
	var b []byte
	for kind := range Fields(8) {
		var s State
		for _, fix := range goldenFixes(kind) {
			e := f.Step(&s, fix)
			b = appendEstimate(b[:0], &e)
			if ahead, ok := f.Predict(&s, fix.TimeMS+7000); ok {
				b = appendEstimate(b, &ahead)
			}
			b = s.AppendBinary(b)
			h.Write(b)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func appendEstimate(b []byte, e *Estimate) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(e.TimeMS))
	for _, v := range [...]float64{
		e.LatDeg, e.LonDeg, e.SpeedMPS, e.HeadingDeg,
		e.VarEastM2, e.CovEastNorthM2, e.VarNorthM2, e.NormalisedDistance,
		e.DisplayLatDeg, e.DisplayLonDeg, e.OdometerM,
	} {
		b = le.AppendUint64(b, math.Float64bits(v))
	}
	flags := byte(e.Verdict) << 2
	if e.HasSpeed {
		flags |= 1
	}
	if e.HasHeading {
		flags |= 2
	}
	return append(b, flags)
}

// goldenFixes is a drive with stops, turns, noise, jumps, gaps and repeated
// positions, whose fixes have the fields in has. It uses integers and correctly
// rounded operations only, so it is the same everywhere.
func goldenFixes(has Fields) []Fix {
	seed := uint64(has)*0x9e3779b97f4a7c15 + 1
	draw := func(n uint64) uint64 { // xorshift64* (Vigna, 2016)
		seed ^= seed >> 12
		seed ^= seed << 25
		seed ^= seed >> 27
		return (seed * 0x2545f4914f6cdd1d) >> 33 % n
	}
	noise := func() float64 { return float64((float64(draw(2001)) - 1000) * 4e-8) }
	fixes := make([]Fix, 0, 600)
	lat, lon, heading, speed := 52.0, 179.98, 0.0, 0.0
	now := int64(1_600_000_000_000)
	for i := range 600 {
		switch {
		case i%100 < 20:
			speed = 0
		case speed < 20:
			speed += 0.5
		}
		heading += float64(draw(13)) - 4
		if heading >= 360 {
			heading -= 360
		} else if heading < 0 {
			heading += 360
		}
		ue, un := sinCosDeg(heading)
		lat += float64(float64(speed*un) * degPerMetre)
		lon += float64(float64(speed*ue) * (degPerMetre / 0.6))
		if lon > 180 {
			lon -= 360
		}
		now += 1000
		switch draw(60) {
		case 0:
			now += int64(draw(90_000))
		case 1:
			now += int64(draw(3)) * 300_000
		}
		fix := Fix{
			TimeMS: now, LatDeg: lat + noise(), LonDeg: lon + noise(),
			AccuracyM: float32(24+draw(80)) / 8, SpeedMPS: float32(speed), HeadingDeg: float32(heading), Has: has,
		}
		switch fault := draw(40); {
		case fault == 0:
			fix.LatDeg += float64(float64(draw(1000)) * 4e-5)
		case fault == 1 && i > 0:
			fix.LatDeg, fix.LonDeg = fixes[i-1].LatDeg, fixes[i-1].LonDeg
		case fault == 2:
			fix.Has &= Fields(draw(8))
		}
		fixes = append(fixes, fix)
	}
	return fixes
}
