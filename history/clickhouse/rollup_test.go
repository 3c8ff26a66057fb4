package clickhouse_test

import (
	"cmp"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// statsOf computes what CellStats must say, from the truth.
func statsOf(t *testing.T, rows []row.Fix, p store.Period) []store.CellStat {
	t.Helper()
	type key struct {
		start int64
		cell  h3.Cell
	}
	fixes := map[key][]row.Fix{}
	for _, f := range row.Dedup(slices.Clone(rows)) {
		if f.Has&row.HasEstimate == 0 {
			continue
		}
		cell, err := h3.At(float64(f.Corrected.LatE7)/1e7, float64(f.Corrected.LonE7)/1e7, p.Resolution())
		require.NoError(t, err)
		start := f.DeviceTimeMS - f.DeviceTimeMS%p.Duration().Milliseconds()
		fixes[key{start, cell}] = append(fixes[key{start, cell}], f)
	}
	var out []store.CellStat
	for k, in := range fixes {
		vehicles, speeds, sum := map[string]bool{}, []int32(nil), int64(0)
		for _, f := range in {
			vehicles[f.Vehicle] = true
			if f.Has&row.HasSpeed != 0 {
				speeds = append(speeds, f.SpeedCMPS)
				sum += int64(f.SpeedCMPS)
			}
		}
		c := store.CellStat{Cell: k.cell, StartMS: k.start, Fixes: int64(len(in)), Vehicles: int64(len(vehicles)), Speeds: int64(len(speeds))}
		if len(speeds) > 0 {
			c.MeanSpeedCMPS = float64(sum) / float64(len(speeds))
			c.P50, c.P85, c.P95 = store.Percentile(speeds, 0.5), store.Percentile(speeds, 0.85), store.Percentile(speeds, 0.95)
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b store.CellStat) int {
		return cmp.Or(cmp.Compare(a.StartMS, b.StartMS), cmp.Compare(a.Cell, b.Cell))
	})
	return out
}

func requireStats(t *testing.T, s store.Store, rows []row.Fix) {
	t.Helper()
	for _, p := range []store.Period{store.Hour, store.Minute} {
		requireSame(t, statsOf(t, rows, p), statsIn(t, s, store.CellQuery{Period: p, ToMS: 1 << 42}))
	}
}

func statsIn(t *testing.T, s store.Store, q store.CellQuery) (out []store.CellStat) {
	t.Helper()
	for c, err := range s.CellStats(t.Context(), q) {
		require.NoError(t, err)
		out = append(out, c)
	}
	return out
}

func all(int64) bool { return true }

// Statistics equal a recomputation from the fixes, whatever is written twice, comes
// later or replaces what was counted, and however a computation is cut off.
func TestStatisticsEqualARecomputation(t *testing.T) {
	_, cfg := migrated(t)
	sink, s := sinkOf(t, cfg), storeOf(t, cfg)
	rows := fixes(21, 2, 5, 100)
	var written []row.Fix
	died := errors.New("dead")
	for i, b := range batches(21, rows) {
		_, err := sink.Write(t.Context(), b)
		require.NoError(t, err)
		written = append(written, b.Rows...)
		if i%2 == 0 {
			continue
		}
		dying := sinkOf(t, cfg)
		steps, last := 0, 1+i%3
		dying.SetStep(func(string) error {
			if steps++; steps > last {
				return died
			}
			return nil
		})
		_, err = dying.Rollup(t.Context(), all)
		require.ErrorIs(t, err, died)
		_, err = sink.Rollup(t.Context(), all)
		require.NoError(t, err)
		requireStats(t, s, written)
	}
	_, err := sink.Rollup(t.Context(), all)
	require.NoError(t, err)
	requireStats(t, s, rows)
	n, err := sink.Rollup(t.Context(), all)
	require.NoError(t, err)
	require.Zero(t, n, "nothing was touched since")
}

// A cell whose only fix is replaced by one elsewhere is no longer there.
func TestAReplacedFixLeavesItsCell(t *testing.T) {
	_, cfg := migrated(t)
	sink, s := sinkOf(t, cfg), storeOf(t, cfg)
	fix := func(kind row.Kind, latE7 int32) row.Fix {
		p := row.Position{LatE7: latE7, LonE7: 10_0000000}
		return row.Fix{Vehicle: "car", DeviceTimeMS: startMS, Epoch: 1, Kind: kind, Has: row.HasEstimate, Raw: p, Corrected: p, Display: p, Verdict: starlingv1.Verdict_VERDICT_ACCEPTED}
	}
	for i, f := range []row.Fix{fix(row.Open, 50_0000000), fix(row.Final, 51_0000000)} {
		_, err := sink.Write(t.Context(), &row.Batch{Epoch: 1, First: int64(i), Last: int64(i), Rows: []row.Fix{f}})
		require.NoError(t, err)
		_, err = sink.Rollup(t.Context(), all)
		require.NoError(t, err)
		requireStats(t, s, []row.Fix{f})
	}
	require.Len(t, statsIn(t, s, store.CellQuery{Period: store.Hour, ToMS: 1 << 42}), 1)
}

// Who owns an hour computes it, and nobody else.
func TestHoursAreShared(t *testing.T) {
	_, cfg := migrated(t)
	sink := sinkOf(t, cfg)
	_, err := sink.Write(t.Context(), &row.Batch{Epoch: 1, Rows: row.Dedup(fixes(22, 0, 1, 90))})
	require.NoError(t, err)
	for _, share := range []int64{0, 1, 0} {
		n, err := sink.Rollup(t.Context(), func(hour int64) bool { return hour%2 == share })
		require.NoError(t, err)
		require.LessOrEqual(t, n, 1)
	}
	n, err := sink.Rollup(t.Context(), all)
	require.NoError(t, err)
	require.Zero(t, n)
}

// What a query may limit: cells of any resolution, and periods.
func TestStatisticsOfSomeCells(t *testing.T) {
	_, cfg := migrated(t)
	sink, s := sinkOf(t, cfg), storeOf(t, cfg)
	rows := fixes(23, 0, 3, 100)
	_, err := sink.Write(t.Context(), &row.Batch{Epoch: 1, Rows: row.Dedup(slices.Clone(rows))})
	require.NoError(t, err)
	_, err = sink.Rollup(t.Context(), all)
	require.NoError(t, err)
	every := statsOf(t, rows, store.Minute)
	require.NotEmpty(t, every)
	some := []h3.Cell{every[0].Cell, every[1].Cell.Parent(7), every[2].Cell.Parent(7)}
	from, to := startMS, startMS+60_000
	var want []store.CellStat
	for _, c := range every {
		if c.StartMS >= from && c.StartMS < to && slices.ContainsFunc(some, c.Cell.In) {
			want = append(want, c)
		}
	}
	requireSame(t, want, statsIn(t, s, store.CellQuery{Period: store.Minute, FromMS: from, ToMS: to, Cells: some}))
}

func TestVisits(t *testing.T) {
	_, cfg := migrated(t)
	sink, s := sinkOf(t, cfg), storeOf(t, cfg)
	rows := fixes(24, 0, 8, 90)
	for _, b := range batches(24, rows) {
		_, err := sink.Write(t.Context(), b)
		require.NoError(t, err)
	}
	truth := row.Dedup(slices.Clone(rows))
	// A triangle, and the same question by cells.
	polygon := []row.Position{{LatE7: 302700000, LonE7: -977500000}, {LatE7: 303500000, LonE7: -977900000}, {LatE7: 302700000, LonE7: -978300000}}
	cells := map[h3.Cell]bool{}
	for _, f := range truth[:20] {
		p := f.Shown()
		c, err := h3.At(float64(p.LatE7)/1e7, float64(p.LonE7)/1e7, 8)
		require.NoError(t, err)
		cells[c] = true
	}
	inCells := store.Area{}
	for c := range cells {
		inCells.Cells = append(inCells.Cells, c)
	}
	from, to := startMS+5000, startMS+80_000
	for _, q := range []store.VisitQuery{
		{FromMS: from, ToMS: to, Area: store.Area{Polygon: polygon}},
		{FromMS: from, ToMS: to, Area: inCells},
		{FromMS: from, ToMS: to, Area: inCells, After: "car-0-3"},
	} {
		want := visitsOf(t, truth, q)
		require.NotEmpty(t, want)
		var got []store.Visit
		for v, err := range s.Visits(t.Context(), q) {
			require.NoError(t, err)
			got = append(got, v)
		}
		requireSame(t, want, got)
	}
}

// visitsOf computes what Visits must say, from the truth sorted by vehicle and time.
func visitsOf(t *testing.T, truth []row.Fix, q store.VisitQuery) (out []store.Visit) {
	t.Helper()
	for _, f := range truth {
		p := f.Shown()
		in := f.DeviceTimeMS >= q.FromMS && f.DeviceTimeMS < q.ToMS && f.Vehicle > q.After
		if len(q.Area.Polygon) > 0 {
			in = in && inside(q.Area.Polygon, p)
		} else {
			in = in && slices.ContainsFunc(q.Area.Cells, func(cell h3.Cell) bool {
				at, err := h3.At(float64(p.LatE7)/1e7, float64(p.LonE7)/1e7, cell.Resolution())
				require.NoError(t, err)
				return at == cell
			})
		}
		if !in {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Vehicle == f.Vehicle {
			out[n-1].LastMS, out[n-1].Fixes = f.DeviceTimeMS, out[n-1].Fixes+1
			continue
		}
		out = append(out, store.Visit{Vehicle: f.Vehicle, FirstMS: f.DeviceTimeMS, LastMS: f.DeviceTimeMS, Fixes: 1})
	}
	return out
}

// inside counts the edges east of a point.
func inside(polygon []row.Position, p row.Position) (in bool) {
	for i, a := range polygon {
		b := polygon[(i+1)%len(polygon)]
		if (a.LatE7 > p.LatE7) == (b.LatE7 > p.LatE7) {
			continue
		}
		if lon := float64(a.LonE7) + float64(b.LonE7-a.LonE7)*float64(p.LatE7-a.LatE7)/float64(b.LatE7-a.LatE7); lon > float64(p.LonE7) {
			in = !in
		}
	}
	return in
}

var _ store.Store = (*clickhouse.Store)(nil)
