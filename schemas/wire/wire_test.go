package wire_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// message is what every type of the package offers.
type message interface {
	Append(dst []byte) []byte
	Unmarshal(b []byte) error
}

// kind ties a flat struct to the generated type that judges it.
type kind struct {
	name      string
	new       func() message
	newProto  func() proto.Message
	fromProto func(proto.Message) message
	toProto   func(message) proto.Message
	generate  func(*rapid.T) message
}

var kinds = []kind{
	{
		name:     "StreamRequest",
		new:      func() message { return &wire.StreamRequest{} },
		newProto: func() proto.Message { return &starlingv1.StreamReportsRequest{} },
		fromProto: func(m proto.Message) message {
			r := wire.StreamRequestFromProto(m.(*starlingv1.StreamReportsRequest))
			return &r
		},
		toProto: func(m message) proto.Message { return m.(*wire.StreamRequest).ToProto() },
		generate: func(t *rapid.T) message {
			r := &wire.StreamRequest{HasReport: rapid.Bool().Draw(t, "has report")}
			if r.HasReport {
				r.Report = drawReport(t)
				r.Report.VehicleID = drawString(t)
			}
			return r
		},
	},
	{
		name:     "Ack",
		new:      func() message { return &wire.Ack{} },
		newProto: func() proto.Message { return &starlingv1.StreamReportsResponse{} },
		fromProto: func(m proto.Message) message {
			a := wire.AckFromProto(m.(*starlingv1.StreamReportsResponse))
			return &a
		},
		toProto: func(m message) proto.Message { return m.(*wire.Ack).ToProto() },
		generate: func(t *rapid.T) message {
			a := &wire.Ack{AcknowledgedReports: drawInt(t), AcknowledgedSequence: drawInt(t)}
			a.Refusals = drawSlice(t, func() wire.FixRefusal {
				return wire.FixRefusal{
					ReportNumber: drawInt(t), Sequence: drawInt(t), FixIndex: int32(drawInt(t)),
					Field: drawString(t), Reason: starlingv1.RefusalReason(drawEnum(t)), Description: drawString(t),
				}
			})
			return a
		},
	},
	{
		name:     "Location",
		new:      func() message { return &wire.Location{} },
		newProto: func() proto.Message { return &starlingv1.LocationRecord{} },
		fromProto: func(m proto.Message) message {
			l := wire.LocationFromProto(m.(*starlingv1.LocationRecord))
			return &l
		},
		toProto: func(m message) proto.Message { return m.(*wire.Location).ToProto() },
		generate: func(t *rapid.T) message {
			l := &wire.Location{Kind: wire.LocationKind(rapid.IntRange(0, 7).Draw(t, "kind"))}
			switch l.Kind {
			case wire.KindReport:
				l.Report = drawReport(t)
			case wire.KindVersionSwitch:
				bytes := rapid.SliceOf(rapid.Byte())
				l.Switch = wire.VersionSwitch{
					StepVersion: int32(drawInt(t)), Settings: bytes.Draw(t, "settings"), GoldenDigest: bytes.Draw(t, "digest"),
				}
			case wire.KindProposal:
				l.Proposal = wire.Proposal{Ride: drawString(t), Attempt: drawAttempt(t), DecideByMS: drawInt(t), MaxAgeMS: drawInt(t)}
			case wire.KindRelease:
				l.Release = wire.Release{Ride: drawString(t), Attempt: drawAttempt(t), DecideByMS: drawInt(t), Operator: rapid.Bool().Draw(t, "operator")}
			case wire.KindErasure:
				l.Erasure.UntilMS = drawInt(t)
			case wire.KindReasserted:
				l.Reasserted = wire.Reasserted{
					Epoch: drawInt(t), RidesPartition: int32(drawInt(t)), Generation: drawInt(t), Part: int32(drawInt(t)), Parts: int32(drawInt(t)),
					Promises: drawSlice(t, func() wire.Promise {
						return wire.Promise{VehicleID: drawString(t), Reservation: *drawReservation(t), OnBoard: rapid.Bool().Draw(t, "on board")}
					}),
				}
			}
			return l
		},
	},
	{
		name:     "Track",
		new:      func() message { return &wire.Track{} },
		newProto: func() proto.Message { return &starlingv1.TrackRecord{} },
		fromProto: func(m proto.Message) message {
			tr := wire.TrackFromProto(m.(*starlingv1.TrackRecord))
			return &tr
		},
		toProto:  func(m message) proto.Message { return m.(*wire.Track).ToProto() },
		generate: func(t *rapid.T) message { return drawTrack(t) },
	},
}

