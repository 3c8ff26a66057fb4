// Package storetest is the conformance suite of store.Store: whatever history is
// asked, each store answers as a slow model does that has all rows in memory.
package storetest

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Open returns a store that has been given batches, in their order, and whose
// statistics are current.
type Open func(t *testing.T, batches []*row.Batch) store.Store

// Run holds a store to the suite.
func Run(t *testing.T, open Open) {
	m := newModel(rand.New(rand.NewPCG(1, 2)))
	s := open(t, m.batches)
	m.hold(t, s)
	t.Run("explain", func(t *testing.T) { m.explains(t, s) })
	require.NoError(t, s.Close())
}

// Answers is the part of store.Store that answers about many fixes.
type Answers interface {
	Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error]
	CellStats(ctx context.Context, q store.CellQuery) iter.Seq2[store.CellStat, error]
	Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error]
}

// RunThrough holds what passes a store's answers on to the suite: through makes it of
// the model, whose fixes lack what hide hides.
func RunThrough(t *testing.T, through func(store.Store) Answers, hide func(*row.Fix)) {
	m := newModel(rand.New(rand.NewPCG(1, 2)))
	for i := range m.truth {
		hide(&m.truth[i])
	}
	m.hold(t, through(&modelStore{t, m}))
}

// hold asks about many fixes.
func (m *model) hold(t *testing.T, s Answers) {
	t.Run("track", func(t *testing.T) { m.tracks(t, s) })
	t.Run("cell statistics", func(t *testing.T) { m.cellStats(t, s) })
	t.Run("visits", func(t *testing.T) { m.visits(t, s, 24) })
	t.Run("an answer can be left, and ends with its context", func(t *testing.T) { m.ends(t, s) })
}

// RunVisits holds a store to the part of the suite that asks for visits: six questions
// are one of each kind, of cells or a polygon, from the start or behind a vehicle.
func RunVisits(t *testing.T, open Open) {
	m := newModel(rand.New(rand.NewPCG(1, 2)))
	s := open(t, m.batches)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	m.visits(t, s, 6)
}

// begin is at 22:30 of a day, so that the rows are in four hours of two days.
var begin = time.Date(2026, 3, 1, 22, 30, 0, 0, time.UTC)

const (
	vehicles   = 12
	partitions = 3
	span       = 3 * time.Hour
)

// model has every row in memory.
type model struct {
	random  *rand.Rand
	batches []*row.Batch
	truth   []row.Fix // each fix once, in order
	// came has the arrivals of each fix, as they came.
	came map[fixID][]row.Arrival
}

// fixID is what identifies a fix.
type fixID struct {
	vehicle string
	timeMS  int64
}

// newModel makes fixes that come open and then final, some late, some published
// again in a later epoch with another content, some without estimate or speed.
func newModel(random *rand.Rand) *model {
	m := &model{random: random, came: map[fixID][]row.Arrival{}}
	var all []row.Fix
	for p := range int32(partitions) {
		offset := int64(0)
		for n := range 6 { // batches of half an hour of device time each
			b := &row.Batch{Partition: p, Epoch: 1 + int64(n)/4, First: offset}
			for v := int(p); v < vehicles; v += partitions {
				for s := 0; s < 1800; s += 20 + random.IntN(40) {
					at := begin.Add(time.Duration(n)*span/6 + time.Duration(s)*time.Second)
					b.Rows = append(b.Rows, m.rows(v, at, b, offset)...)
					offset++
				}
			}
			if n > 0 { // what was published again, from the batch before, with later offsets or epochs
				for _, r := range m.batches[len(m.batches)-1].Rows[:20] {
					r = r.Bare()
					r.Epoch, r.SourceOffset = b.Epoch, r.SourceOffset+offset
					r.Corrected.LatE7 += 5000
					b.Rows = append(b.Rows, r)
				}
				offset += 20
			}
			b.Last = offset
			offset++
			b.Rows = row.Dedup(b.Rows)
			all = append(all, b.Rows...)
			m.batches = append(m.batches, b)
		}
	}
	for _, f := range row.Truth(all) {
		m.truth = append(m.truth, f.Bare())
	}
	return m
}

// arrives has a row say that its fix came by the record of its offset, with a rule.
func (m *model) arrives(r *row.Fix, rule starlingv1.OutcomeRule) {
	r.Has |= row.HasArrival
	r.Session, r.Sequence, r.ArrivalOffset, r.Rule = 1<<63+uint64(m.random.IntN(3)), r.SourceOffset/2+1, r.SourceOffset, rule
	a := row.Arrival{Epoch: r.Epoch, Offset: r.SourceOffset, Session: r.Session, Sequence: r.Sequence, Rule: rule}
	if r.Kind != row.Open && r.Kind != row.Late {
		a.Reported = row.Reported{Position: r.Raw, Has: r.Has & row.HasAccuracy, AccuracyDM: r.AccuracyDM}
	}
	id := fixID{r.Vehicle, r.DeviceTimeMS}
	m.came[id] = append(m.came[id], a)
}

