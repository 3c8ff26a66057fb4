package query_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/history/query"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// memory is a store of one vehicle's fixes, of statistics and of visits.
type memory struct {
	fixes  []row.Fix
	stats  []store.CellStat
	known  store.Explanation
	visits []store.Visit
	fail   error
	wait   <-chan struct{} // before an answer
	asked  store.VisitQuery
}

func answer[T any](ctx context.Context, m *memory, all []T, in func(T) bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		if m.wait != nil {
			select {
			case <-m.wait:
			case <-ctx.Done():
				yield(none, ctx.Err())
				return
			}
		}
		if m.fail != nil {
			yield(none, m.fail)
			return
		}
		for _, v := range all {
			if in(v) && !yield(v, nil) {
				return
			}
		}
	}
}

func (m *memory) Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error] {
	return answer(ctx, m, m.fixes, func(f row.Fix) bool { return f.DeviceTimeMS >= q.FromMS && f.DeviceTimeMS < q.ToMS })
}

func (m *memory) CellStats(ctx context.Context, q store.CellQuery) iter.Seq2[store.CellStat, error] {
	return answer(ctx, m, m.stats, func(c store.CellStat) bool { return c.StartMS >= q.FromMS && c.StartMS < q.ToMS })
}

func (m *memory) Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error] {
	m.asked = q
	return answer(ctx, m, m.visits, func(v store.Visit) bool { return v.Vehicle > q.After })
}

func (m *memory) Explain(context.Context, string, int64) (store.Explanation, error) {
	return m.known, m.fail
}

func (m *memory) Close() error { return nil }

// begin is when the time of the tests begins.
var begin = time.Date(2026, 3, 1, 7, 0, 0, 0, time.UTC)

func at(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(begin.Add(d)) }

// fixesEverySecond are a walk of n fixes at 1 Hz, with stops, gaps and jumps.
func fixesEverySecond(n int) []row.Fix {
	random := rand.New(rand.NewPCG(7, 7))
	fixes := make([]row.Fix, n)
	p, ms, northE7 := row.Position{LatE7: 482000000, LonE7: 163700000}, begin.UnixMilli(), int32(900)
	for i := range fixes {
		if i%50 == 0 {
			northE7 = random.Int32N(3000) - 1500
		}
		p.LatE7 += northE7 + random.Int32N(100)
		p.LonE7 += random.Int32N(1000) - 300
		ms += 1000
		if random.IntN(300) == 0 {
			ms += 60_000
		}
		fixes[i] = row.Fix{Vehicle: "car", DeviceTimeMS: ms, Kind: row.Final, Has: row.HasEstimate | row.HasSpeed | row.HasHeading | row.HasRawHeading | row.HasAltitude, Raw: row.Position{LatE7: p.LatE7 + 70, LonE7: p.LonE7}, Corrected: p, Display: row.Position{LatE7: p.LatE7, LonE7: p.LonE7 + 40}, SpeedCMPS: 1000, HeadingDDeg: 900, RawHeadingDDeg: 910, AltitudeDM: 2000, Verdict: starlingv1.Verdict_VERDICT_ACCEPTED}
		if i%97 == 0 {
			fixes[i].Kind, fixes[i].Has, fixes[i].Verdict = row.Late, 0, 0
			fixes[i].Corrected, fixes[i].Display, fixes[i].SpeedCMPS, fixes[i].HeadingDDeg = row.Position{}, row.Position{}, 0, 0
		}
	}
	return fixes
}

// stream collects the parts of an answer and breaks off behind some.
type stream[A any] struct {
	ctx     context.Context
	parts   []*A
	breakAt int // parts; 0 means never
}

var errBroken = errors.New("the client has gone")

func (s *stream[A]) Context() context.Context     { return s.ctx }
func (s *stream[A]) SetHeader(metadata.MD) error  { return nil }
func (s *stream[A]) SendHeader(metadata.MD) error { return nil }
func (s *stream[A]) SetTrailer(metadata.MD)       {}
func (s *stream[A]) SendMsg(any) error            { return nil }
func (s *stream[A]) RecvMsg(any) error            { return nil }
func (s *stream[A]) Send(a *A) error {
	if len(s.parts) == s.breakAt && s.breakAt > 0 {
		return errBroken
	}
	s.parts = append(s.parts, a)
	return nil
}

var (
	precise = &auth.Caller{Issuer: "i", Subject: "analyst", Scopes: auth.HistoryPrecise}
	rounded = &auth.Caller{Issuer: "i", Subject: "reader", Scopes: auth.HistoryRead}
)

