package replay_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/internal/replay"
	pb "github.com/starling-fleet/starling/schemas/starlingv1"
)

const header = "vehicle_id,unix_ms,lat,lon,accuracy_m,speed_mps,heading_deg\n"

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	data := []byte(content)
	if strings.HasSuffix(name, ".gz") {
		var buf bytes.Buffer
		zw := gzip.NewWriter(&buf)
		_, err := zw.Write(data)
		require.NoError(t, err)
		require.NoError(t, zw.Close())
		data = buf.Bytes()
	}
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

func serve(t *testing.T, s *fleettest.Server) *grpc.ClientConn {
	t.Helper()
	conn, stop, err := s.Start()
	require.NoError(t, err)
	t.Cleanup(stop)
	return conn
}

func options(conn *grpc.ClientConn, paths ...string) replay.Options {
	o := replay.DefaultOptions()
	o.Ingest, o.Paths = conn, paths
	return o
}

// mixed has every class of row: 6 new, 2 duplicates, 1 conflict, 1 late, 2
// refused, 5 unreadable.
const mixed = header +
	"a,1000000,30.1,-97.1,5,1.5,90\n" +
	"a,1001000,30.2,-97.1,,,\n" +
	"a,1001000,30.2,-97.1,,,\n" + // duplicate, next to its original
	"b,1001000,30.3,-97.2,,0,0\n" +
	"a,1002000,0,0,,,\n" + // refused
	"a,1002000,NaN,1,,,\n" + // refused
	"a,1090000,30.4,-97.1,,,\n" +
	"a,1000000,30.1,-97.1,5,1.5,90\n" + // duplicate, long after
	"a,1000000,30.1,-97.1,6,1.5,90\n" + // conflict
	"a,1000500,30.1,-97.1,,,\n" + // late
	"b,1100000,30.3,-97.2,,,\n" +
	"c,1100000,30.3,-97.3,,,\n" +
	"bad id,1100000,30.3,-97.2,,,\n" +
	"b,noon,30.3,-97.2,,,\n" +
	"b,1100000,north,-97.2,,,\n" +
	"b,1100000,30.3,-97.2,,fast,\n" +
	"b,1100000,30.3\n"

func TestAccountHasEveryRowInOneClass(t *testing.T) {
	for _, batch := range []int{1, 2, 10} {
		for _, gz := range []string{"", ".gz"} {
			t.Run(fmt.Sprintf("batch %d%s", batch, gz), func(t *testing.T) {
				s := &fleettest.Server{WindowMS: 30_000, ConsumeDelay: 50 * time.Millisecond}
				o := options(serve(t, s), write(t, t.TempDir(), "x.csv"+gz, mixed))
				o.BatchSize = batch
				var calls []replay.Progress
				o.Progress = func(p replay.Progress) { calls = append(calls, p) }
				a, err := replay.Run(t.Context(), o)
				require.NoError(t, err)
				require.NoError(t, a.Check())
				require.EqualValues(t, 17, a.Rows)
				require.Equal(t, 3, a.Vehicles)
				require.EqualValues(t, 6, a.Accepted, a)
				require.EqualValues(t, 2, a.Duplicates)
				require.EqualValues(t, 1, a.Conflicts)
				require.EqualValues(t, 1, a.Late)
				require.Equal(t, map[string]int64{"null_island": 1, "coordinate_not_finite": 1}, a.Refused)
				require.Equal(t, map[string]int64{"vehicle_id": 1, "unix_ms": 1, "lat": 1, "speed_mps": 1, "number of columns": 1}, a.Unreadable)
				last := calls[len(calls)-1]
				require.True(t, last.Settling)
				require.EqualValues(t, 12, last.Rows)
				require.EqualValues(t, 10, last.Consumed)
				require.Contains(t, a.String(), "refused: null_island")
			})
		}
	}
}

func TestAbsentCellsStayAbsent(t *testing.T) {
	s := &fleettest.Server{}
	_, err := replay.Run(t.Context(), options(serve(t, s), write(t, t.TempDir(), "x.csv",
		"lon,lat,unix_ms,vehicle_id,speed_mps,heading_deg,note\n2,1,5000,v,0,,hello\n")))
	require.NoError(t, err)
	require.Len(t, s.Reports, 1)
	f := s.Reports[0].Report.GetFixes()[0]
	require.Equal(t, 1.0, f.GetLatitude())
	require.Equal(t, 2.0, f.GetLongitude())
	require.NotNil(t, f.SpeedMps)
	require.Zero(t, f.GetSpeedMps())
	require.Nil(t, f.HeadingDeg)
	require.Nil(t, f.AccuracyM)
}

