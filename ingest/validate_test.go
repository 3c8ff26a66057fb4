package ingest_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func float(x float64) *float32 { return proto.Float32(float32(x)) }

var nan, inf = math.NaN(), math.Inf(1)

// fixCase is one fix and the rule that refuses it; REASON_UNSPECIFIED means that
// it is accepted.
type fixCase struct {
	name   string
	change func(f *starlingv1.Fix)
	reason starlingv1.RefusalReason
	field  string
}

var fixCases = []fixCase{
	{"latitude NaN", func(f *starlingv1.Fix) { f.Latitude = nan }, 1, "latitude"},
	{"latitude +Inf", func(f *starlingv1.Fix) { f.Latitude = inf }, 1, "latitude"},
	{"longitude NaN", func(f *starlingv1.Fix) { f.Longitude = nan }, 1, "longitude"},
	{"longitude -Inf", func(f *starlingv1.Fix) { f.Longitude = -inf }, 1, "longitude"},
	{"latitude above 90", func(f *starlingv1.Fix) { f.Latitude = math.Nextafter(90, 91) }, 2, "latitude"},
	{"latitude below -90", func(f *starlingv1.Fix) { f.Latitude = -90.001 }, 2, "latitude"},
	{"longitude above 180", func(f *starlingv1.Fix) { f.Longitude = math.Nextafter(180, 181) }, 2, "longitude"},
	{"longitude below -180", func(f *starlingv1.Fix) { f.Longitude = -181 }, 2, "longitude"},
	{"null island", func(f *starlingv1.Fix) { f.Latitude, f.Longitude = 0, 0 }, 3, "latitude"},
	{"null island with a sign", func(f *starlingv1.Fix) { f.Latitude, f.Longitude = math.Copysign(0, -1), 0 }, 3, "latitude"},
	{"time zero", func(f *starlingv1.Fix) { f.DeviceTimeMs = 0 }, 4, "device_time_ms"},
	{"time negative", func(f *starlingv1.Fix) { f.DeviceTimeMs = math.MinInt64 }, 4, "device_time_ms"},
	{"too far ahead", func(f *starlingv1.Fix) { f.DeviceTimeMs = now.Add(2*time.Minute).UnixMilli() + 1 }, 5, "device_time_ms"},
	{"for ever ahead", func(f *starlingv1.Fix) { f.DeviceTimeMs = math.MaxInt64 }, 5, "device_time_ms"},
	{"too old", func(f *starlingv1.Fix) { f.DeviceTimeMs = now.Add(-30*24*time.Hour).UnixMilli() - 1 }, 6, "device_time_ms"},
	{"accuracy negative", func(f *starlingv1.Fix) { f.AccuracyM = float(-2) }, 8, "accuracy_m"},
	{"accuracy NaN", func(f *starlingv1.Fix) { f.AccuracyM = float(nan) }, 8, "accuracy_m"},
	{"accuracy infinite", func(f *starlingv1.Fix) { f.AccuracyM = float(inf) }, 8, "accuracy_m"},
	{"speed negative", func(f *starlingv1.Fix) { f.SpeedMps = float(-0.1) }, 9, "speed_mps"},
	{"speed NaN", func(f *starlingv1.Fix) { f.SpeedMps = float(nan) }, 9, "speed_mps"},
	{"speed infinite", func(f *starlingv1.Fix) { f.SpeedMps = float(inf) }, 9, "speed_mps"},
	{"speed absurd", func(f *starlingv1.Fix) { f.SpeedMps = float(150.1) }, 9, "speed_mps"},
	{"heading 360", func(f *starlingv1.Fix) { f.HeadingDeg = float(360) }, 10, "heading_deg"},
	{"heading negative", func(f *starlingv1.Fix) { f.HeadingDeg = float(-0.5) }, 10, "heading_deg"},
	{"heading NaN", func(f *starlingv1.Fix) { f.HeadingDeg = float(nan) }, 10, "heading_deg"},
	{"altitude too low", func(f *starlingv1.Fix) { f.AltitudeM = float(-1001) }, 11, "altitude_m"},
	{"altitude too high", func(f *starlingv1.Fix) { f.AltitudeM = float(20_001) }, 11, "altitude_m"},
	{"altitude NaN", func(f *starlingv1.Fix) { f.AltitudeM = float(nan) }, 11, "altitude_m"},

	{"all at the bounds", func(f *starlingv1.Fix) {
		f.Latitude, f.Longitude = 90, -180
		f.AccuracyM, f.SpeedMps, f.HeadingDeg, f.AltitudeM = float(0), float(150), float(359.99), float(20_000)
		f.DeviceTimeMs = now.Add(2 * time.Minute).UnixMilli()
	}, 0, ""},
	{"all at the other bounds", func(f *starlingv1.Fix) {
		f.Latitude, f.Longitude = -90, 180
		f.AccuracyM, f.SpeedMps, f.HeadingDeg, f.AltitudeM = float(math.MaxFloat32), float(0), float(0), float(-1000)
		f.DeviceTimeMs = now.Add(-30 * 24 * time.Hour).UnixMilli()
	}, 0, ""},
	{"on the equator", func(f *starlingv1.Fix) { f.Latitude = 0 }, 0, ""},
	{"on the meridian of Greenwich", func(f *starlingv1.Fix) { f.Longitude = 0 }, 0, ""},
	{"mocked, which is taken", func(f *starlingv1.Fix) { f.Mocked = proto.Bool(true) }, 0, ""},
}

