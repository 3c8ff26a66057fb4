package lake_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/history/store/storetest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Long ids that begin alike: statistics of pages are cut off.
func vehicleID(n int) string { return fmt.Sprintf("vehicle-of-a-fleet-with-long-names-%05d", n) }

func fixes(vehicles, each int, start time.Time, offset int64) []row.Fix {
	rng := rand.New(rand.NewPCG(1, uint64(offset)))
	var rows []row.Fix
	for v := range vehicles {
		for i := range each {
			r := row.Fix{
				Vehicle: vehicleID(v), DeviceTimeMS: start.UnixMilli() + int64(i)*1000, Epoch: 1, Partition: 2, SourceOffset: offset + int64(i), Kind: row.Final,
				Has: row.Has(rng.Uint32()) & (row.HasSpeed<<2 - 1), Raw: row.Position{LatE7: rng.Int32N(900_000_000), LonE7: -rng.Int32N(1_800_000_000)},
			}
			if r.Has&row.HasEstimate != 0 {
				r.Corrected, r.Display = row.Position{LatE7: r.Raw.LatE7 + 3, LonE7: r.Raw.LonE7 - 5}, row.Position{LatE7: -1, LonE7: 1}
				r.Verdict = starlingv1.Verdict_VERDICT_ACCEPTED
			}
			set := func(bit row.Has, v *int32) {
				if r.Has&bit != 0 {
					*v = rng.Int32N(3) // zero is a value too
				}
			}
			set(row.HasRawSpeed, &r.RawSpeedCMPS)
			set(row.HasRawHeading, &r.RawHeadingDDeg)
			set(row.HasAccuracy, &r.AccuracyDM)
			set(row.HasAltitude, &r.AltitudeDM)
			set(row.HasSpeed, &r.SpeedCMPS)
			set(row.HasHeading, &r.HeadingDDeg)
			rows = append(rows, r)
		}
	}
	return row.Dedup(rows)
}

func batch(first, last int64, rows []row.Fix) *row.Batch {
	return &row.Batch{Partition: 2, Epoch: 1, First: first, Last: last, Rows: rows}
}

func newSink(t *testing.T) (*lake.Sink, string) {
	dir := filepath.Join(t.TempDir(), "lake")
	s, err := lake.NewSink(dir)
	require.NoError(t, err)
	return s, dir
}

func track(t *testing.T, dir, vehicle string, from, to time.Time) []row.Fix {
	r, err := lake.NewReader(dir)
	require.NoError(t, err)
	var out []row.Fix
	for f, err := range r.Track(t.Context(), store.TrackQuery{Vehicle: vehicle, FromMS: from.UnixMilli(), ToMS: to.UnixMilli()}) {
		require.NoError(t, err)
		out = append(out, f)
	}
	return out
}

func of(rows []row.Fix, vehicle string) []row.Fix {
	return slices.DeleteFunc(slices.Clone(rows), func(f row.Fix) bool { return f.Vehicle != vehicle })
}

func TestEveryVehicleIsReadBack(t *testing.T) {
	s, dir := newSink(t)
	rows := fixes(30, 300, noon, 100)
	written, err := s.Write(t.Context(), batch(0, 9, rows))
	require.NoError(t, err)
	require.Equal(t, 1, written.Files)
	for v := 0; v < 30; v += 7 {
		require.Equal(t, of(rows, vehicleID(v)), track(t, dir, vehicleID(v), noon, noon.Add(time.Hour)))
	}
	require.Empty(t, track(t, dir, "nobody", noon, noon.Add(time.Hour)))
	require.Empty(t, track(t, dir, vehicleID(0)[:20], noon, noon.Add(time.Hour)))
	got := track(t, dir, vehicleID(3), noon.Add(10*time.Second), noon.Add(20*time.Second))
	require.Len(t, got, 10, "from counts, to does not")
	require.Equal(t, noon.Add(10*time.Second).UnixMilli(), got[0].DeviceTimeMS)
}

func TestABatchWrittenAgainHasTheSameBytes(t *testing.T) {
	s, dir := newSink(t)
	b := batch(0, 9, fixes(3, 600, noon.Add(55*time.Minute), 0))
	w, err := s.Write(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, 2, w.Files)
	before := contents(t, dir)
	require.Len(t, before, 3, "two hours and a manifest")
	_, err = s.Write(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, before, contents(t, dir))
}

// A write stops at each of its steps; readers see the batch as a whole or not at
// all, and the next write makes it whole and leaves nothing behind.
func TestAWriteThatStopsAnywhere(t *testing.T) {
	boom := errors.New("stop")
	b := batch(0, 9, fixes(3, 120, noon.Add(59*time.Minute), 0))
	undisturbed, want := newSink(t)
	_, err := undisturbed.Write(t.Context(), b)
	require.NoError(t, err)
	steps := 0
	for at := 0; ; at++ {
		s, dir := newSink(t)
		n := 0
		s.SetStep(func(string) error {
			if n++; n-1 == at {
				return boom
			}
			return nil
		})
		_, err := s.Write(t.Context(), b)
		if err == nil {
			steps = at
			break
		}
		require.ErrorIs(t, err, boom)
		got := track(t, dir, vehicleID(1), noon, noon.Add(3*time.Hour))
		require.Contains(t, []int{0, 120}, len(got), "step %d", at)
		s.SetStep(func(string) error { return nil })
		_, err = s.Write(t.Context(), b)
		require.NoError(t, err)
		require.Equal(t, contents(t, want), contents(t, dir), "step %d", at)
	}
	require.Equal(t, 9, steps, "three durable steps of three files")
}