func newServer(t testing.TB, m *memory, change ...func(*query.Config)) (*query.Server, *prometheus.Registry) {
	t.Helper()
	cfg := query.DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	registry := prometheus.NewRegistry()
	s, err := query.New(cfg, query.Deps{Store: m, Registerer: registry, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return s, registry
}

// track asks for a track until it is complete, each call broken off behind some parts
// (0: none is), and returns all fixes.
func track(t *testing.T, s *query.Server, who *auth.Caller, req *starlingv1.GetTrackRequest, breakAt int) (fixes []*starlingv1.TrackFix) {
	t.Helper()
	req = proto.Clone(req).(*starlingv1.GetTrackRequest)
	for range 1000 {
		out := &stream[starlingv1.GetTrackResponse]{ctx: auth.WithCaller(t.Context(), who), breakAt: breakAt}
		err := s.GetTrack(req, out)
		require.True(t, err == nil || errors.Is(err, errBroken), "%v", err)
		complete := false
		for _, p := range out.parts {
			fixes = append(fixes, p.Fixes...)
			req.ResumeToken, complete = p.ResumeToken, p.Complete
			require.Equal(t, complete, p.ResumeToken == "")
		}
		if complete {
			return fixes
		}
	}
	require.Fail(t, "the track does not end")
	return nil
}

func wholeTrack() *starlingv1.GetTrackRequest {
	return &starlingv1.GetTrackRequest{Name: "vehicles/car", StartTime: at(0), EndTime: at(24 * time.Hour)}
}

func timesOf(fixes []*starlingv1.TrackFix) (ms []int64) {
	for _, f := range fixes {
		ms = append(ms, f.DeviceTime.AsTime().UnixMilli())
	}
	return ms
}

// Wherever a call breaks off, or ends because it has read enough, the calls that go on
// with the tokens bring the same fixes as one that is not disturbed.
func TestATrackThatIsGoneOnWithIsTheSame(t *testing.T) {
	m := &memory{fixes: fixesEverySecond(9000)}
	short := func(c *query.Config) { c.MaxRows = 4096 }
	for name, change := range map[string]func(*starlingv1.GetTrackRequest){
		"all": func(*starlingv1.GetTrackRequest) {},
		"interval": func(r *starlingv1.GetTrackRequest) {
			r.Thinning = &starlingv1.GetTrackRequest_MinInterval{MinInterval: durationpb.New(7 * time.Second)}
		},
		"tolerance": func(r *starlingv1.GetTrackRequest) {
			r.Thinning = &starlingv1.GetTrackRequest_ToleranceM{ToleranceM: 2}
		},
		"coarse": func(r *starlingv1.GetTrackRequest) {
			r.Thinning = &starlingv1.GetTrackRequest_ToleranceM{ToleranceM: 500}
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := wholeTrack()
			change(req)
			s, _ := newServer(t, m)
			want := track(t, s, precise, req, 0)
			require.NotEmpty(t, want)
			times := timesOf(want)
			require.True(t, slices.IsSorted(times))
			limited, _ := newServer(t, m, short)
			for breakAt, s := range []*query.Server{limited, s, limited} {
				require.True(t, slices.Equal(times, timesOf(track(t, s, precise, req, breakAt))), "broken off behind %d parts", breakAt)
			}
		})
	}
}

// Nothing is lost or altered on the way of a fix into its message.
func TestLayers(t *testing.T) {
	m := &memory{fixes: []row.Fix{
		{
			Vehicle: "car", DeviceTimeMS: begin.UnixMilli() + 1, Kind: row.Open, Verdict: starlingv1.Verdict_VERDICT_OUTLIER, Raw: row.Position{LatE7: 1, LonE7: -2}, Corrected: row.Position{LatE7: 3, LonE7: 4}, Display: row.Position{LatE7: 5, LonE7: 6},
			Has: row.HasEstimate | row.HasSpeed | row.HasHeading | row.HasRawSpeed | row.HasRawHeading | row.HasAccuracy | row.HasAltitude | row.HasMocked, RawSpeedCMPS: 101, RawHeadingDDeg: 3599, AccuracyDM: 43, AltitudeDM: -12, Mocked: true, SpeedCMPS: 99, HeadingDDeg: 1,
		},
		{Vehicle: "car", DeviceTimeMS: begin.UnixMilli() + 2, Kind: row.SetAside, Raw: row.Position{LatE7: 7, LonE7: 8}},
	}}
	s, _ := newServer(t, m)
	req := wholeTrack()
	req.Layers = []starlingv1.TrackLayer{starlingv1.TrackLayer_TRACK_LAYER_DISPLAY, starlingv1.TrackLayer_TRACK_LAYER_RAW, starlingv1.TrackLayer_TRACK_LAYER_CORRECTED}
	place := func(lat, lon float64) *starlingv1.Place {
		return &starlingv1.Place{Latitude: lat / 1e7, Longitude: lon / 1e7}
	}
	full := []*starlingv1.TrackFix{
		{
			DeviceTime: at(time.Millisecond), Kind: starlingv1.TrackFixKind_TRACK_FIX_KIND_OPEN, Verdict: starlingv1.Verdict_VERDICT_OUTLIER, Display: place(5, 6),
			Raw:       &starlingv1.ReportedPosition{Place: place(1, -2), SpeedMps: proto.Float64(1.01), HeadingDeg: proto.Float64(359.9), AccuracyM: proto.Float64(4.3), AltitudeM: proto.Float64(-1.2), Mocked: proto.Bool(true)},
			Corrected: &starlingv1.CorrectedPosition{Place: place(3, 4), SpeedMps: proto.Float64(0.99), HeadingDeg: proto.Float64(0.1)},
		},
		{DeviceTime: at(2 * time.Millisecond), Kind: starlingv1.TrackFixKind_TRACK_FIX_KIND_SET_ASIDE, Raw: &starlingv1.ReportedPosition{Place: place(7, 8)}},
	}
	for i, f := range track(t, s, precise, req, 0) {
		require.True(t, proto.Equal(full[i], f), "%v\n%v", full[i], f)
	}
	req.Layers = nil
	bare := track(t, s, precise, req, 0)
	require.Nil(t, bare[0].Raw)
	require.Nil(t, bare[0].Display)
	require.True(t, proto.Equal(full[0].Corrected, bare[0].Corrected))
}

// A fix is left out only if the even way between the fixes that are kept around it
// passes it closely enough, and what is far off is kept.
func TestSimplification(t *testing.T) {
	m := &memory{fixes: fixesEverySecond(5000)}
	s, _ := newServer(t, m)
	vector := func(f *row.Fix) geo.Vec {
		p := f.Shown()
		return geo.Unit(float64(p.LatE7)/1e7, float64(p.LonE7)/1e7)
	}
	for _, toleranceM := range []float64{0.5, 20, 1000} {
		req := wholeTrack()
		req.Thinning = &starlingv1.GetTrackRequest_ToleranceM{ToleranceM: toleranceM}
		kept := timesOf(track(t, s, precise, req, 0))
		require.Less(t, len(kept), 5000)
		is := map[int64]bool{}
		for _, ms := range kept {
			is[ms] = true
		}
		require.Equal(t, m.fixes[0].DeviceTimeMS, kept[0])
		require.Equal(t, m.fixes[4999].DeviceTimeMS, kept[len(kept)-1])
		before := 0
		for i := 1; i < len(m.fixes); i++ {
			if !is[m.fixes[i].DeviceTimeMS] {
				continue
			}
			a, b := vector(&m.fixes[before]), vector(&m.fixes[i])
			for n := before + 1; n < i; n++ {
				share := float64(m.fixes[n].DeviceTimeMS-m.fixes[before].DeviceTimeMS) / float64(m.fixes[i].DeviceTimeMS-m.fixes[before].DeviceTimeMS)
				// Along the great circle, by angles: another way to the same place.
				angle := math.Acos(min(1, a.Dot(b)))
				on := a
				if angle > 1e-12 {
					from, to := math.Sin((1-share)*angle)/math.Sin(angle), math.Sin(share*angle)/math.Sin(angle)
					on = geo.Vec{X: from*a.X + to*b.X, Y: from*a.Y + to*b.Y, Z: from*a.Z + to*b.Z}
				}
				if off := geo.Distance(on, vector(&m.fixes[n])); off > toleranceM+0.5 {
					t.Fatalf("fix %d is left out and %.2f m off, with a tolerance of %v m", n, off, toleranceM)
				}
			}
			before = i
		}
	}
	// A straight line at even speed needs its ends alone; one stop in it shows.
	var even []row.Fix
	for i := range 600 {
		even = append(even, row.Fix{Vehicle: "car", DeviceTimeMS: begin.UnixMilli() + int64(i)*1000, Kind: row.Final, Has: row.HasEstimate, Corrected: row.Position{LatE7: 0, LonE7: int32(i) * 1000}})
	}
	m.fixes = even
	req := wholeTrack()
	req.Thinning = &starlingv1.GetTrackRequest_ToleranceM{ToleranceM: 1}
	require.Len(t, track(t, s, precise, req, 0), 2)
	for i := 300; i < 600; i++ {
		m.fixes[i].DeviceTimeMS += 600_000
	}
	require.Len(t, track(t, s, precise, req, 0), 4)
}

func TestThinningByTime(t *testing.T) {
	m := &memory{fixes: fixesEverySecond(5000)}
	s, _ := newServer(t, m)
	req := wholeTrack()
	req.Thinning = &starlingv1.GetTrackRequest_MinInterval{MinInterval: durationpb.New(10 * time.Second)}
	var want []int64
	for _, f := range m.fixes {
		if len(want) == 0 || f.DeviceTimeMS-want[len(want)-1] >= 10_000 {
			want = append(want, f.DeviceTimeMS)
		}
	}
	require.Equal(t, want, timesOf(track(t, s, precise, req, 0)))
}

// Who lacks the scope sees the centre of the cell and nothing from which more could
// be read.
func TestPositionsAreRounded(t *testing.T) {
	m := &memory{fixes: fixesEverySecond(300)}
	s, registry := newServer(t, m)
	req := wholeTrack()
	req.Layers = []starlingv1.TrackLayer{starlingv1.TrackLayer_TRACK_LAYER_RAW, starlingv1.TrackLayer_TRACK_LAYER_CORRECTED, starlingv1.TrackLayer_TRACK_LAYER_DISPLAY}
	exact, coarse := track(t, s, precise, req, 0), track(t, s, rounded, req, 0)
	require.Len(t, coarse, len(exact))
	places := map[string]bool{}
	same := func(exact, coarse *starlingv1.Place) {
		if exact == nil {
			require.Nil(t, coarse)
			return
		}
		cell, err := h3.At(exact.Latitude, exact.Longitude, 8)
		require.NoError(t, err)
		lat, lon, err := cell.Centre()
		require.NoError(t, err)
		require.InDelta(t, lat, coarse.Latitude, 1e-7)
		require.InDelta(t, lon, coarse.Longitude, 1e-7)
		places[coarse.String()] = true
	}
	for i, f := range coarse {
		same(exact[i].GetRaw().GetPlace(), f.GetRaw().GetPlace())
		same(exact[i].GetCorrected().GetPlace(), f.GetCorrected().GetPlace())
		same(exact[i].GetDisplay(), f.GetDisplay())
		require.Nil(t, f.GetRaw().HeadingDeg)
		require.Nil(t, f.GetRaw().AltitudeM)
		if f.Corrected != nil {
			require.Nil(t, f.Corrected.HeadingDeg)
		}
	}
	require.Greater(t, len(places), 3)

	fine := &starlingv1.GetCellStatsRequest{Period: starlingv1.StatsPeriod_STATS_PERIOD_MINUTE, StartTime: at(0), EndTime: at(time.Hour)}
	require.Equal(t, "PRECISION_NOT_PERMITTED", rpcstatus.ReasonOf(s.GetCellStats(fine, &stream[starlingv1.GetCellStatsResponse]{ctx: auth.WithCaller(t.Context(), rounded)})))
	for _, visits := range []*starlingv1.FindVisitsRequest{
		{StartTime: at(0), EndTime: at(time.Hour), H3Cells: []string{"891e15b7187ffff"}}, // resolution 9
		{StartTime: at(0), EndTime: at(time.Hour), Polygon: triangle()},
	} {
		require.Equal(t, "PRECISION_NOT_PERMITTED", rpcstatus.ReasonOf(s.FindVisits(visits, &stream[starlingv1.FindVisitsResponse]{ctx: auth.WithCaller(t.Context(), rounded)})))
		require.NoError(t, s.FindVisits(visits, &stream[starlingv1.FindVisitsResponse]{ctx: auth.WithCaller(t.Context(), precise)}))
	}
	require.Equal(t, 3.0, refusals(t, registry, "PRECISION_NOT_PERMITTED"))
}

func triangle() *starlingv1.MapPolygon {
	return &starlingv1.MapPolygon{Vertices: []*starlingv1.Place{{Latitude: 1, Longitude: 1}, {Latitude: 2, Longitude: 1}, {Latitude: 2, Longitude: 2}}}
}

func refusals(t *testing.T, registry *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "starling_history_query_refusals_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	require.Fail(t, "no such reason", reason)
	return 0
}

// Statistics and visits go on where they broke off, too.
func TestStatisticsAndVisitsAreGoneOnWith(t *testing.T) {
	m := &memory{}
	for i := range 5000 {
		m.stats = append(m.stats, store.CellStat{Cell: h3.Cell(0x871e15b70ffffff + uint64(i%1700)), StartMS: begin.Add(time.Duration(i/1700) * time.Hour).UnixMilli(), Fixes: int64(i), Speeds: int64(i % 2), MeanSpeedCMPS: 250})
		m.visits = append(m.visits, store.Visit{Vehicle: fmt.Sprintf("car-%05d", i), FirstMS: begin.UnixMilli() + int64(i), LastMS: begin.UnixMilli() + 2*int64(i), Fixes: int64(i)})
	}
	for _, maxRows := range []int{4096, 1_000_000} {
		s, registry := newServer(t, m, func(c *query.Config) { c.MaxRows = maxRows })
		for breakAt := range 3 {
			cells := &starlingv1.GetCellStatsRequest{Period: starlingv1.StatsPeriod_STATS_PERIOD_HOUR, StartTime: at(0), EndTime: at(5 * time.Hour)}
			n := 0
			for complete := false; !complete; {
				out := &stream[starlingv1.GetCellStatsResponse]{ctx: auth.WithCaller(t.Context(), rounded), breakAt: breakAt}
				err := s.GetCellStats(cells, out)
				require.True(t, err == nil || errors.Is(err, errBroken), "%v", err)
				for _, p := range out.parts {
					for _, c := range p.Cells {
						if c.FixCount != int64(n) || (c.MeanSpeedMps != nil) != (n%2 == 1) {
							t.Fatalf("entry %d: %v", n, c)
						}
						n++
					}
					cells.ResumeToken, complete = p.ResumeToken, p.Complete
				}
			}
			require.Equal(t, 5000, n)
			visits := &starlingv1.FindVisitsRequest{StartTime: at(0), EndTime: at(time.Hour), H3Cells: []string{"871e15b70ffffff"}}
			n = 0
			for complete := false; !complete; {
				out := &stream[starlingv1.FindVisitsResponse]{ctx: auth.WithCaller(t.Context(), rounded), breakAt: breakAt}
				err := s.FindVisits(visits, out)
				require.True(t, err == nil || errors.Is(err, errBroken), "%v", err)
				for _, p := range out.parts {
					for _, v := range p.Visits {
						if v.Name != fmt.Sprintf("vehicles/car-%05d", n) || v.LastTime.AsTime().UnixMilli() != begin.UnixMilli()+2*int64(n) {
							t.Fatalf("entry %d: %v", n, v)
						}
						n++
					}
					visits.ResumeToken, complete = p.ResumeToken, p.Complete
				}
			}
			require.Equal(t, 5000, n)
		}
		require.Zero(t, testutil.CollectAndCount(registry, "starling_history_query_open")-1)
	}
}

func TestRefusals(t *testing.T) {
	m := &memory{fixes: fixesEverySecond(2500)}
	s, _ := newServer(t, m)
	bad := func(change func(*starlingv1.GetTrackRequest)) *starlingv1.GetTrackRequest {
		r := wholeTrack()
		change(r)
		return r
	}
	out := &stream[starlingv1.GetTrackResponse]{ctx: auth.WithCaller(t.Context(), precise)}
	require.NoError(t, s.GetTrack(wholeTrack(), out))
	token := out.parts[0].ResumeToken
	require.NotEmpty(t, token)
	for want, req := range map[string]*starlingv1.GetTrackRequest{
		`name: is "car": must be vehicles/{vehicle_id}`:                      bad(func(r *starlingv1.GetTrackRequest) { r.Name = "car" }),
		"start_time: is missing":                                             bad(func(r *starlingv1.GetTrackRequest) { r.StartTime = nil }),
		"end_time: is missing":                                               bad(func(r *starlingv1.GetTrackRequest) { r.EndTime = nil }),
		`end_time: is "2026-03-01T07:00:00Z": must be after start_time`:      bad(func(r *starlingv1.GetTrackRequest) { r.EndTime = at(0) }),
		"must be at most 744h0m0s after start_time":                          bad(func(r *starlingv1.GetTrackRequest) { r.EndTime = at(32 * 24 * time.Hour) }),
		`start_time: is "1969-12-31T23:59:59Z": must be a time of the years`: bad(func(r *starlingv1.GetTrackRequest) { r.StartTime = &timestamppb.Timestamp{Seconds: -1} }),
		"in whole milliseconds":                                              bad(func(r *starlingv1.GetTrackRequest) { r.EndTime.Nanos = 1 }),
		"layers[0]: is 9":                                                    bad(func(r *starlingv1.GetTrackRequest) { r.Layers = []starlingv1.TrackLayer{9} }),
		`layers[1]: is "TRACK_LAYER_RAW": must be there once`:                bad(func(r *starlingv1.GetTrackRequest) { r.Layers = []starlingv1.TrackLayer{1, 1} }),
		"layers: has 4 entries":                                              bad(func(r *starlingv1.GetTrackRequest) { r.Layers = []starlingv1.TrackLayer{1, 2, 3, 1} }),
		"min_interval: is 0s": bad(func(r *starlingv1.GetTrackRequest) {
			r.Thinning = &starlingv1.GetTrackRequest_MinInterval{MinInterval: durationpb.New(0)}
		}),
		"min_interval: is 25h: must": bad(func(r *starlingv1.GetTrackRequest) {
			r.Thinning = &starlingv1.GetTrackRequest_MinInterval{MinInterval: durationpb.New(25 * time.Hour)}
		}),
		"tolerance_m: is NaN": bad(func(r *starlingv1.GetTrackRequest) {
			r.Thinning = &starlingv1.GetTrackRequest_ToleranceM{ToleranceM: math.NaN()}
		}),
		"tolerance_m: is 0":    bad(func(r *starlingv1.GetTrackRequest) { r.Thinning = &starlingv1.GetTrackRequest_ToleranceM{} }),
		`resume_token: is "x"`: bad(func(r *starlingv1.GetTrackRequest) { r.ResumeToken = "x" }),
		"the token of a part of the answer to the same request": bad(func(r *starlingv1.GetTrackRequest) { r.ResumeToken, r.Name = token, "vehicles/other" }),
	} {
		err := s.GetTrack(req, &stream[starlingv1.GetTrackResponse]{ctx: auth.WithCaller(t.Context(), precise)})
		require.Equal(t, codes.InvalidArgument, status.Code(err), want)
		require.Contains(t, err.Error(), want)
	}
	for want, req := range map[string]*starlingv1.FindVisitsRequest{
		"h3_cells: is missing: must be cells, or a polygon, not both": {StartTime: at(0), EndTime: at(time.Hour)},
		"not both": {StartTime: at(0), EndTime: at(time.Hour), H3Cells: []string{"871e15b70ffffff"}, Polygon: triangle()},
		`h3_cells[0]: is "zz": must be an H3 cell`:     {StartTime: at(0), EndTime: at(time.Hour), H3Cells: []string{"zz"}},
		"polygon.vertices: has 2 entries":              {StartTime: at(0), EndTime: at(time.Hour), Polygon: &starlingv1.MapPolygon{Vertices: triangle().Vertices[:2]}},
		"polygon.vertices: has 1001 entries":           {StartTime: at(0), EndTime: at(time.Hour), Polygon: &starlingv1.MapPolygon{Vertices: make([]*starlingv1.Place, 1001)}},
		"polygon.vertices[1].latitude: is 91: must be": {StartTime: at(0), EndTime: at(time.Hour), Polygon: &starlingv1.MapPolygon{Vertices: []*starlingv1.Place{{}, {Latitude: 91}, {}}}},
		"polygon.vertices[2]: is missing":              {StartTime: at(0), EndTime: at(time.Hour), Polygon: &starlingv1.MapPolygon{Vertices: []*starlingv1.Place{{}, {}, nil}}},
	} {
		err := s.FindVisits(req, &stream[starlingv1.FindVisitsResponse]{ctx: auth.WithCaller(t.Context(), precise)})
		require.Equal(t, codes.InvalidArgument, status.Code(err), want)
		require.Contains(t, err.Error(), want)
	}
	for want, req := range map[string]*starlingv1.GetCellStatsRequest{
		"period: is 0":                             {StartTime: at(0), EndTime: at(time.Hour)},
		"within_h3_cells: has 1001 entries":        {Period: 1, StartTime: at(0), EndTime: at(time.Hour), WithinH3Cells: make([]string, 1001)},
		"must be of a resolution of at most 7":     {Period: 1, StartTime: at(0), EndTime: at(time.Hour), WithinH3Cells: []string{"891e15b7187ffff"}},
		"the token of a part of the answer to the": {Period: 1, StartTime: at(0), EndTime: at(time.Hour), ResumeToken: token},
	} {
		err := s.GetCellStats(req, &stream[starlingv1.GetCellStatsResponse]{ctx: auth.WithCaller(t.Context(), precise)})
		require.Equal(t, codes.InvalidArgument, status.Code(err), want)
		require.Contains(t, err.Error(), want)
	}
}

// What is known of a fix is told, as precisely as its caller may see it.
func TestExplainFix(t *testing.T) {
	m := &memory{}
	s, _ := newServer(t, m)
	ask := func(who *auth.Caller) (*starlingv1.ExplainFixResponse, error) {
		return s.ExplainFix(auth.WithCaller(t.Context(), who), &starlingv1.ExplainFixRequest{Name: "vehicles/car", DeviceTime: at(time.Second)})
	}
	_, err := ask(precise)
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Equal(t, "FIX_NOT_FOUND", rpcstatus.ReasonOf(err))
	m.known = store.Explanation{Found: true, Fix: fixesEverySecond(2)[1], Arrivals: []row.Arrival{
		{Epoch: 1, Offset: 7, Session: 1 << 63, Sequence: 3},
		{Epoch: 1, Offset: 9, Session: 5, Sequence: 1, Rule: starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT, Reported: row.Reported{Position: row.Position{LatE7: 482000000, LonE7: 163700000}, Has: row.HasRawHeading, HeadingDDeg: 10}},
	}}
	exact, err := ask(precise)
	require.NoError(t, err)
	require.NotNil(t, exact.Fix.Raw)
	require.NotNil(t, exact.Fix.Corrected)
	require.NotNil(t, exact.Fix.Display)
	require.True(t, proto.Equal(&starlingv1.FixArrival{Epoch: 1, Offset: 7, SessionId: 1 << 63, Sequence: 3}, exact.Arrivals[0]))
	require.Equal(t, 48.2, exact.Arrivals[1].Reported.Place.Latitude)
	require.Equal(t, 1.0, exact.Arrivals[1].Reported.GetHeadingDeg())
	coarse, err := ask(rounded)
	require.NoError(t, err)
	require.NotEqual(t, 48.2, coarse.Arrivals[1].Reported.Place.Latitude)
	require.Nil(t, coarse.Arrivals[1].Reported.HeadingDeg)
	require.Nil(t, coarse.Fix.Corrected.HeadingDeg)
	_, err = s.ExplainFix(auth.WithCaller(t.Context(), precise), &starlingv1.ExplainFixRequest{Name: "car"})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

// A caller has its share of the calls that may read, and all together a bound.
func TestCallsAtATime(t *testing.T) {
	free := make(chan struct{})
	m := &memory{wait: free, fixes: fixesEverySecond(3)}
	s, registry := newServer(t, m, func(c *query.Config) { c.MaxScans, c.MaxCallerScans = 3, 2 })
	ended := make(chan error, 3)
	ask := func(who *auth.Caller) error {
		return s.GetTrack(wholeTrack(), &stream[starlingv1.GetTrackResponse]{ctx: auth.WithCaller(t.Context(), who)})
	}
	open := func(who *auth.Caller, n int) {
		t.Helper()
		go func() { ended <- ask(who) }()
		require.Eventually(t, func() bool { return gauge(t, registry) == float64(n) }, 10*time.Second, time.Millisecond)
	}
	open(precise, 1)
	open(precise, 2)
	err := ask(precise)
	require.Equal(t, "TOO_MANY_SCANS", rpcstatus.ReasonOf(err))
	require.Contains(t, err.Error(), "this caller has as many")
	open(rounded, 3)
	err = ask(&auth.Caller{Issuer: "i", Subject: "third", Scopes: auth.HistoryRead})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Contains(t, err.Error(), "as many calls read history as may")
	close(free)
	for range 3 {
		require.NoError(t, <-ended)
	}
	require.Zero(t, gauge(t, registry))
	require.NoError(t, ask(precise))
	require.Equal(t, 2.0, refusals(t, registry, "TOO_MANY_SCANS"))
}

func gauge(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "starling_history_query_open" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

func TestAStoreThatFailsAndTimeThatIsOver(t *testing.T) {
	m := &memory{fail: errors.New("dial tcp 10.0.0.7:9000: refused")}
	s, _ := newServer(t, m, func(c *query.Config) { c.CallTimeout = time.Second })
	err := s.GetTrack(wholeTrack(), &stream[starlingv1.GetTrackResponse]{ctx: auth.WithCaller(t.Context(), precise)})
	require.Equal(t, "STORE_UNAVAILABLE", rpcstatus.ReasonOf(err))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.NotContains(t, err.Error(), "10.0.0.7", "where the store is, is nobody's business")

	m.fail, m.wait = nil, make(chan struct{})
	err = s.GetTrack(wholeTrack(), &stream[starlingv1.GetTrackResponse]{ctx: auth.WithCaller(t.Context(), precise)})
	require.Equal(t, "CALL_TOO_LONG", rpcstatus.ReasonOf(err))
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))

	gone, cancel := context.WithCancel(auth.WithCaller(t.Context(), precise))
	cancel()
	require.Equal(t, codes.Canceled, status.Code(s.GetTrack(wholeTrack(), &stream[starlingv1.GetTrackResponse]{ctx: gone})))
}

// FuzzHistoryCalls sends any bytes as the request of any call, by callers of every
// kind: what comes back is an answer or names what is wrong.
func FuzzHistoryCalls(f *testing.F) {
	m := &memory{fixes: fixesEverySecond(3000), visits: []store.Visit{{Vehicle: "car", Fixes: 1}}, stats: []store.CellStat{{Cell: 0x871e15b70ffffff, StartMS: begin.UnixMilli(), Fixes: 1}}}
	s, _ := newServer(f, m, func(c *query.Config) { c.MaxRows = 4096 })
	ended := func(err error) codes.Code { return status.Code(err) }
	calls := []func(context.Context, []byte) codes.Code{
		func(ctx context.Context, b []byte) codes.Code {
			req := &starlingv1.GetTrackRequest{}
			_ = proto.Unmarshal(b, req) // what can be read of it is asked for
			return ended(s.GetTrack(req, &stream[starlingv1.GetTrackResponse]{ctx: ctx}))
		},
		func(ctx context.Context, b []byte) codes.Code {
			req := &starlingv1.GetCellStatsRequest{}
			_ = proto.Unmarshal(b, req)
			return ended(s.GetCellStats(req, &stream[starlingv1.GetCellStatsResponse]{ctx: ctx}))
		},
		func(ctx context.Context, b []byte) codes.Code {
			req := &starlingv1.FindVisitsRequest{}
			_ = proto.Unmarshal(b, req)
			return ended(s.FindVisits(req, &stream[starlingv1.FindVisitsResponse]{ctx: ctx}))
		},
		func(ctx context.Context, b []byte) codes.Code {
			req := &starlingv1.ExplainFixRequest{}
			_ = proto.Unmarshal(b, req)
			_, err := s.ExplainFix(ctx, req)
			return ended(err)
		},
	}
	out := &stream[starlingv1.GetTrackResponse]{ctx: auth.WithCaller(context.Background(), precise)}
	if err := s.GetTrack(wholeTrack(), out); err != nil {
		f.Fatal(err)
	}
	resumed, thin := wholeTrack(), wholeTrack()
	resumed.ResumeToken = out.parts[0].ResumeToken
	thin.Thinning = &starlingv1.GetTrackRequest_ToleranceM{ToleranceM: 3}
	for i, req := range []proto.Message{
		resumed, &starlingv1.GetCellStatsRequest{Period: 1, StartTime: at(0), EndTime: at(time.Hour), WithinH3Cells: []string{"871e15b70ffffff"}},
		&starlingv1.FindVisitsRequest{StartTime: at(0), EndTime: at(time.Hour), Polygon: triangle()}, &starlingv1.ExplainFixRequest{Name: "vehicles/car", DeviceTime: at(time.Second)}, thin,
	} {
		b, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), byte(i), b)
	}
	callers := []*auth.Caller{precise, rounded, {}}
	f.Fuzz(func(t *testing.T, which, who byte, b []byte) {
		ctx := auth.WithCaller(context.Background(), callers[int(who)%len(callers)])
		switch code := calls[int(which)%len(calls)](ctx, b); code {
		case codes.OK, codes.InvalidArgument, codes.PermissionDenied, codes.NotFound:
		default:
			t.Fatal(code)
		}
	})
}
