package lake_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/history/store/storetest"
	"github.com/starling-fleet/starling/internal/s3test"
)

// readTrack is track for a lake anywhere.
func readTrack(t *testing.T, where, vehicle string, from, to time.Time) ([]row.Fix, error) {
	r, err := lake.NewReader(where)
	require.NoError(t, err)
	var out []row.Fix
	for f, err := range r.Track(t.Context(), store.TrackQuery{Vehicle: vehicle, FromMS: from.UnixMilli(), ToMS: to.UnixMilli()}) {
		if err != nil {
			return out, err
		}
		out = append(out, f)
	}
	return out, nil
}

// A lake on S3 has the same files as one in a directory, and is read alike; a server
// that is killed loses nothing that was written.
func TestALakeOnS3(t *testing.T) {
	s3 := s3test.Start(t)
	n := 0
	storetest.Run(t, func(t *testing.T, batches []*row.Batch) store.Store {
		n++
		where := "s3://" + s3test.Bucket + "/suite/" + string(rune('a'+n))
		s, err := lake.NewSink(where)
		require.NoError(t, err)
		for _, b := range batches {
			_, err := s.Write(t.Context(), b)
			require.NoError(t, err)
		}
		r, err := lake.NewReader(where)
		require.NoError(t, err)
		return r
	})

	where := "s3://" + s3test.Bucket + "/fleet"
	s, err := lake.NewSink(where)
	require.NoError(t, err)
	local, dir := newSink(t)
	rows := fixes(30, 1200, noon.Add(50*time.Minute), 0)
	for first := 0; first < len(rows); first += 4000 {
		b := batch(int64(first), int64(first+3999), rows[first:min(first+4000, len(rows))])
		w, err := s.Write(t.Context(), b)
		require.NoError(t, err)
		same, err := local.Write(t.Context(), b)
		require.NoError(t, err)
		require.Equal(t, same, w)
	}
	require.Equal(t, contents(t, dir), contents(t, filepath.Join(s3.Dir(), s3test.Bucket, "fleet")), "the same files")
	s3.Kill()
	_, err = readTrack(t, where, vehicleID(3), noon, noon.Add(3*time.Hour))
	require.ErrorContains(t, err, "S3")
	require.NoError(t, s3.Restart())
	got, err := readTrack(t, where, vehicleID(3), noon, noon.Add(3*time.Hour))
	require.NoError(t, err)
	require.Equal(t, of(rows, vehicleID(3)), got)

	joinAt := time.Now().Add(time.Hour)
	joined, err := s.Join(t.Context(), noon.Add(3*time.Hour), time.Hour, func(int32) bool { return true })
	require.NoError(t, err)
	require.Positive(t, joined)
	_, err = s.Join(t.Context(), joinAt, joinAt.Sub(noon.Add(3*time.Hour)), func(int32) bool { return true })
	require.NoError(t, err)
	got, err = readTrack(t, where, vehicleID(3), noon, noon.Add(3*time.Hour))
	require.NoError(t, err)
	require.Equal(t, of(rows, vehicleID(3)), got)

	_, err = readTrack(t, "s3://"+s3test.Bucket+"/elsewhere", vehicleID(3), noon, noon.Add(time.Hour))
	require.ErrorContains(t, err, "nothing at s3://history/elsewhere")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	_, err = readTrack(t, where, vehicleID(3), noon, noon.Add(time.Hour))
	require.ErrorContains(t, err, "S3")
	require.NotContains(t, err.Error(), "wrong")
}

var errStopped = errors.New("stopped")