// What a killed process leaves of a file is deleted by the next write of it.
func TestTemporaryFilesOfAKilledWriter(t *testing.T) {
	s, dir := newSink(t)
	b := batch(0, 9, fixes(1, 2, noon, 0))
	hour := filepath.Join(dir, "dt=2026-03-01", "hour=12")
	require.NoError(t, os.MkdirAll(hour, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(hour, ".part-2-1-0-9.parquet.77.tmp"), []byte("PAR1"), 0o600))
	require.Empty(t, track(t, dir, vehicleID(0), noon, noon.Add(time.Hour)))
	_, err := s.Write(t.Context(), b)
	require.NoError(t, err)
	require.Len(t, contents(t, dir), 1)
}

func TestARangeWithinAnotherIsIgnored(t *testing.T) {
	s, dir := newSink(t)
	wrong := fixes(1, 5, noon, 0)
	for i := range wrong {
		wrong[i].SourceOffset = -1 // would win
	}
	_, err := s.Write(t.Context(), batch(3, 5, wrong))
	require.NoError(t, err)
	right := fixes(1, 5, noon, 0)
	_, err = s.Write(t.Context(), batch(0, 9, right))
	require.NoError(t, err)
	require.Equal(t, right, track(t, dir, vehicleID(0), noon, noon.Add(time.Hour)))
	// The same range of another epoch is another batch.
	later := batch(0, 9, fixes(2, 5, noon, 0))
	later.Epoch = 2
	for i := range later.Rows {
		later.Rows[i].Epoch = 2
	}
	_, err = s.Write(t.Context(), later)
	require.NoError(t, err)
	require.Equal(t, right, track(t, dir, vehicleID(0), noon, noon.Add(time.Hour)))
	require.Len(t, track(t, dir, vehicleID(1), noon, noon.Add(time.Hour)), 5)
}

func TestFinalRowsReplaceOpenOnes(t *testing.T) {
	s, dir := newSink(t)
	open, final := fixes(1, 5, noon, 0), fixes(1, 4, noon, 50)
	for i := range open {
		open[i].Kind = row.Open
	}
	_, err := s.Write(t.Context(), batch(0, 9, open))
	require.NoError(t, err)
	_, err = s.Write(t.Context(), batch(10, 19, final))
	require.NoError(t, err)
	got := track(t, dir, vehicleID(0), noon, noon.Add(time.Hour))
	require.Equal(t, append(final, open[4]), got)
}

// Readers skip by statistics and the Bloom filter, and GeoParquet readers find the
// geometry.
func TestFilesHaveWhatReadersSkipBy(t *testing.T) {
	s, dir := newSink(t)
	_, err := s.Write(t.Context(), batch(0, 9, fixes(50, 300, noon, 0)))
	require.NoError(t, err)
	path := filepath.Join(dir, "dt=2026-03-01", "hour=12", "part-2-1-0-9.parquet")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	f, err := parquet.OpenFile(strings.NewReader(string(b)), int64(len(b)))
	require.NoError(t, err)
	geo, ok := f.Lookup("geo")
	require.True(t, ok)
	require.Contains(t, geo, `"version":"1.1.0"`)
	chunk := f.RowGroups()[0].ColumnChunks()[0]
	has, err := chunk.BloomFilter().Check(parquet.ByteArrayValue([]byte("nobody")))
	require.NoError(t, err)
	require.False(t, has)
	index, err := chunk.ColumnIndex()
	require.NoError(t, err)
	require.Greater(t, index.NumPages(), 1)
	require.Len(t, f.RowGroups()[0].SortingColumns(), 2)
}

func TestNoLakeIsSaid(t *testing.T) {
	_, err := lake.NewReader(t.TempDir())
	require.ErrorContains(t, err, "is not a history lake")
}

func TestADamagedFileIsNamed(t *testing.T) {
	s, dir := newSink(t)
	_, err := s.Write(t.Context(), batch(0, 9, fixes(1, 5, noon, 0)))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "dt=2026-03-01", "hour=12", "part-2-1-0-9.parquet"), []byte("PAR1"), 0o600))
	r, err := lake.NewReader(dir)
	require.NoError(t, err)
	for _, err := range r.Track(t.Context(), store.TrackQuery{Vehicle: vehicleID(0), FromMS: noon.UnixMilli(), ToMS: noon.Add(time.Hour).UnixMilli()}) {
		require.ErrorContains(t, err, "part-2-1-0-9.parquet")
	}
}

// contents are all files of a lake by path.
func contents(t *testing.T, dir string) map[string]string {
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		all[rel] = string(b)
		return err
	}))
	return all
}

func TestTheLakeAnswersAsAStore(t *testing.T) {
	read := func(t *testing.T, batches []*row.Batch) *lake.Reader {
		s, dir := newSink(t)
		for _, b := range batches {
			_, err := s.Write(t.Context(), b)
			require.NoError(t, err)
		}
		r, err := lake.NewReader(dir)
		require.NoError(t, err)
		return r
	}
	storetest.Run(t, func(t *testing.T, batches []*row.Batch) store.Store { return read(t, batches) })
	t.Run("visits in several passes", func(t *testing.T) {
		storetest.RunVisits(t, func(t *testing.T, batches []*row.Batch) store.Store { return lake.FewAtOnce{Reader: read(t, batches)} })
	})
}