// notTaken are rows of what came and does not stand, after a row of the same fix: a copy
// and two conflicts by one record, or a refusal of another fix.
func (m *model) notTaken(of row.Fix) (out []row.Fix) {
	r := row.Fix{Vehicle: of.Vehicle, DeviceTimeMS: of.DeviceTimeMS, Epoch: of.Epoch, Partition: of.Partition, SourceOffset: of.SourceOffset, Raw: of.Raw}
	switch m.random.IntN(8) {
	case 0:
		r.Kind = row.Duplicate
		m.arrives(&r, starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT)
		out = append(out, r)
		for n := range int32(2) {
			r.Kind, r.Raw.LonE7, r.Has, r.AccuracyDM = row.Conflict, of.Raw.LonE7+10+n, row.HasAccuracy, 7
			m.arrives(&r, starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT)
			out = append(out, r)
		}
	case 1:
		r.Kind, r.DeviceTimeMS = row.Refused, r.DeviceTimeMS+7000
		m.arrives(&r, starlingv1.OutcomeRule_OUTCOME_RULE_PARTITION_FULL)
		out = append(out, r)
	}
	return out
}

// rows are those of one fix.
func (m *model) rows(vehicle int, at time.Time, b *row.Batch, offset int64) []row.Fix {
	r := row.Fix{
		Vehicle: fmt.Sprintf("car-%02d", vehicle), DeviceTimeMS: at.UnixMilli(), Epoch: b.Epoch, Partition: b.Partition, SourceOffset: offset,
		Raw: row.Position{LatE7: 482000000 + m.random.Int32N(2_000_000), LonE7: 163000000 + m.random.Int32N(2_000_000)},
	}
	if m.random.IntN(10) == 0 {
		r.Kind = row.Late
		m.arrives(&r, starlingv1.OutcomeRule_OUTCOME_RULE_BEHIND_WINDOW)
		return []row.Fix{r}
	}
	r.Has = row.HasEstimate | row.HasAccuracy
	r.AccuracyDM = m.random.Int32N(500)
	r.Verdict = starlingv1.Verdict_VERDICT_ACCEPTED
	r.Corrected = row.Position{LatE7: r.Raw.LatE7 + m.random.Int32N(2000) - 1000, LonE7: r.Raw.LonE7 + m.random.Int32N(2000) - 1000}
	r.Display = r.Corrected
	if m.random.IntN(4) > 0 {
		r.Has |= row.HasSpeed | row.HasHeading
		r.SpeedCMPS, r.HeadingDDeg = m.random.Int32N(2000), m.random.Int32N(3600)
	}
	open, final := r, r
	open.Kind, final.Kind = row.Open, row.Final
	final.SourceOffset++
	switch m.random.IntN(3) {
	case 0:
		m.arrives(&open, 0)
		return append(m.notTaken(r), open)
	case 1:
		return []row.Fix{final}
	}
	m.arrives(&open, 0)
	open.Corrected.LonE7 += 3000 // it was moved when its window closed
	return append([]row.Fix{open, final}, m.notTaken(r)...)
}

func (m *model) explains(t *testing.T, s store.Store) {
	asked := []fixID{{"nobody", begin.UnixMilli()}, {"car-00", begin.UnixMilli() - 1}}
	for id := range m.came {
		asked = append(asked, id)
	}
	for _, f := range m.truth {
		asked = append(asked, fixID{f.Vehicle, f.DeviceTimeMS})
	}
	slices.SortFunc(asked[2:], func(a, b fixID) int {
		return cmp.Or(cmp.Compare(a.vehicle, b.vehicle), cmp.Compare(a.timeMS, b.timeMS))
	})
	for n, id := range asked {
		if n > 1 && m.random.IntN(len(asked)) > 60 {
			continue
		}
		got, err := s.Explain(t.Context(), id.vehicle, id.timeMS)
		require.NoError(t, err)
		require.Equal(t, m.explanationOf(id), got, "%v", id)
	}
}

