package fleetsim_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/fleetsim"
	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func fleet(t *testing.T, change func(*fleetsim.Config)) *fleetsim.Fleet {
	t.Helper()
	cfg := fleetsim.DefaultConfig()
	cfg.Vehicles = 30
	if change != nil {
		change(&cfg)
	}
	f, err := fleetsim.NewFleet(cfg, start)
	require.NoError(t, err)
	return f
}

func distanceM(lat1, lon1, lat2, lon2 float64) float64 {
	const perDegree = 6371008.8 * math.Pi / 180
	return perDegree * math.Hypot(lat2-lat1, math.Remainder(lon2-lon1, 360)*math.Cos(lat1*math.Pi/180))
}

func TestSameSeedSameFleet(t *testing.T) {
	// The second is advanced in other steps, which must make no difference.
	a, b, other := fleet(t, nil), fleet(t, nil), fleet(t, func(c *fleetsim.Config) { c.Seed = 2 })
	one := a.Advance(start.Add(10 * time.Minute))
	var two []fleetsim.Transmission
	for at := start; at.Before(start.Add(10 * time.Minute)); {
		at = at.Add(730 * time.Millisecond)
		if at.After(start.Add(10 * time.Minute)) {
			at = start.Add(10 * time.Minute)
		}
		two = append(two, b.Advance(at)...)
	}
	require.Equal(t, len(one), len(two))
	byReport := map[string]int{}
	for i := range one {
		byReport[one[i].At.String()+one[i].Report.String()]++
		byReport[two[i].At.String()+two[i].Report.String()]--
	}
	for key, n := range byReport {
		require.Zero(t, n, key)
	}
	require.False(t, proto.Equal(one[0].Report, other.Advance(start.Add(10 * time.Minute))[0].Report))
}

func TestVehiclesMoveLikeVehicles(t *testing.T) {
	f := fleet(t, func(c *fleetsim.Config) { c.CentreLatDeg, c.CentreLonDeg, c.RadiusM = -33.9, 179.99, 2000 })
	before := f.States()
	stood, drove, modes := 0, 0, map[starlingv1.Availability]int{}
	travelled := map[string]float64{}
	for at := start; at.Before(start.Add(30 * time.Minute)); {
		at = at.Add(time.Second)
		f.Advance(at)
		now := f.States()
		for id, s := range now {
			d := distanceM(before[id].LatDeg, before[id].LonDeg, s.LatDeg, s.LonDeg)
			require.LessOrEqual(t, d, 15.0, "%s at %v went %v m in a second", id, at, d)
			require.LessOrEqual(t, math.Abs(s.SpeedMPS-before[id].SpeedMPS), 4.5, "metres per second squared")
			require.Less(t, distanceM(-33.9, 179.99, s.LatDeg, s.LonDeg), 2000*1.5+300)
			require.True(t, s.LonDeg >= -180 && s.LonDeg <= 180 && s.HeadingDeg >= 0 && s.HeadingDeg < 360)
			travelled[id] += d
			modes[s.Availability]++
			if s.SpeedMPS < 0.1 {
				stood++
			} else if s.SpeedMPS > 5 {
				drove++
			}
		}
		before = now
	}
	total := 30 * 1800
	require.Greater(t, stood, total/20)
	require.Greater(t, drove, total/4)
	for _, m := range []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_FREE, starlingv1.Availability_AVAILABILITY_RESERVED, starlingv1.Availability_AVAILABILITY_ON_RIDE} {
		require.Greater(t, modes[m], total/30, m.String())
	}
	var km float64
	for _, m := range travelled {
		km += m / 1000
	}
	require.Greater(t, km/30, 2.0, "half an hour of city traffic")
}