func drawAttempt(t *rapid.T) wire.Attempt {
	return wire.Attempt{Epoch: drawInt(t), Generation: drawInt(t), Counter: drawInt(t)}
}

func drawReservation(t *rapid.T) *wire.Reservation {
	return &wire.Reservation{Ride: drawString(t), Attempt: drawAttempt(t), Fence: wire.Fence{Epoch: drawInt(t), Offset: drawInt(t)}}
}

func drawInt(t *rapid.T) int64 {
	return rapid.OneOf(rapid.Int64Range(-2, 300), rapid.Int64()).Draw(t, "int")
}

func drawEnum(t *rapid.T) int32 { return rapid.Int32Range(-1, 20).Draw(t, "enum") }

func drawString(t *rapid.T) string { return rapid.String().Draw(t, "string") }

func drawDouble(t *rapid.T) float64 {
	return rapid.OneOf(
		rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1)}),
		rapid.Float64(),
	).Draw(t, "double")
}

func drawFloat(t *rapid.T) float32 { return float32(drawDouble(t)) }

func drawSlice[T any](t *rapid.T, element func() T) (s []T) {
	for range rapid.IntRange(0, 4).Draw(t, "length") {
		s = append(s, element())
	}
	return s
}

func drawFix(t *rapid.T) wire.Fix {
	f := wire.Fix{
		DeviceTimeMS: drawInt(t), LatDeg: drawDouble(t), LonDeg: drawDouble(t),
		Has: wire.Has(rapid.IntRange(0, 31).Draw(t, "has")),
	}
	for bit, field := range map[wire.Has]*float32{
		wire.HasAccuracy: &f.AccuracyM, wire.HasSpeed: &f.SpeedMPS, wire.HasHeading: &f.HeadingDeg, wire.HasAltitude: &f.AltitudeM,
	} {
		if f.Has&bit != 0 {
			*field = drawFloat(t)
		}
	}
	f.Mocked = f.Has&wire.HasMocked != 0 && rapid.Bool().Draw(t, "mocked")
	return f
}

func drawAttributes(t *rapid.T) (bool, wire.Attributes) {
	if !rapid.Bool().Draw(t, "has attributes") {
		return false, wire.Attributes{}
	}
	return true, wire.Attributes{
		Type: drawString(t), Seats: int32(drawInt(t)),
		Tags: drawSlice(t, func() string { return drawString(t) }),
	}
}

// drawReport draws a report without a vehicle id, which not every message has.
func drawReport(t *rapid.T) wire.Report {
	r := wire.Report{
		SessionID: rapid.Uint64().Draw(t, "session"), Sequence: drawInt(t),
		Fixes:        drawSlice(t, func() wire.Fix { return drawFix(t) }),
		Availability: starlingv1.Availability(drawEnum(t)),
	}
	r.HasAttributes, r.Attributes = drawAttributes(t)
	return r
}

func drawCounts(t *rapid.T) wire.FixCounts {
	if rapid.Bool().Draw(t, "no counts") {
		return wire.FixCounts{}
	}
	return wire.FixCounts{Accepted: drawInt(t), Duplicate: drawInt(t), Conflict: drawInt(t), Late: drawInt(t), SetAside: drawInt(t), Refused: drawInt(t)}
}