func TestTimesAreMovedToNowUnlessAsRecorded(t *testing.T) {
	dir := t.TempDir()
	one := write(t, dir, "one.csv", header+"a,1000,1,1,,,\na,3500,1,1,,,\nb,2000,1,1,,,\n")
	two := write(t, dir, "two.csv", header+"c,900000000,1,1,,,\n")
	newest := func(asRecorded bool) (map[string]int64, time.Time) {
		s := &fleettest.Server{}
		o := options(serve(t, s), one, two)
		o.AsRecorded = asRecorded
		a, err := replay.Run(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, a.Check())
		require.Contains(t, s.Vehicle("a").Fixes, s.Vehicle("a").Newest-2500, "intervals are kept")
		return map[string]int64{"a": s.Vehicle("a").Newest, "b": s.Vehicle("b").Newest, "c": s.Vehicle("c").Newest}, time.Now()
	}
	got, _ := newest(true)
	require.Equal(t, map[string]int64{"a": 3500, "b": 2000, "c": 900000000}, got)
	got, now := newest(false)
	require.InDelta(t, now.UnixMilli(), got["a"], 5000)
	require.Equal(t, got["a"], got["c"], "each file ends now")
	require.Equal(t, got["a"]-1500, got["b"])
}

func TestLongSilencesAreShortened(t *testing.T) {
	path := write(t, t.TempDir(), "x.csv", header+
		"a,1000,1,1,,,\nb,5000,1,1,,,\na,900000,1,1,,,\nb,905000,1,1,,,\na,2000000,1,1,,,\nb,903000,1,1,,,\n")
	s := &fleettest.Server{}
	o := options(serve(t, s), path)
	o.MaxGap = time.Minute
	a, err := replay.Run(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, a.Check())
	require.Equal(t, 1870*time.Second, a.Shortened)
	end := s.Vehicle("a").Newest
	for vehicle, want := range map[string][]int64{"a": {0, -65_000, -129_000}, "b": {-60_000, -62_000, -125_000}} {
		require.Len(t, s.Vehicle(vehicle).Fixes, 3)
		for _, ms := range want {
			require.Contains(t, s.Vehicle(vehicle).Fixes, end+ms, vehicle)
		}
	}
}

func TestPacedPlayback(t *testing.T) {
	path := write(t, t.TempDir(), "x.csv", header+
		// Vehicle by vehicle, as deliveries are recorded; b has one out of order.
		"a,100000,1,1,,,\na,110000,1,1,,,\na,160000,1,1,,,\n"+
		"b,100000,2,2,,,\nb,130000,2,2,,,\nb,120000,2,2,,,\nb,160000,2,2,,,\n")
	synctest.Test(t, func(t *testing.T) {
		s := &fleettest.Server{}
		o := options(serve(t, s), path)
		o.Speedup = 2
		begun := time.Now()
		a, err := replay.Run(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, a.Check())
		end := begun.Add(30 * time.Second) // 60 s at twice the speed
		var got []string
		for _, r := range s.Reports {
			for _, f := range r.Report.GetFixes() {
				due := begun.Add(time.Duration(f.GetDeviceTimeMs()-end.UnixMilli()+60_000) * time.Millisecond / 2)
				waited := r.At.Sub(due)
				require.GreaterOrEqual(t, waited, -time.Millisecond)
				require.Less(t, waited, 7*time.Second, "out of order by 10 s at twice the speed, and MaxWait")
				require.LessOrEqual(t, f.GetDeviceTimeMs(), r.At.UnixMilli())
				got = append(got, fmt.Sprintf("%s%d", r.Report.GetVehicleId(), 160+(f.GetDeviceTimeMs()-end.UnixMilli())/1000))
			}
		}
		require.Equal(t, []string{"a100", "b100", "a110", "b130", "b120", "a160", "b160"}, got)
	})
}

func TestBrokenStreamsStillClose(t *testing.T) {
	var rows strings.Builder
	rows.WriteString(header)
	for i := range 3000 {
		fmt.Fprintf(&rows, "v%d,%d,1,%d,,,\n", i%100, 1000*(i/100), i%7)
	}
	path := write(t, t.TempDir(), "x.csv", rows.String())
	synctest.Test(t, func(t *testing.T) {
		s := &fleettest.Server{BreakEvery: 37, ConsumeDelay: 3 * time.Second}
		o := options(serve(t, s), path)
		o.BatchSize = 3
		a, err := replay.Run(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, a.Check())
		require.EqualValues(t, 3000, a.Accepted)
		require.Positive(t, a.BrokenStreams)
		require.Positive(t, a.Copies, "some reports were stored before the stream broke")
		require.LessOrEqual(t, a.Copies, a.Resent)
	})
}

func TestNotSettledIsSaid(t *testing.T) {
	path := write(t, t.TempDir(), "x.csv", mixed)
	synctest.Test(t, func(t *testing.T) {
		s := &fleettest.Server{ConsumeDelay: -1}
		a, err := replay.Run(t.Context(), options(serve(t, s), path))
		require.NoError(t, err)
		require.False(t, a.Settled)
		require.ErrorContains(t, a.Check(), "not settled yet: ingest acknowledged 10 good fixes, the fleet shows 0")
	})
}