func (m *model) explanationOf(id fixID) (out store.Explanation) {
	for _, f := range m.truth {
		if f.Vehicle == id.vehicle && f.DeviceTimeMS == id.timeMS {
			out.Found, out.Fix = true, f
		}
	}
	out.Arrivals = slices.Clone(m.came[id])
	slices.SortStableFunc(out.Arrivals, func(a, b row.Arrival) int { return cmp.Compare(a.Rule, b.Rule) })
	return out
}

// span of a random question; sometimes all, sometimes nothing.
func (m *model) times() (fromMS, toMS int64) {
	at := func() int64 { return begin.UnixMilli() + m.random.Int64N(span.Milliseconds()) }
	switch m.random.IntN(6) {
	case 0:
		return begin.UnixMilli(), begin.Add(span).UnixMilli()
	case 1:
		one := at()
		return one, one
	}
	a, b := at(), at()
	return min(a, b), max(a, b)
}

func all[T any](t *testing.T, seq iter.Seq2[T, error]) (out []T) {
	t.Helper()
	for v, err := range seq {
		require.NoError(t, err)
		out = append(out, v)
	}
	return out
}

func (m *model) within(fromMS, toMS int64) (out []row.Fix) {
	for _, f := range m.truth {
		if f.DeviceTimeMS >= fromMS && f.DeviceTimeMS < toMS {
			out = append(out, f)
		}
	}
	return out
}

func (m *model) trackOf(q store.TrackQuery) (out []row.Fix) {
	for _, f := range m.within(q.FromMS, q.ToMS) {
		if f.Vehicle == q.Vehicle {
			out = append(out, f)
		}
	}
	return out
}

func (m *model) tracks(t *testing.T, s Answers) {
	for n := range 40 {
		q := store.TrackQuery{Vehicle: fmt.Sprintf("car-%02d", m.random.IntN(vehicles+1))}
		q.FromMS, q.ToMS = m.times()
		require.Equal(t, m.trackOf(q), all(t, s.Track(t.Context(), q)), "question %d: %+v", n, q)
	}
}

func (m *model) cell(t *testing.T, p row.Position, resolution int) h3.Cell {
	t.Helper()
	c, err := h3.At(float64(p.LatE7)/1e7, float64(p.LonE7)/1e7, resolution)
	require.NoError(t, err)
	return c
}

// someCells are cells of places where fixes are, of several resolutions.
func (m *model) someCells(t *testing.T, finest int) (cells []h3.Cell) {
	t.Helper()
	for range 1 + m.random.IntN(4) {
		cells = append(cells, m.cell(t, m.truth[m.random.IntN(len(m.truth))].Shown(), finest-m.random.IntN(3)))
	}
	return cells
}

func inAny(c h3.Cell, cells []h3.Cell) bool {
	return slices.ContainsFunc(cells, func(of h3.Cell) bool { return of.Resolution() <= c.Resolution() && c.Parent(of.Resolution()) == of })
}

func (m *model) cellStats(t *testing.T, s Answers) {
	for n := range 24 {
		q := store.CellQuery{Period: store.Hour}
		if n%2 == 1 {
			q.Period = store.Minute
		}
		q.FromMS, q.ToMS = m.times()
		if n%3 > 0 {
			q.Cells = m.someCells(t, q.Period.Resolution())
		}
		got, want := all(t, s.CellStats(t.Context(), q)), m.statsOf(t, q)
		require.Len(t, got, len(want), "question %d: %+v", n, q)
		for i := range want {
			require.InDelta(t, want[i].MeanSpeedCMPS, got[i].MeanSpeedCMPS, 1e-3)
			got[i].MeanSpeedCMPS = want[i].MeanSpeedCMPS
		}
		require.Equal(t, want, got, "question %d: %+v", n, q)
	}
}

func (m *model) statsOf(t *testing.T, q store.CellQuery) (out []store.CellStat) {
	t.Helper()
	type key struct {
		startMS int64
		cell    h3.Cell
	}
	speeds, seen, fixes := map[key][]int32{}, map[key]map[string]bool{}, map[key]int64{}
	for _, f := range m.truth {
		start := f.DeviceTimeMS - f.DeviceTimeMS%q.Period.Duration().Milliseconds()
		if f.Has&row.HasEstimate == 0 || start < q.FromMS || start >= q.ToMS {
			continue
		}
		k := key{start, m.cell(t, f.Corrected, q.Period.Resolution())}
		if len(q.Cells) > 0 && !inAny(k.cell, q.Cells) {
			continue
		}
		if seen[k] == nil {
			seen[k] = map[string]bool{}
		}
		fixes[k]++
		seen[k][f.Vehicle] = true
		if f.Has&row.HasSpeed != 0 {
			speeds[k] = append(speeds[k], f.SpeedCMPS)
		}
	}
	for k := range fixes {
		stat := store.CellStat{Cell: k.cell, StartMS: k.startMS, Fixes: fixes[k], Vehicles: int64(len(seen[k])), Speeds: int64(len(speeds[k]))}
		sum := 0.0
		for _, v := range speeds[k] {
			sum += float64(v)
		}
		if stat.Speeds > 0 {
			stat.MeanSpeedCMPS = sum / float64(stat.Speeds)
		}
		stat.P50, stat.P85, stat.P95 = store.Percentile(speeds[k], 0.5), store.Percentile(speeds[k], 0.85), store.Percentile(speeds[k], 0.95)
		out = append(out, stat)
	}
	slices.SortFunc(out, func(a, b store.CellStat) int {
		return cmp.Or(cmp.Compare(a.StartMS, b.StartMS), cmp.Compare(a.Cell, b.Cell))
	})
	return out
}