func drawEstimate(t *rapid.T) wire.Estimate {
	e := wire.Estimate{
		LatDeg: drawDouble(t), LonDeg: drawDouble(t),
		VarEastM2: drawFloat(t), CovEastNorthM2: drawFloat(t), VarNorthM2: drawFloat(t),
		Verdict: starlingv1.Verdict(drawEnum(t)),
	}
	if e.HasSpeed = rapid.Bool().Draw(t, "has speed"); e.HasSpeed {
		e.SpeedMPS = drawFloat(t)
	}
	if e.HasHeading = rapid.Bool().Draw(t, "has heading"); e.HasHeading {
		e.HeadingDeg = drawFloat(t)
	}
	e.DisplayLatDeg, e.DisplayLonDeg = drawDouble(t), drawDouble(t)
	return e
}

func drawDiagnosis(t *rapid.T) (d wire.Diagnosis) {
	if rapid.Bool().Draw(t, "no diagnosis") {
		return d
	}
	d.BiasM, d.OutlierShare = drawFloat(t), drawFloat(t)
	if d.HasAccuracyScale = rapid.Bool().Draw(t, "has accuracy scale"); d.HasAccuracyScale {
		d.AccuracyScale = drawFloat(t)
	}
	if d.HasVelocityCredibility = rapid.Bool().Draw(t, "has velocity credibility"); d.HasVelocityCredibility {
		d.VelocityCredibility = drawFloat(t)
	}
	return d
}

func drawView(t *rapid.T) (bool, wire.View) {
	if rapid.Bool().Draw(t, "no view") {
		return false, wire.View{}
	}
	v := wire.View{
		VehicleID: drawString(t), DeviceTimeMS: drawInt(t), SeenTimeMS: drawInt(t), Estimate: drawEstimate(t),
		Cell: rapid.Uint64().Draw(t, "cell"), Availability: starlingv1.Availability(drawEnum(t)), Counts: drawCounts(t),
		DerivedAvailability: starlingv1.Availability(drawEnum(t)),
		Dispatchable:        rapid.Bool().Draw(t, "dispatchable"), Conflicting: rapid.Bool().Draw(t, "conflicting"),
		DeviceClockAheadMS: drawInt(t), OdometerM: drawDouble(t), Diagnosis: drawDiagnosis(t),
	}
	v.HasAttributes, v.Attributes = drawAttributes(t)
	if rapid.Bool().Draw(t, "reserved") {
		v.Reservation = drawReservation(t)
	}
	return true, v
}

func drawTrack(t *rapid.T) *wire.Track {
	points := func() []wire.TrackPoint {
		return drawSlice(t, func() wire.TrackPoint {
			return wire.TrackPoint{Fix: drawFix(t), Estimate: drawEstimate(t), NormalisedDistance: drawFloat(t)}
		})
	}
	tr := &wire.Track{
		Epoch: drawInt(t), SourceOffset: drawInt(t), PreviousSourceOffset: drawInt(t), ClockMS: drawInt(t),
		Counts: drawCounts(t), Points: points(), FinalPoints: points(),
		LateFixes: drawSlice(t, func() wire.Fix { return drawFix(t) }), AppendTimeMS: drawInt(t), Refusal: starlingv1.Refusal(rapid.IntRange(0, 2).Draw(t, "refusal")),
		SetAsideFixes: drawSlice(t, func() wire.Fix { return drawFix(t) }),
		SessionID:     rapid.Uint64().Draw(t, "session"), Sequence: drawInt(t), ErasedUntilMS: drawInt(t),
		Outcomes:  drawSlice(t, func() wire.FixOutcome { return wire.FixOutcome{Rule: drawRule(t), Fix: drawFix(t)} }),
		LateRules: drawSlice(t, func() starlingv1.OutcomeRule { return drawRule(t) }), SetAsideRules: drawSlice(t, func() starlingv1.OutcomeRule { return drawRule(t) }),
		Fired: drawSlice(t, func() wire.Fired {
			d := wire.Fired{VehicleID: drawString(t), FinalPoints: points(), Forgotten: rapid.Bool().Draw(t, "forgotten")}
			d.HasLive, d.Live = drawView(t)
			return d
		}),
	}
	tr.HasLive, tr.Live = drawView(t)
	return tr
}