func TestSecondPlaybackIsAllDuplicates(t *testing.T) {
	conn := serve(t, &fleettest.Server{})
	o := options(conn, write(t, t.TempDir(), "x.csv", header+"a,1000,1,1,,,\na,2000,1,1,,,\n"))
	o.AsRecorded = true
	for _, duplicates := range []int64{0, 2} {
		a, err := replay.Run(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, a.Check())
		require.Equal(t, duplicates, a.Duplicates)
	}
	o.VehiclePrefix = "other-"
	a, err := replay.Run(t.Context(), o)
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Accepted)
}

func TestFolderLeavesOutTruthAndLabels(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.csv", header+"a,1000,1,1,,,\n")
	write(t, dir, "b.csv.gz", header+"b,1000,1,1,,,\n")
	write(t, dir, "a.truth.csv.gz", "unix_ms,lat,lon\n1,1,1\n")
	write(t, dir, "a_labels.csv", "vehicle_id,unix_ms,label\n")
	write(t, dir, "README.md", "no recording")
	for _, paths := range [][]string{{dir}, {filepath.Join(dir, "*.csv*")}} {
		a, err := replay.Run(t.Context(), options(serve(t, &fleettest.Server{}), paths...))
		require.NoError(t, err)
		require.Len(t, a.Files, 2)
		require.Len(t, a.SkippedFiles, 2)
		require.EqualValues(t, 2, a.Accepted)
	}
}

func TestUnusableInputIsNamed(t *testing.T) {
	dir := t.TempDir()
	conn := serve(t, &fleettest.Server{})
	truncated := write(t, dir, "truncated.csv.gz", mixed)
	whole, err := os.ReadFile(truncated)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(truncated, whole[:len(whole)/2], 0o600))
	for want, paths := range map[string][]string{
		"lacks the columns [lat vehicle_id]": {write(t, dir, "x.csv", "id,unix_ms,latitude,lon\n")},
		"missing.csv":                        {filepath.Join(dir, "missing.csv")},
		"no CSV file":                        {t.TempDir()},
		"unexpected EOF":                     {truncated},
		"header":                             {write(t, dir, "empty.csv", "")},
		"paths":                              nil,
	} {
		_, err := replay.Run(t.Context(), options(conn, paths...))
		require.ErrorContains(t, err, want)
	}
	_, err = replay.Run(t.Context(), replay.Options{Speedup: 0.5, MaxGap: 1, AsRecorded: true})
	for _, field := range []string{"paths", "max_gap", "ingest", "speedup", "batch_size", "max_wait", "settle_timeout", "progress_every"} {
		require.ErrorContains(t, err, field)
	}
}

func TestCancelledPlaybackSaysHowFarItCame(t *testing.T) {
	path := write(t, t.TempDir(), "x.csv", header+"a,1000,1,1,,,\na,100000,1,1,,,\n")
	synctest.Test(t, func(t *testing.T) {
		o := options(serve(t, &fleettest.Server{}), path)
		o.Speedup, o.BatchSize = 1, 1
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		a, err := replay.Run(ctx, o)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, a.Acknowledged)
		require.EqualValues(t, 1, a.Unacknowledged)
	})
}

func TestVerify(t *testing.T) {
	var rows strings.Builder
	rows.WriteString(header)
	for i := range 250 {
		fmt.Fprintf(&rows, "v%d,1000,%v,%v,,,\n", i, 48+float64(i%50)/1000, 11+float64(i%20)/500) // some on one spot
	}
	path := write(t, t.TempDir(), "x.csv", rows.String())
	s := &fleettest.Server{}
	conn := serve(t, s)
	_, err := replay.Run(t.Context(), options(conn, path))
	require.NoError(t, err)
	o := replay.DefaultVerifyOptions()
	o.Fleet, o.Places = conn, 200
	v, err := replay.Verify(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 250, v.Vehicles)
	require.Equal(t, 200, v.Places)
	require.Greater(t, v.Results, int64(1000))

	s.Swap = true
	_, err = replay.Verify(t.Context(), o)
	require.ErrorContains(t, err, "result 0 at")
}

// The real fleet, against the model: every row must come through and be counted.
func TestCapMetro(t *testing.T) {
	dir := os.Getenv("STARLING_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(dir, "fleet", "capmetro.csv.gz")
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no recording at %s: set STARLING_DATA", path)
	}
	s := &fleettest.Server{}
	o := options(serve(t, s), path)
	o.BatchSize = 50
	a, err := replay.Run(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, a.Check())
	require.EqualValues(t, 598_079, a.Rows)
	require.Equal(t, 484, a.Vehicles)
	require.Positive(t, a.Duplicates)
	require.Equal(t, map[string]int64{"null_island": 80}, a.Refused)
	require.Empty(t, a.Unreadable)
	require.Equal(t, 484, len(distinct(s.Reports)))
	t.Log("\n" + a.String())
}

func distinct(reports []fleettest.Report) map[string]bool {
	ids := map[string]bool{}
	for _, r := range reports {
		ids[r.Report.GetVehicleId()] = true
	}
	return ids
}

var _ pb.FleetServiceServer = (*fleettest.Server)(nil)