func TestPlacesOfALake(t *testing.T) {
	for where, fault := range map[string]string{
		"/srv/history": "", "s3://bucket": "", "s3://bucket/a/b/": "",
		"s3://": "name of a bucket", "s3://UPPER/x": "name of a bucket", "s3://bucket/a//b": "empty part", "s3://bucket/?x": "prefix",
	} {
		if err := lake.Check(where); fault == "" {
			require.NoError(t, err, where)
		} else {
			require.ErrorContains(t, err, fault)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", "127.0.0.1:9000")
	require.ErrorContains(t, lake.Check("s3://bucket"), "AWS_ENDPOINT_URL_S3")
}

// Files of old hours are joined, and rows, readers and raw files stay right at each
// moment: with the parts beside the joined file, without them, and with a part that a
// replaced writer has put there again.
func TestJoining(t *testing.T) {
	s, dir := newSink(t)
	all := func(int32) bool { return true }
	var want []row.Fix
	var batches []*row.Batch
	for n := range int64(6) { // each batch has the last final rows of the one before it as open ones
		rows := fixes(4, 100, noon.Add(time.Duration(n)*90*time.Second), n*1000)
		for i := range rows {
			if rows[i].DeviceTimeMS >= noon.Add(time.Duration(n+1)*90*time.Second).UnixMilli() && n < 5 {
				rows[i].Kind = row.Open
			}
		}
		want = append(want, rows...)
		if n == 2 { // what came and was not taken is kept beside the fix
			for i := range 2 {
				r := rows[5]
				r.Kind, r.Has, r.SourceOffset = row.Conflict+row.Kind(i), row.HasArrival, 7000+int64(i)
				r.Session, r.Sequence, r.ArrivalOffset = 9, int64(i+1), r.SourceOffset
				rows = append(rows, r)
			}
			rows = row.Dedup(rows)
		}
		batches = append(batches, batch(n*10, n*10+9, rows))
		_, err := s.Write(t.Context(), batches[n])
		require.NoError(t, err)
	}
	want = row.Dedup(want)
	explained := func() store.Explanation {
		r, err := lake.NewReader(dir)
		require.NoError(t, err)
		e, err := r.Explain(t.Context(), vehicleID(0), noon.Add(3*time.Minute+5*time.Second).UnixMilli())
		require.NoError(t, err)
		return e
	}
	explanation := explained()
	require.GreaterOrEqual(t, len(explanation.Arrivals), 2)
	requireRows := func(when string) {
		t.Helper()
		require.Equal(t, explanation, explained(), when)
		for v := range 4 {
			require.Equal(t, of(want, vehicleID(v)), track(t, dir, vehicleID(v), noon, noon.Add(time.Hour)), when)
		}
	}
	requireRows("before")
	joined, err := s.Join(t.Context(), noon.Add(90*time.Minute), time.Hour, all)
	require.NoError(t, err)
	require.Zero(t, joined, "the hour is not old enough")
	later := noon.Add(2 * time.Hour)
	joined, err = s.Join(t.Context(), later, time.Hour, func(n int32) bool { return n != 2 })
	require.NoError(t, err)
	require.Zero(t, joined, "the partition is another's")
	joined, err = s.Join(t.Context(), later, time.Hour, all)
	require.NoError(t, err)
	require.Equal(t, 6, joined)
	require.Len(t, contents(t, dir), 7)
	requireRows("beside the parts")

	_, err = s.Write(t.Context(), batches[3]) // by a writer that was replaced
	require.NoError(t, err)
	requireRows("with a part written again")
	muchLater := time.Now().Add(time.Hour) // files were made now
	joined, err = s.Join(t.Context(), muchLater, muchLater.Sub(later)+time.Hour, all)
	require.NoError(t, err)
	require.Zero(t, joined)
	files := contents(t, dir)
	require.Len(t, files, 1)
	require.Contains(t, files, filepath.Join("dt=2026-03-01", "hour=12", "part-2-1-0-59.parquet"))
	requireRows("without the parts")

	// A late row makes a small file, for which the large one is not written anew.
	late := fixes(1, 1, noon.Add(30*time.Minute), 9000)
	_, err = s.Write(t.Context(), batch(60, 69, late))
	require.NoError(t, err)
	want = row.Dedup(append(want, late...))
	joined, err = s.Join(t.Context(), later, time.Hour, all)
	require.NoError(t, err)
	require.Zero(t, joined)
	requireRows("with a late row")
}

// A joiner that stops at any of its steps leaves what is read as it was.
func TestAJoinThatStopsAnywhere(t *testing.T) {
	for at := 0; ; at++ {
		s, dir := newSink(t)
		rows := fixes(3, 300, noon, 0)
		for n := range 3 {
			part := slices.Clone(rows[n*300 : n*300+300])
			_, err := s.Write(t.Context(), batch(int64(n*10), int64(n*10+9), part))
			require.NoError(t, err)
		}
		n := 0
		s.SetStep(func(string) error {
			if n++; n-1 == at {
				return errStopped
			}
			return nil
		})
		_, err := s.Join(t.Context(), noon.Add(3*time.Hour), time.Hour, func(int32) bool { return true })
		for v := range 3 {
			require.Equal(t, of(rows, vehicleID(v)), track(t, dir, vehicleID(v), noon, noon.Add(time.Hour)), "step %d", at)
		}
		if err == nil {
			require.Equal(t, 3, at)
			return
		}
		require.ErrorIs(t, err, errStopped)
	}
}