func TestReportsAreAsPhonesSendThem(t *testing.T) {
	f := fleet(t, func(c *fleetsim.Config) { c.ResendShare, c.DisorderShare = 0.03, 0.03 })
	sent := f.Advance(start.Add(time.Hour))
	type key struct {
		id      string
		session uint64
		seq     int64
	}
	seen := map[key]*starlingv1.Report{}
	highest := map[key]int64{}
	sessions := map[string]map[uint64]bool{}
	var resends, overtaken, big, headless, far, fixes int
	errorsM := []float64{}
	stated := map[starlingv1.Availability]int{}
	for i, x := range sent {
		r := x.Report
		if i > 0 {
			require.False(t, x.At.Before(sent[i-1].At))
		}
		k := key{r.GetVehicleId(), r.GetSessionId(), r.GetSequence()}
		if x.Resend {
			resends++
			require.True(t, seen[k] != nil && proto.Equal(seen[k], r), "a resend repeats its report")
			continue
		}
		require.Nil(t, seen[k])
		seen[k] = r
		lane := key{id: k.id, session: k.session}
		if r.GetSequence() < highest[lane] {
			overtaken++
		}
		highest[lane] = max(highest[lane], r.GetSequence())
		require.Equal(t, r.GetSequence() == 1, r.GetAttributes() != nil)
		stated[r.GetAvailability()]++
		if sessions[k.id] == nil {
			sessions[k.id] = map[uint64]bool{}
		}
		sessions[k.id][k.session] = true
		if len(r.GetFixes()) > 20 {
			big++
		}
		require.Len(t, x.Truth, len(r.GetFixes()))
		for j, fix := range r.GetFixes() {
			fixes++
			require.False(t, x.Truth[j].Tunnel)
			require.LessOrEqual(t, fix.GetDeviceTimeMs(), x.At.UnixMilli())
			require.Positive(t, fix.GetAccuracyM())
			if fix.HeadingDeg == nil {
				headless++
			}
			off := distanceM(x.Truth[j].LatDeg, x.Truth[j].LonDeg, fix.GetLatitude(), fix.GetLongitude())
			errorsM = append(errorsM, off)
			if off > 80 {
				far++
			}
		}
	}
	for k, n := range highest {
		for seq := range n - 8 { // of the last ones, some may still be overtaken
			require.NotNil(t, seen[key{k.id, k.session, seq + 1}], "%v lacks report %d", k, seq+1)
		}
	}
	require.Greater(t, resends, len(sent)/60)
	require.Positive(t, stated[starlingv1.Availability_AVAILABILITY_BUSY])
	require.Positive(t, stated[starlingv1.Availability_AVAILABILITY_FREE])
	require.Zero(t, stated[starlingv1.Availability_AVAILABILITY_RESERVED]+stated[starlingv1.Availability_AVAILABILITY_ON_RIDE], "ingest refuses them")
	require.Greater(t, overtaken, len(sent)/120)
	require.Positive(t, big)
	require.Positive(t, headless)
	require.Positive(t, far)
	require.Less(t, far, fixes/50)
	var sum float64
	for _, e := range errorsM {
		sum += min(e, 80)
	}
	require.InDelta(t, 5, sum/float64(fixes), 3, "mean error in metres")
	again := 0
	for _, s := range sessions {
		again += len(s) - 1
	}
	require.Positive(t, again, "some driver went off and came back with a new session")
	require.Less(t, fixes, 30*1800, "tunnels and absent drivers leave gaps")
	require.Greater(t, fixes, 30*1800*7/10)
}

func serve(t *testing.T, s *fleettest.Server) *grpc.ClientConn {
	t.Helper()
	conn, stop, err := s.Start()
	require.NoError(t, err)
	t.Cleanup(stop)
	return conn
}

func TestRunInRealTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fleettest.Server{BreakEvery: 500}
		o := fleetsim.DefaultOptions()
		o.Ingest, o.Fleet.Vehicles = serve(t, s), 20
		calls := 0
		o.Progress = func(fleetsim.Progress) { calls++ }
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		p, err := fleetsim.Run(ctx, o)
		require.NoError(t, err)
		require.Zero(t, p.Client.PendingReports)
		require.Equal(t, p.Reports, p.Client.AcknowledgedReports)
		require.Equal(t, p.Fixes, p.Client.AcknowledgedFixes)
		require.Positive(t, p.Client.BrokenStreams)
		require.Greater(t, p.Fixes, int64(600))
		require.InDelta(t, 119, calls, 3)
		require.Equal(t, p.Reports, p.AckLatency.Count)
		for _, r := range s.Reports {
			for _, f := range r.Report.GetFixes() {
				require.LessOrEqual(t, f.GetDeviceTimeMs(), r.At.UnixMilli())
			}
		}
	})
}

func TestRunFlatOut(t *testing.T) {
	s := &fleettest.Server{}
	o := fleetsim.DefaultOptions()
	o.Ingest, o.Fleet.Vehicles, o.FlatOut, o.Duration = serve(t, s), 20, true, 10*time.Minute
	begun := time.Now()
	p, err := fleetsim.Run(t.Context(), o)
	require.NoError(t, err)
	require.Less(t, time.Since(begun), time.Minute)
	require.Equal(t, p.Fixes, p.Client.AcknowledgedFixes)
	require.Zero(t, p.Client.RefusedFixes, "no fix may lie ahead of now")
	require.Greater(t, p.Fixes, int64(20*300*6/10))
}

func TestRunNamesEveryFault(t *testing.T) {
	_, err := fleetsim.Run(t.Context(), fleetsim.Options{FlatOut: true, Fleet: fleetsim.Config{JumpShare: 2}})
	for _, field := range []string{"vehicles", "vehicle_prefix", "radius_m", "period", "jump_share", "max_pending_reports", "ingest", "duration", "progress_every"} {
		require.ErrorContains(t, err, field)
	}
}
