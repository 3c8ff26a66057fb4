package filtereval_test

import (
	"bytes"
	"compress/gzip"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/filtereval"
)

// truthDir returns the folder of drives with truth. Away from the data tests
// say so and skip; in CI they must run.
func truthDir(t testing.TB) string {
	t.Helper()
	data := os.Getenv("STARLING_DATA")
	if data == "" {
		data = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir := filepath.Join(data, "truth")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI needs the drives: %v", err)
		}
		t.Skipf("no drives with truth: %v (set STARLING_DATA)", err)
	}
	return dir
}

// track is a drive north at 10 m/s whose truth is its fixes.
func track(n int) filtereval.Stream {
	s := filtereval.Stream{Name: "test_drive", Kind: "test"}
	for i := range n {
		lat := 48 + 10*float64(i)/111195
		s.Truth = append(s.Truth, filtereval.TruthPoint{TimeMS: int64(i+1) * 1000, LatDeg: lat, LonDeg: 11})
		s.Fixes = append(s.Fixes, gpsfilter.Fix{
			TimeMS: int64(i+1) * 1000, LatDeg: lat, LonDeg: 11, AccuracyM: 5, SpeedMPS: 10,
			Has: gpsfilter.FieldAccuracy | gpsfilter.FieldSpeed | gpsfilter.FieldHeading,
		})
	}
	return s
}

func TestInjectedFaultsAreWhatTheirTagsSay(t *testing.T) {
	fixes := track(2000).Fixes
	byTime := map[int64]gpsfilter.Fix{}
	for _, f := range fixes {
		byTime[f.TimeMS] = f
	}
	got, tags := filtereval.Inject(fixes, filtereval.AllFaults(), 3)
	again, _ := filtereval.Inject(fixes, filtereval.AllFaults(), 3)
	require.Equal(t, got, again, "the same seed gives the same faults")
	other, _ := filtereval.Inject(fixes, filtereval.AllFaults(), 4)
	require.NotEqual(t, got, other)
	require.Len(t, tags, len(got))
	require.Less(t, len(got), len(fixes), "there are gaps")
	count := map[filtereval.Tag]int{}
	dropped := 0
	for i, f := range got {
		count[tags[i]]++
		was := byTime[f.TimeMS]
		off := math.Hypot((f.LatDeg-was.LatDeg)*111195, (f.LonDeg-was.LonDeg)*74400)
		switch tags[i] {
		case filtereval.TagGood:
			require.Zero(t, off)
		case filtereval.TagJump:
			require.InDelta(t, 2525, off, 2525, "jumps are of 50 m to 5 km")
			require.Greater(t, off, 49.0)
		case filtereval.TagBadFirst:
			require.Less(t, i, 3)
			require.Greater(t, off, 190.0)
		case filtereval.TagFrozen:
			require.Equal(t, got[i].LatDeg, f.LatDeg)
		}
		if f.Has != was.Has {
			dropped++
		}
	}
	require.InDelta(t, 40, count[filtereval.TagJump], 25)
	require.Positive(t, count[filtereval.TagFrozen])
	require.Positive(t, dropped)
}

func TestFilterThatIsRightScoresPerfectly(t *testing.T) {
	rows := map[string][]float64{}
	for _, r := range filtereval.Evaluate([]filtereval.Stream{track(300)}, filtereval.Raw).Table() {
		rows[r.What] = r.Values
	}
	require.InDelta(t, 1, rows["path length / truth, clean, faulted"][0], 1e-9)
	require.InDelta(t, 0, rows["heading error moving, degrees, p50 p95"][1], 1e-6)
	require.InDelta(t, 1, rows["truth inside the 95 % ellipse, clean, faulted"][0], 0)
	// It passes every fault through as well.
	require.InDelta(t, 100, rows["jumps still > 100 m off, 1 Hz, 5 s, %"][0], 0)
	require.Greater(t, rows["largest error under faults, m"][0], 1000.0)
}

func TestLoadStream(t *testing.T) {
	const truth = "unix_ms,lat,lon\n2000,48.1,11\n1000,48,11\n"
	load := func(fixes, truth string) (filtereval.Stream, error) {
		return filtereval.LoadStream("gsdc_spp_drive_phone", strings.NewReader(fixes), strings.NewReader(truth))
	}
	s, err := load("vehicle_id,unix_ms,lat,lon,accuracy_m,speed_mps,heading_deg\nv,1000,48,11,,3.5,\n", truth)
	require.NoError(t, err)
	require.Equal(t, []gpsfilter.Fix{{TimeMS: 1000, LatDeg: 48, LonDeg: 11, SpeedMPS: 3.5, Has: gpsfilter.FieldSpeed}}, s.Fixes)
	require.Equal(t, int64(1000), s.Truth[0].TimeMS, "truth is put in order of time")
	require.Equal(t, []string{"gsdc_spp", "drive"}, []string{s.Kind, s.Drive})

	_, err = load("unix_ms,lat,lon\n1000,48,east\n", truth)
	require.ErrorContains(t, err, "fixes of gsdc_spp_drive_phone: line 2: lon")
	_, err = load("unix_ms,lat,lon\n1000,48,11\n", "unix_ms,lat\n")
	require.ErrorContains(t, err, `truth of gsdc_spp_drive_phone: no column "lon"`)
	_, err = filtereval.LoadDir(t.TempDir())
	require.Error(t, err)
}

func TestLoadDriveReadsTruthPackedOrNot(t *testing.T) {
	const fixes, truth = "unix_ms,lat,lon\n1000,48,11\n", "unix_ms,lat,lon\n1000,48,11\n"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte(truth))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	for name, content := range map[string][]byte{"t.csv": []byte(truth), "t.csv.gz": packed.Bytes()} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		s, err := filtereval.LoadDrive("one", strings.NewReader(fixes), path)
		require.NoError(t, err)
		require.Len(t, s.Fixes, 1)
		require.Len(t, s.Truth, 1)
	}
	_, err = filtereval.LoadDrive("one", strings.NewReader(fixes), filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What the filter shows on all drives must not get worse unnoticed.
func TestFilterOnAllDrives(t *testing.T) {
	streams, err := filtereval.LoadDir(truthDir(t))
	require.NoError(t, err)
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	require.NoError(t, err)
	table := filtereval.Evaluate(streams, filtereval.Starling(f)).Table()
	for _, row := range table {
		if row.Guard == nil {
			continue
		}
		for i, v := range row.Values {
			require.LessOrEqual(t, v, row.Guard[i], "%s: %v", row.What, row.Values)
		}
	}
}