func TestFixRules(t *testing.T) {
	log := &fakeLog{}
	d := open(t, log)
	s := d.stream(t)
	seen := map[starlingv1.RefusalReason]bool{}
	for i, c := range fixCases {
		r := report(int64(i+1), 3)
		r.Fixes[2].DeviceTimeMs = now.UnixMilli() - 7000
		c.change(r.Fixes[1])
		want := proto.Clone(r).(*starlingv1.Report)
		send(t, s, r)
		ack, err := s.Recv()
		require.NoError(t, err)
		require.Equal(t, int64(i+1), ack.AcknowledgedReports, c.name)
		seen[c.reason] = true
		got := log.records()[i].location.Report
		got.VehicleID = "v"
		if c.reason == 0 {
			require.Empty(t, ack.Refusals, c.name)
		} else {
			require.Len(t, ack.Refusals, 1, c.name)
			refusal := ack.Refusals[0]
			require.Equal(t, c.reason, refusal.Reason, c.name)
			require.Equal(t, c.field, refusal.Field, c.name)
			require.Equal(t, int32(1), refusal.FixIndex)
			require.Equal(t, int64(i+1), refusal.ReportNumber)
			require.Equal(t, int64(i+1), refusal.Sequence)
			require.Contains(t, refusal.Description, c.field)
			label := strings.ToLower(strings.TrimPrefix(c.reason.String(), "REFUSAL_REASON_"))
			require.NotZero(t, d.metric(t, "starling_ingest_fixes_refused_total", "reason", label), c.name)
			want.Fixes = append(want.Fixes[:1], want.Fixes[2:]...)
		}
		require.True(t, proto.Equal(want, got.ToProto()), "%s: the other fixes are kept as they are", c.name)
	}
	for reason := range starlingv1.RefusalReason_name {
		switch reason := starlingv1.RefusalReason(reason); reason {
		case starlingv1.RefusalReason_REFUSAL_REASON_TIME_REPEATED, starlingv1.RefusalReason_REFUSAL_REASON_MOCKED:
			// have tests of their own
		default:
			require.True(t, seen[reason], "no case for %s", reason)
		}
	}
	alarmtest.Raised(t, d.registry, "starling_ingest_fixes_refused_total")
	total := d.metric(t, "starling_ingest_fixes_received_total")
	require.Equal(t, total, d.metric(t, "starling_ingest_fixes_accepted_total")+d.metric(t, "starling_ingest_fixes_refused_total"), "the account closes")
}

// iOS sends -1 where it does not know: the value is left out, the fix is kept.
func TestMinusOneIsUnknown(t *testing.T) {
	log := &fakeLog{}
	d := open(t, log)
	s := d.stream(t)
	r := report(1, 3)
	r.Fixes[0].AccuracyM, r.Fixes[0].SpeedMps, r.Fixes[0].HeadingDeg, r.Fixes[0].AltitudeM = float(-1), float(-1), float(-1), float(-1)
	r.Fixes[1].AccuracyM, r.Fixes[1].SpeedMps = float(4), float(-1)
	send(t, s, r)
	require.Empty(t, until(t, s, 1).Refusals)
	want := proto.Clone(r).(*starlingv1.Report)
	want.Fixes[0].AccuracyM, want.Fixes[0].SpeedMps, want.Fixes[0].HeadingDeg = nil, nil, nil
	want.Fixes[1].SpeedMps = nil
	got := log.records()[0].location.Report
	got.VehicleID = "v"
	require.True(t, proto.Equal(want, got.ToProto()), "%v", got.ToProto())
	for field, n := range map[string]float64{"accuracy_m": 1, "speed_mps": 2, "heading_deg": 1} {
		require.Equal(t, n, d.metric(t, "starling_ingest_fields_absent_total", "field", field), field)
	}
	require.Equal(t, 3.0, d.metric(t, "starling_ingest_fixes_accepted_total"))
}

