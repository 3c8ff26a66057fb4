package wire

import (
	"math"

	"github.com/starling-fleet/starling/schemas/protoappend"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Append appends the encoding of a starlingv1.TrackRecord. Strings must be
// valid UTF-8.
func (t *Track) Append(dst []byte) []byte {
	var start int
	dst = protoappend.Varint(dst, 1, uint64(t.Epoch))
	dst = protoappend.Varint(dst, 2, uint64(t.SourceOffset))
	dst = protoappend.Varint(dst, 3, uint64(t.PreviousSourceOffset))
	dst = protoappend.Varint(dst, 4, uint64(t.ClockMS))
	dst = t.Counts.appendField(dst, 5)
	if t.HasLive {
		dst, start = protoappend.Open(dst, 6)
		dst = protoappend.Close(t.Live.append(dst), start)
	}
	dst = appendPoints(dst, 7, t.Points)
	dst = appendPoints(dst, 8, t.FinalPoints)
	dst = appendFixes(dst, 9, t.LateFixes)
	for i := range t.Fired {
		dst, start = protoappend.Open(dst, 10)
		dst = protoappend.Close(t.Fired[i].append(dst), start)
	}
	dst = appendFixes(dst, 11, t.SetAsideFixes)
	dst = protoappend.Varint(dst, 12, uint64(t.AppendTimeMS))
	dst = protoappend.Varint(dst, 13, uint64(int64(t.Refusal)))
	dst = protoappend.Fixed64(dst, 14, t.SessionID)
	dst = protoappend.Varint(dst, 15, uint64(t.Sequence))
	for i := range t.Outcomes {
		dst, start = protoappend.Open(dst, 16)
		dst = protoappend.Close(t.Outcomes[i].append(dst), start)
	}
	dst = appendRules(dst, 17, t.LateRules)
	dst = appendRules(dst, 18, t.SetAsideRules)
	return protoappend.Varint(dst, 19, uint64(t.ErasedUntilMS))
}

// Unmarshal decodes a starlingv1.TrackRecord whole.
func (t *Track) Unmarshal(b []byte) error { return decodeError("TrackRecord", t.unmarshal(b, true)) }

// UnmarshalLive decodes a starlingv1.TrackRecord without its points, final points and
// other fixes and their outcomes, for readers that only follow the live fleet. It does
// not look into what it leaves out, so it accepts a record whose points are
// malformed, which Unmarshal refuses.
func (t *Track) UnmarshalLive(b []byte) error {
	return decodeError("TrackRecord", t.unmarshal(b, false))
}

func (t *Track) reset() viewStrings {
	old := t.Live.reset()
	t.Epoch, t.SourceOffset, t.PreviousSourceOffset, t.ClockMS = 0, 0, 0, 0
	t.Counts = FixCounts{}
	t.HasLive = false
	t.Points, t.FinalPoints = t.Points[:0], t.FinalPoints[:0]
	t.LateFixes, t.Fired = t.LateFixes[:0], t.Fired[:0]
	t.SetAsideFixes, t.AppendTimeMS, t.Refusal = t.SetAsideFixes[:0], 0, 0
	t.SessionID, t.Sequence, t.ErasedUntilMS = 0, 0, 0
	t.Outcomes, t.LateRules, t.SetAsideRules = t.Outcomes[:0], t.LateRules[:0], t.SetAsideRules[:0]
	return old
}

func (t *Track) unmarshal(b []byte, points bool) error {
	old := t.reset()
	s := scanner{rest: b}
	for s.next() {
		var err error
		switch s.tag {
		case 1<<3 | typeVarint:
			t.Epoch = int64(s.num)
		case 2<<3 | typeVarint:
			t.SourceOffset = int64(s.num)
		case 3<<3 | typeVarint:
			t.PreviousSourceOffset = int64(s.num)
		case 4<<3 | typeVarint:
			t.ClockMS = int64(s.num)
		case 5<<3 | typeBytes:
			err = t.Counts.merge(s.data)
		case 6<<3 | typeBytes:
			t.HasLive = true
			err = t.Live.merge(s.data, &old)
		case 7<<3 | typeBytes:
			if points {
				t.Points, err = mergePoint(t.Points, s.data)
			}
		case 8<<3 | typeBytes:
			if points {
				t.FinalPoints, err = mergePoint(t.FinalPoints, s.data)
			}
		case 9<<3 | typeBytes:
			if points {
				t.LateFixes, err = mergeFix(t.LateFixes, s.data)
			}
		case 10<<3 | typeBytes:
			var d *Fired
			t.Fired, d = extend(t.Fired)
			err = d.unmarshal(s.data, points)
		case 11<<3 | typeBytes:
			if points {
				t.SetAsideFixes, err = mergeFix(t.SetAsideFixes, s.data)
			}
		case 12<<3 | typeVarint:
			t.AppendTimeMS = int64(s.num)
		case 13<<3 | typeVarint:
			t.Refusal = starlingv1.Refusal(int32(s.num))
		default:
			err = t.mergeOutcomes(&s, points)
		}
		s.invalid(err)
	}
	return s.err
}

func (d *Fired) append(b []byte) []byte {
	b = protoappend.String(b, 1, d.VehicleID)
	if d.HasLive {
		var start int
		b, start = protoappend.Open(b, 2)
		b = protoappend.Close(d.Live.append(b), start)
	}
	b = appendPoints(b, 3, d.FinalPoints)
	if d.Forgotten {
		b = protoappend.OptionalBool(b, 4, true)
	}
	return b
}

func (d *Fired) unmarshal(b []byte, points bool) error {
	oldID, old := d.VehicleID, d.Live.reset()
	d.VehicleID, d.HasLive, d.Forgotten = "", false, false
	d.FinalPoints = d.FinalPoints[:0]
	s := scanner{rest: b}
	for s.next() {
		var err error
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&d.VehicleID, oldID)
		case 2<<3 | typeBytes:
			d.HasLive = true
			err = d.Live.merge(s.data, &old)
		case 3<<3 | typeBytes:
			if points {
				d.FinalPoints, err = mergePoint(d.FinalPoints, s.data)
			}
		case 4<<3 | typeVarint:
			d.Forgotten = s.num != 0
		}
		s.invalid(err)
	}
	return s.err
}