func drawRule(t *rapid.T) starlingv1.OutcomeRule { return starlingv1.OutcomeRule(drawEnum(t)) }

// testingT is what both *testing.T and *rapid.T are.
type testingT interface {
	require.TestingT
	Helper()
}

// judge decodes b with the generated code and with the flat struct, both a
// fresh one and one that held something else, and demands the same verdict and
// the same content.
func (k kind) judge(t testingT, used message, b []byte) {
	t.Helper()
	pb := k.newProto()
	wantErr := proto.Unmarshal(b, pb)
	fresh := k.new()
	for state, m := range map[string]message{"fresh": fresh, "used": used} {
		err := m.Unmarshal(b)
		if wantErr != nil {
			require.Errorf(t, err, "%s: accepted what protobuf refuses: %v\n%x", state, wantErr, b)
			continue
		}
		require.NoErrorf(t, err, "%s: refused what protobuf accepts\n%x", state, b)
		requireSame(t, k, k.fromProto(pb), m)
	}
}

// requireSame compares content by what the generated code makes of it, in which
// NaNs compare by their bits.
func requireSame(t testingT, k kind, want, got message) {
	t.Helper()
	marshal := proto.MarshalOptions{Deterministic: true}
	wantBytes, err := marshal.Marshal(k.toProto(want))
	require.NoError(t, err)
	gotBytes, err := marshal.Marshal(k.toProto(got))
	require.NoError(t, err)
	require.Equalf(t, fmt.Sprintf("%x", wantBytes), fmt.Sprintf("%x", gotBytes), "want %+v\ngot  %+v", want, got)
}

func forEachKind(t *testing.T, check func(k kind, t *rapid.T)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { check(k, t) })
		})
	}
}

func TestEncodesWhatGeneratedCodeEncodes(t *testing.T) {
	forEachKind(t, func(k kind, t *rapid.T) {
		m := k.generate(t)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(k.toProto(m))
		require.NoError(t, err)
		got := m.Append([]byte("prefix"))
		require.Equal(t, fmt.Sprintf("%x", want), fmt.Sprintf("%x", got[len("prefix"):]))
		require.Equal(t, "prefix", string(got[:len("prefix")]))
		if bound, ok := m.(interface{ SizeBound() int }); ok {
			require.LessOrEqual(t, len(want), bound.SizeBound())
		}
	})
}

func TestDecodesWhatGeneratedCodeDecodes(t *testing.T) {
	forEachKind(t, func(k kind, t *rapid.T) {
		used := k.new()
		for range rapid.IntRange(1, 3).Draw(t, "messages") {
			k.judge(t, used, drawInput(t, k))
		}
	})
}

// drawInput draws bytes that come near to a message: pieces of several
// messages, which a decoder must merge, unknown fields, wrong wire types,
// groups and damage.
func drawInput(t *rapid.T, k kind) (b []byte) {
	for range rapid.IntRange(0, 4).Draw(t, "pieces") {
		switch rapid.IntRange(0, 5).Draw(t, "piece") {
		default:
			b = k.generate(t).Append(b)
		case 3:
			b = appendField(t, b, 2)
		case 4:
			b = protowire.AppendBytes(protowire.AppendTag(b, drawNumber(t), protowire.BytesType), k.generate(t).Append(nil))
		case 5:
			b = append(b, rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "noise")...)
		}
	}
	if len(b) > 0 && rapid.IntRange(0, 3).Draw(t, "damage") == 0 {
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "cut") {
			return b[:at]
		}
		b[at] ^= byte(1 << rapid.IntRange(0, 7).Draw(t, "bit"))
	}
	return b
}

func drawNumber(t *rapid.T) protowire.Number {
	return protowire.Number(rapid.OneOf(rapid.Int32Range(1, 17), rapid.Int32Range(0, 1<<29)).Draw(t, "number"))
}