func (m *model) visits(t *testing.T, s Answers, questions int) {
	for n := range questions {
		var q store.VisitQuery
		q.FromMS, q.ToMS = m.times()
		if n%2 == 0 {
			q.Area.Cells = m.someCells(t, 8)
		} else {
			q.Area.Polygon = m.polygon()
		}
		if n%3 == 0 {
			q.After = fmt.Sprintf("car-%02d", m.random.IntN(vehicles))
		}
		require.Equal(t, m.visitsOf(t, q), all(t, s.Visits(t.Context(), q)), "question %d: %+v", n, q)
	}
}

func (m *model) visitsOf(t *testing.T, q store.VisitQuery) (out []store.Visit) {
	t.Helper()
	in := func(p row.Position) bool {
		if len(q.Area.Polygon) > 0 {
			return inside(q.Area.Polygon, p)
		}
		return slices.ContainsFunc(q.Area.Cells, func(c h3.Cell) bool { return m.cell(t, p, c.Resolution()) == c })
	}
	found := map[string]store.Visit{}
	for _, f := range m.within(q.FromMS, q.ToMS) {
		if f.Vehicle <= q.After || !in(f.Shown()) {
			continue
		}
		v, ok := found[f.Vehicle]
		if !ok {
			v = store.Visit{Vehicle: f.Vehicle, FirstMS: f.DeviceTimeMS}
		}
		v.LastMS = f.DeviceTimeMS
		v.Fixes++
		found[f.Vehicle] = v
	}
	for _, v := range found {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b store.Visit) int { return cmp.Compare(a.Vehicle, b.Vehicle) })
	return out
}

// polygon is a random one of three to eight corners, which may cross itself.
func (m *model) polygon() (corners []row.Position) {
	for range 3 + m.random.IntN(6) {
		corners = append(corners, row.Position{LatE7: 481900000 + m.random.Int32N(2_200_000), LonE7: 162900000 + m.random.Int32N(2_200_000)})
	}
	return corners
}

// inside counts crossings in floating point, by another formula than the stores'.
func inside(corners []row.Position, p row.Position) bool {
	in := false
	for i, a := range corners {
		b := corners[(i+1)%len(corners)]
		aLat, aLon, bLat, bLon := float64(a.LatE7), float64(a.LonE7), float64(b.LatE7), float64(b.LonE7)
		if (aLat > float64(p.LatE7)) != (bLat > float64(p.LatE7)) {
			share := (float64(p.LatE7) - aLat) / (bLat - aLat)
			if float64(p.LonE7) < aLon+share*(bLon-aLon) {
				in = !in
			}
		}
	}
	return in
}

func (m *model) ends(t *testing.T, s Answers) {
	whole := store.TrackQuery{Vehicle: "car-01", FromMS: begin.UnixMilli(), ToMS: begin.Add(span).UnixMilli()}
	n := 0
	for _, err := range s.Track(t.Context(), whole) {
		require.NoError(t, err)
		if n++; n == 3 {
			break
		}
	}
	require.Equal(t, 3, n)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	failed := func(err error) { require.ErrorIs(t, err, context.Canceled) }
	ended := 0
	for _, err := range s.Track(ctx, whole) {
		failed(err)
		ended++
	}
	for _, err := range s.CellStats(ctx, store.CellQuery{Period: store.Hour, FromMS: whole.FromMS, ToMS: whole.ToMS}) {
		failed(err)
		ended++
	}
	for _, err := range s.Visits(ctx, store.VisitQuery{FromMS: whole.FromMS, ToMS: whole.ToMS, Area: store.Area{Polygon: m.polygon()}}) {
		failed(err)
		ended++
	}
	require.Equal(t, 3, ended, "each ends with one error")
}