// appendField writes the counts as a sub-message. Counts that are all zero are
// left out: a reader sees zeros either way.
func (c *FixCounts) appendField(b []byte, field protoappend.Number) []byte {
	if *c == (FixCounts{}) {
		return b
	}
	b, start := protoappend.Open(b, field)
	b = protoappend.Varint(b, 1, uint64(c.Accepted))
	b = protoappend.Varint(b, 2, uint64(c.Duplicate))
	b = protoappend.Varint(b, 3, uint64(c.Conflict))
	b = protoappend.Varint(b, 4, uint64(c.Late))
	b = protoappend.Varint(b, 5, uint64(c.SetAside))
	b = protoappend.Varint(b, 6, uint64(c.Refused))
	return protoappend.Close(b, start)
}

func (c *FixCounts) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			c.Accepted = int64(s.num)
		case 2<<3 | typeVarint:
			c.Duplicate = int64(s.num)
		case 3<<3 | typeVarint:
			c.Conflict = int64(s.num)
		case 4<<3 | typeVarint:
			c.Late = int64(s.num)
		case 5<<3 | typeVarint:
			c.SetAside = int64(s.num)
		case 6<<3 | typeVarint:
			c.Refused = int64(s.num)
		}
	}
	return s.err
}

func appendPoints(b []byte, field protoappend.Number, points []TrackPoint) []byte {
	for i := range points {
		var start int
		b, start = protoappend.Open(b, field)
		b = protoappend.Close(points[i].append(b), start)
	}
	return b
}

func mergePoint(points []TrackPoint, b []byte) ([]TrackPoint, error) {
	points, p := extend(points)
	*p = TrackPoint{}
	return points, p.merge(b)
}

func (p *TrackPoint) append(b []byte) []byte {
	b, start := protoappend.Open(b, 1)
	b = protoappend.Close(p.Fix.append(b), start)
	b = protoappend.Double(b, 2, p.LatDeg)
	b = protoappend.Double(b, 3, p.LonDeg)
	if p.HasSpeed {
		b = protoappend.OptionalFloat(b, 4, p.SpeedMPS)
	}
	if p.HasHeading {
		b = protoappend.OptionalFloat(b, 5, p.HeadingDeg)
	}
	b = protoappend.Float(b, 6, p.VarEastM2)
	b = protoappend.Float(b, 7, p.CovEastNorthM2)
	b = protoappend.Float(b, 8, p.VarNorthM2)
	b = protoappend.Varint(b, 9, uint64(int64(p.Verdict)))
	b = protoappend.Float(b, 10, p.NormalisedDistance)
	b = protoappend.Double(b, 11, p.DisplayLatDeg)
	return protoappend.Double(b, 12, p.DisplayLonDeg)
}

func (p *TrackPoint) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			s.invalid(p.Fix.merge(s.data))
		case 2<<3 | typeFixed64:
			p.LatDeg = math.Float64frombits(s.num)
		case 3<<3 | typeFixed64:
			p.LonDeg = math.Float64frombits(s.num)
		case 4<<3 | typeFixed32:
			p.SpeedMPS, p.HasSpeed = float32Of(s.num), true
		case 5<<3 | typeFixed32:
			p.HeadingDeg, p.HasHeading = float32Of(s.num), true
		case 6<<3 | typeFixed32:
			p.VarEastM2 = float32Of(s.num)
		case 7<<3 | typeFixed32:
			p.CovEastNorthM2 = float32Of(s.num)
		case 8<<3 | typeFixed32:
			p.VarNorthM2 = float32Of(s.num)
		case 9<<3 | typeVarint:
			p.Verdict = starlingv1.Verdict(int32(s.num))
		case 10<<3 | typeFixed32:
			p.NormalisedDistance = float32Of(s.num)
		case 11<<3 | typeFixed64:
			p.DisplayLatDeg = math.Float64frombits(s.num)
		case 12<<3 | typeFixed64:
			p.DisplayLonDeg = math.Float64frombits(s.num)
		}
	}
	return s.err
}