// appendField appends one field of any number and type.
func appendField(t *rapid.T, b []byte, depth int) []byte {
	num, typ := drawNumber(t), protowire.Type(rapid.IntRange(0, 7).Draw(t, "type"))
	if depth == 0 && typ == protowire.StartGroupType {
		typ = protowire.VarintType
	}
	b = protowire.AppendTag(b, num, typ)
	switch typ {
	case protowire.VarintType:
		b = protowire.AppendVarint(b, rapid.Uint64().Draw(t, "varint"))
	case protowire.Fixed32Type:
		b = protowire.AppendFixed32(b, rapid.Uint32().Draw(t, "fixed32"))
	case protowire.Fixed64Type:
		b = protowire.AppendFixed64(b, rapid.Uint64().Draw(t, "fixed64"))
	case protowire.BytesType:
		b = protowire.AppendBytes(b, rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes"))
	case protowire.StartGroupType:
		b = appendField(t, b, depth-1)
		b = protowire.AppendTag(b, num, protowire.EndGroupType)
	}
	return b
}

func TestDecodingCornerCases(t *testing.T) {
	field := func(num protowire.Number, content ...byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), content)
	}
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	cases := map[string][]byte{
		"empty":                          {},
		"tag with a padded varint":       {0x8a, 0x00, 0x02, 0x18, 0x05},
		"field number zero":              {0x00, 0x01},
		"field number too large":         {0xff, 0xff, 0xff, 0xff, 0x7f, 0x01},
		"end of a group that never was":  {0x0c},
		"group in place of a message":    {0x0b, 0x18, 0x05, 0x0c},
		"group that ends as another":     {0x7b, 0x74},
		"varint of eleven bytes":         field(1, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"varint above 64 bits":           field(1, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02),
		"length beyond the input":        {0x0a, 0x05, 0x18},
		"length above 63 bits":           {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"message in two pieces":          join(field(1, 0x18, 0x05), field(1, 0x28, 0x02)),
		"later zero wins":                join(field(1, 0x18, 0x05), field(1, 0x18, 0x00)),
		"oneof: report, tick, report":    join(field(1, 0x18, 0x05), field(2), field(1, 0x28, 0x02)),
		"oneof: switch, switch":          join(field(3, 0x08, 0x05), field(3, 0x12, 0x01, 0x41)),
		"oneof: switch, tick, switch":    join(field(3, 0x08, 0x05), field(2), field(3, 0x12, 0x01, 0x41)),
		"malformed tick":                 field(2, 0x08),
		"enum beyond 32 bits":            field(1, 0x28, 0x82, 0x80, 0x80, 0x80, 0x10),
		"vehicle id not UTF-8":           field(1, 0x0a, 0x01, 0xff),
		"overridden id not UTF-8":        field(1, 0x0a, 0x01, 0xff, 0x0a, 0x01, 0x41),
		"tag not UTF-8":                  field(1, 0x32, 0x03, 0x1a, 0x01, 0xc0),
		"empty tag":                      field(1, 0x32, 0x02, 0x1a, 0x00),
		"surrogate half in a vehicle id": field(1, 0x0a, 0x03, 0xed, 0xa0, 0x80),
		"bool of many bits":              field(1, 0x22, 0x03, 0x40, 0x80, 0x02),
		"reserved wire type":             {0x0f},
	}
	for name, b := range cases {
		for _, k := range kinds {
			t.Run(name+"/"+k.name, func(t *testing.T) { k.judge(t, k.new(), b) })
		}
	}
}

func TestDeepGroups(t *testing.T) {
	for _, depth := range []int{9_999, 10_000, 10_001, 20_000} {
		var b []byte
		for range depth {
			b = protowire.AppendTag(b, 20, protowire.StartGroupType)
		}
		for range depth {
			b = protowire.AppendTag(b, 20, protowire.EndGroupType)
		}
		for _, k := range kinds {
			k.judge(t, k.new(), b)
		}
	}
}

func TestLocationLeavesOutVehicleID(t *testing.T) {
	l := wire.Location{Kind: wire.KindReport, Report: wire.Report{VehicleID: "v", Sequence: 7}}
	var back wire.Location
	require.NoError(t, back.Unmarshal(l.Append(nil)))
	require.Empty(t, back.Report.VehicleID)
	require.Equal(t, int64(7), back.Report.Sequence)
	require.Equal(t, l.Append(nil), wire.AppendReportRecord(nil, &l.Report))
}

func TestUnmarshalLiveLeavesOutPoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawTrack(t)
		var got wire.Track
		if rapid.Bool().Draw(t, "used") {
			require.NoError(t, got.Unmarshal(drawTrack(t).Append(nil)))
		}
		require.NoError(t, got.UnmarshalLive(want.Append(nil)))
		want.Points, want.FinalPoints, want.LateFixes, want.SetAsideFixes = nil, nil, nil, nil
		want.Outcomes, want.LateRules, want.SetAsideRules = nil, nil, nil
		for i := range want.Fired {
			want.Fired[i].FinalPoints = nil
		}
		requireSame(t, kinds[3], want, &got)
	})
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	report := sampleRequest(50)
	b := report.Append(nil)
	record := (&wire.Location{Kind: wire.KindReport, Report: report.Report}).Append(nil)
	track := sampleTrack(5)
	trackBytes := track.Append(nil)
	var (
		buf []byte
		req wire.StreamRequest
		loc wire.Location
		tr  wire.Track
	)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if req.Unmarshal(b) != nil || loc.Unmarshal(record) != nil || tr.Unmarshal(trackBytes) != nil || tr.UnmarshalLive(trackBytes) != nil {
			panic("not decoded")
		}
		buf = req.Append(buf[:0])
		buf = loc.Append(buf[:0])
		buf = tr.Append(buf[:0])
	}))
}

