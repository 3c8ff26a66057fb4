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

// dataDir returns a folder of the development data. Away from it tests report it
// and skip; in CI they must run.
func dataDir(t testing.TB, name string) string {
	t.Helper()
	data := os.Getenv("STARLING_DATA")
	if data == "" {
		data = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir := filepath.Join(data, name)
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI needs the drives: %v", err)
		}
		t.Skipf("no development data: %v (set STARLING_DATA)", err)
	}
	return dir
}

func newFilter(t testing.TB) *gpsfilter.Filter {
	t.Helper()
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	require.NoError(t, err)
	return f
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
	for _, r := range filtereval.NewSuite([]filtereval.Stream{track(300)}, 1).Judge(filtereval.Raw).Table() {
		rows[r.What] = r.Reached
	}
	require.InDelta(t, 1, rows["display path to truth, clean, faulted"][0], 1e-9)
	require.InDelta(t, 0, rows["heading moving, degrees, p50 p95"][1], 1e-6)
	require.InDelta(t, 1, rows["truth inside the 95 % ellipse, least and most of a kind"][0], 0)
	// It passes every fault through as well.
	require.Greater(t, rows["largest error under faults, m; the gated filter's"][0], 1000.0)
}

func TestKindsAndFolds(t *testing.T) {
	for name, want := range map[string][2]string{
		"whu_20200807_WH-1-02_HP20":               {"whu_HP20", "WH_20200807_HP20"},
		"urbannavhk_20210517_TST_ublox":           {"urbannavhk_ublox", "HK_20210517_ublox"},
		"gsdc_chipset_2020-05-14-US-MTV-1_Pixel4": {"gsdc_chipset", "2020-05-14-US-MTV-1_chipset"},
		"gsdc_sppwls_2021-04-29-US-SJC-2_phone":   {"gsdc_sppwls", "2021-04-29-US-SJC-2_sppwls"},
		"ppc_rtkref_nagoya_run1":                  {"ppc", "ppc_rtkref_nagoya_run1"},
		"navego_ekinox_turin":                     {"navego", "navego_ekinox_turin"},
	} {
		s, err := filtereval.LoadStream(name, strings.NewReader("unix_ms,lat,lon\n"), strings.NewReader("unix_ms,lat,lon\n"))
		require.NoError(t, err)
		require.Equal(t, want, [2]string{s.Kind, s.Fold}, name)
	}
}

// Every kind of quirk, generated at several periods.
func TestQuirksOfRealDevices(t *testing.T) {
	f := newFilter(t)
	for seed := range uint64(5) {
		siblings := filtereval.Siblings(seed)
		require.Greater(t, len(siblings), 90)
		for i := range siblings {
			require.NoError(t, siblings[i].Check(filtereval.Starling(f)), "seed %d", seed)
		}
	}
}

// The checks can fail: passing fixes through is wrong for many of them.
func TestQuirksAreNotRightByThemselves(t *testing.T) {
	wrong := 0
	for _, q := range filtereval.Siblings(0) {
		if q.Check(filtereval.Raw) != nil {
			wrong++
		}
	}
	require.Greater(t, wrong, 20)
}

func TestQuirksOfTheData(t *testing.T) {
	quirks, err := filtereval.LoadQuirks(dataDir(t, "quirks"))
	require.NoError(t, err)
	f := newFilter(t)
	for i := range quirks {
		require.NoError(t, quirks[i].Check(filtereval.Starling(f)))
	}
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
	require.Equal(t, []string{"gsdc_spp", "drive_spp"}, []string{s.Kind, s.Fold})

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

// What the filter shows on all drives must not get worse unnoticed: the bars
// that it holds.
func TestFilterOnAllDrives(t *testing.T) {
	suite, err := filtereval.LoadSuite(dataDir(t, "truth"), dataDir(t, "drives"))
	require.NoError(t, err)
	held := map[string][]float64{
		"clean, p50 and p95 to raw, all kinds":                  {0.97, 0.88},
		"worst kind, p50 and p95 to raw":                        {1.015, 1.01},
		"streams worse than raw at p50 by more than 1, 5, 10 %": {0.06, 0.01, 0},
		"with a reported velocity, p50 and p95 to raw":          {0.83, 0.80},
		"faulted, p50 and p95 to a gated filter":                {0.92, 0.80},
		"display path to truth, clean, faulted":                 {1.04, 1.45},
		"  without the first 10 s":                              {1.04, 1.07},
		"heading moving, degrees, p50 p95":                      {0.5, 15},
	}
	found := 0
	for _, row := range suite.Judge(filtereval.Starling(newFilter(t))).Table() {
		for i, most := range held[row.What] {
			require.LessOrEqual(t, row.Reached[i], most, "%s: %v", row.What, row.Reached)
			found++
		}
		if strings.HasPrefix(row.What, "accepted") {
			require.GreaterOrEqual(t, row.Reached[0], 0.80, row.What)
			found++
		}
	}
	require.Equal(t, 18, found)
}

// The table of constants in docs is the code's.
func TestTableOfConstantsIsCurrent(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "gpsfilter-constants.md"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(doc), filtereval.ConstantsHeader))
	lines := strings.Split(strings.TrimSpace(strings.TrimPrefix(string(doc), filtereval.ConstantsHeader)), "\n")
	constants := newFilter(t).Constants()
	require.Len(t, lines, len(constants))
	fitted := 0
	for i, c := range constants {
		require.True(t, strings.HasPrefix(lines[i], filtereval.ConstantLine(c)), "%s: run go run ./internal/filtereval/filtereval -constants docs/gpsfilter-constants.md", c.Name)
		if c.Source == "fitted" {
			fitted++
		}
	}
	require.LessOrEqual(t, fitted, 25, "a model with more fitted constants is fitted to the drives, not to vehicles")
}