func TestMockedFixesRefusedWhenSet(t *testing.T) {
	s := open(t, &fakeLog{}, func(c *ingest.Config) { c.Validation.RefuseMocked = true }).stream(t)
	r := report(1, 2)
	r.Fixes[0].Mocked, r.Fixes[1].Mocked = proto.Bool(true), proto.Bool(false)
	send(t, s, r)
	ack := until(t, s, 1)
	require.Len(t, ack.Refusals, 1)
	require.Equal(t, starlingv1.RefusalReason_REFUSAL_REASON_MOCKED, ack.Refusals[0].Reason)
}

// A fix whose time an accepted fix of the report has is refused; a refused one
// does not stand in the way of a good one.
func TestRepeatedTimes(t *testing.T) {
	log := &fakeLog{}
	d := open(t, log)
	s := d.stream(t)
	sequence := int64(0)
	rapid.Check(t, func(t *rapid.T) {
		sequence++
		r := &starlingv1.Report{VehicleId: "v", SessionId: 7, Sequence: sequence, Availability: 1}
		accepted := map[int64]bool{}
		var repeated, bad []int32
		for i := range rapid.IntRange(0, 30).Draw(t, "fixes") {
			f := goodFix(-time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
			switch {
			case rapid.IntRange(0, 5).Draw(t, "bad") == 0:
				f.Latitude = nan
				bad = append(bad, int32(i))
			case accepted[f.DeviceTimeMs]:
				repeated = append(repeated, int32(i))
			}
			accepted[f.DeviceTimeMs] = accepted[f.DeviceTimeMs] || f.Latitude == f.Latitude
			r.Fixes = append(r.Fixes, f)
		}
		require.NoError(t, s.Send(&starlingv1.StreamReportsRequest{Report: r}))
		ack, err := s.Recv()
		require.NoError(t, err)
		var gotRepeated, gotBad []int32
		for _, refusal := range ack.Refusals {
			if refusal.Reason == starlingv1.RefusalReason_REFUSAL_REASON_TIME_REPEATED {
				gotRepeated = append(gotRepeated, refusal.FixIndex)
			} else {
				gotBad = append(gotBad, refusal.FixIndex)
			}
		}
		require.Equal(t, repeated, gotRepeated)
		require.Equal(t, bad, gotBad)
	})
}

func TestReportRules(t *testing.T) {
	cases := []struct {
		name   string
		change func(r *starlingv1.Report)
		field  string // empty: accepted
	}{
		{"no vehicle", func(r *starlingv1.Report) { r.VehicleId = "" }, "report.vehicle_id"},
		{"vehicle id too long", func(r *starlingv1.Report) { r.VehicleId = strings.Repeat("x", 65) }, "report.vehicle_id"},
		{"vehicle id with a slash", func(r *starlingv1.Report) { r.VehicleId = "a/b" }, "report.vehicle_id"},
		{"vehicle id with a letter that is not ASCII", func(r *starlingv1.Report) { r.VehicleId = "Zoë" }, "report.vehicle_id"},
		{"vehicle id with NUL", func(r *starlingv1.Report) { r.VehicleId = "a\x00" }, "report.vehicle_id"},
		{"longest vehicle id of all kinds", func(r *starlingv1.Report) { r.VehicleId = "AZaz09-_.~" + strings.Repeat("x", 54) }, ""},
		{"no session", func(r *starlingv1.Report) { r.SessionId = 0 }, "report.session_id"},
		{"no sequence", func(r *starlingv1.Report) { r.Sequence = 0 }, "report.sequence"},
		{"negative sequence", func(r *starlingv1.Report) { r.Sequence = -5 }, "report.sequence"},
		{"nothing in it", func(r *starlingv1.Report) { r.Fixes = nil }, "report"},
		{"availability alone", func(r *starlingv1.Report) { r.Fixes, r.Availability = nil, 1 }, ""},
		{"empty attributes alone", func(r *starlingv1.Report) { r.Fixes, r.Attributes = nil, &starlingv1.Attributes{} }, ""},
		{"1001 fixes", func(r *starlingv1.Report) { r.Fixes = report(1, 1001).Fixes }, "report.fixes"},
		{"1000 fixes", func(r *starlingv1.Report) { r.Fixes = report(1, 1000).Fixes }, ""},
		{"unknown availability", func(r *starlingv1.Report) { r.Availability = 6 }, "report.availability"},
		{"reserved", func(r *starlingv1.Report) { r.Availability = starlingv1.Availability_AVAILABILITY_RESERVED }, "report.availability"},
		{"on a ride", func(r *starlingv1.Report) { r.Availability = starlingv1.Availability_AVAILABILITY_ON_RIDE }, "report.availability"},
		{"offline", func(r *starlingv1.Report) { r.Availability = starlingv1.Availability_AVAILABILITY_OFFLINE }, ""},
		{"free", func(r *starlingv1.Report) { r.Availability = starlingv1.Availability_AVAILABILITY_FREE }, ""},
		{"busy", func(r *starlingv1.Report) { r.Availability = starlingv1.Availability_AVAILABILITY_BUSY }, ""},
		{"negative availability", func(r *starlingv1.Report) { r.Availability = -1 }, "report.availability"},
		{"type too long", attributes(func(a *starlingv1.Attributes) { a.Type = strings.Repeat("ü", 33) }), "report.attributes.type"},
		{"longest type", attributes(func(a *starlingv1.Attributes) { a.Type = strings.Repeat("ü", 32) }), ""},
		{"type with an escape sequence", attributes(func(a *starlingv1.Attributes) { a.Type = "\x1b[2J" }), "report.attributes.type"},
		{"tag with a line end", attributes(func(a *starlingv1.Attributes) { a.Tags = []string{"a", "b\n"} }), "report.attributes.tags[1]"},
		{"tag that turns the line around", attributes(func(a *starlingv1.Attributes) { a.Tags = []string{"\u202eb"} }), "report.attributes.tags[0]"},
		{"type with blanks and other scripts", attributes(func(a *starlingv1.Attributes) { a.Type = "Großraum 車 🚕" }), ""},
		{"negative seats", attributes(func(a *starlingv1.Attributes) { a.Seats = -1 }), "report.attributes.seats"},
		{"too many seats", attributes(func(a *starlingv1.Attributes) { a.Seats = 1001 }), "report.attributes.seats"},
		{"too many tags", attributes(func(a *starlingv1.Attributes) { a.Tags = make([]string, 17) }), "report.attributes.tags"},
		{"tag too long", attributes(func(a *starlingv1.Attributes) { a.Tags = []string{"a", strings.Repeat("b", 33)} }), "report.attributes.tags[1]"},
	}
	log := &fakeLog{}
	d := open(t, log)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := report(1, 1)
			c.change(r)
			_, unaryErr := d.client.SendReport(context.Background(), &starlingv1.SendReportRequest{Report: r})
			s := d.stream(t)
			number := int64(1)
			if r.VehicleId != "" && r.SessionId != 0 { // else there must be nothing to inherit
				send(t, s, report(1, 1))
				until(t, s, 1)
				number = 2
			}
			stored := len(log.records())
			send(t, s, r)
			if c.field == "" {
				require.NoError(t, unaryErr)
				until(t, s, number)
				require.Len(t, log.records(), stored+1)
				return
			}
			requireInvalid(t, status.Convert(unaryErr), c.field, 1)
			st, acked := ending(t, s)
			requireInvalid(t, st, c.field, number)
			require.Zero(t, acked)
			require.Len(t, log.records(), stored, "the report is not stored")
		})
	}
	require.NotZero(t, d.metric(t, "starling_ingest_reports_rejected_total", "rule", "vehicle_id"))
	alarmtest.Raised(t, d.registry, "starling_ingest_reports_rejected_total")
}