func sampleFix(i int) wire.Fix {
	return wire.Fix{
		DeviceTimeMS: 1_700_000_000_000 + int64(i)*1000, LatDeg: 52.5 + float64(i)*1e-4, LonDeg: 13.4,
		AccuracyM: 5, SpeedMPS: 12.5, HeadingDeg: 271, Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading,
	}
}

func sampleRequest(fixes int) *wire.StreamRequest {
	r := &wire.StreamRequest{HasReport: true, Report: wire.Report{
		VehicleID: "vehicle-000042", SessionID: 0x1234_5678_9abc_def0, Sequence: 4711,
		Availability: starlingv1.Availability_AVAILABILITY_FREE, HasAttributes: true,
		Attributes: wire.Attributes{Type: "van", Seats: 6, Tags: []string{"wheelchair", "quiet"}},
	}}
	for i := range fixes {
		r.Report.Fixes = append(r.Report.Fixes, sampleFix(i))
	}
	return r
}

func sampleTrack(points int) *wire.Track {
	e := wire.Estimate{
		LatDeg: 52.5, LonDeg: 13.4, SpeedMPS: 12, HeadingDeg: 270, HasSpeed: true, HasHeading: true,
		VarEastM2: 9, CovEastNorthM2: 1, VarNorthM2: 8, Verdict: starlingv1.Verdict_VERDICT_ACCEPTED,
	}
	t := &wire.Track{
		Epoch: 1, SourceOffset: 1_000_000, PreviousSourceOffset: 999_999, ClockMS: 1_700_000_000_000,
		Counts: wire.FixCounts{Accepted: int64(points)}, HasLive: true,
		Live: wire.View{
			VehicleID: "vehicle-000042", DeviceTimeMS: 1_700_000_000_000, SeenTimeMS: 1_700_000_000_100, Estimate: e,
			Cell: 0x8a1f1d48b6effff, Counts: wire.FixCounts{Accepted: 4711},
		},
	}
	for i := range points {
		p := wire.TrackPoint{Fix: sampleFix(i), Estimate: e}
		t.Points, t.FinalPoints = append(t.Points, p), append(t.FinalPoints, p)
	}
	return t
}