// requireInvalid demands the status for a report that breaks a rule at field.
func requireInvalid(t *testing.T, st *status.Status, field string, number int64) {
	t.Helper()
	require.Equal(t, codes.InvalidArgument, st.Code(), "%v", st)
	info := detail[*errdetails.ErrorInfo](st)
	require.Equal(t, "INVALID_REPORT", info.GetReason())
	require.Equal(t, fmt.Sprint(number), info.GetMetadata()["report_number"])
	violations := detail[*errdetails.BadRequest](st).GetFieldViolations()
	require.NotEmpty(t, violations)
	require.Equal(t, field, violations[0].Field, "%v", st)
	require.NotEmpty(t, violations[0].Description)
}

func attributes(change func(a *starlingv1.Attributes)) func(r *starlingv1.Report) {
	return func(r *starlingv1.Report) {
		r.Attributes = &starlingv1.Attributes{}
		change(r.Attributes)
	}
}

func TestConfigFaultsAreAllNamed(t *testing.T) {
	require.NoError(t, ingest.DefaultConfig().Validate())
	err := ingest.Config{}.Validate()
	for _, field := range []string{
		"validation.max_fixes", "validation.max_ahead", "validation.max_age", "validation.max_speed_mps", "validation.min_altitude_m",
		"limits.max_message_bytes", "limits.max_streams", "limits.max_conn_streams", "limits.stream_reports", "limits.stream_bytes",
		"limits.server_bytes", "limits.append_wait", "limits.send_wait", "limits.flush_wait", "limits.stream_idle_timeout",
		"limits.retry_delay", "limits.ping_interval",
	} {
		require.ErrorContains(t, err, field)
	}
}
