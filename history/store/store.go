// Package store is what history answers from: one interface over ClickHouse and the
// lake of Parquet files, which answer alike. Its suite, storetest, holds both to it.
package store

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/h3"
)

// Store answers questions about history. It is safe for concurrent use.
//
// A fix is (vehicle, device time), and of its rows only the truth counts: the first
// by row.Compare. Times are milliseconds since the Unix epoch, and ranges of them are
// half open. An iteration ends with its first error, which comes with a zero value;
// it ends with ctx's error when ctx is done. A caller may stop at any time. What is
// held in memory for an answer has a bound that does not grow with the answer.
type Store interface {
	// Track yields the fixes of one vehicle by device time.
	Track(ctx context.Context, q TrackQuery) iter.Seq2[row.Fix, error]
	// CellStats yields the statistics of each cell and period that has a fix, by
	// start of the period, within it by cell.
	CellStats(ctx context.Context, q CellQuery) iter.Seq2[CellStat, error]
	// Visits yields, by vehicle id (as bytes), which vehicles were in an area.
	Visits(ctx context.Context, q VisitQuery) iter.Seq2[Visit, error]
	// Explain answers what became of one fix of a vehicle; it is empty if nothing is
	// known of it.
	Explain(ctx context.Context, vehicle string, deviceTimeMS int64) (Explanation, error)
	// Close releases what the store holds; no call may follow it.
	Close() error
}

// TrackQuery asks for the fixes of a vehicle in [FromMS, ToMS).
type TrackQuery struct {
	Vehicle      string
	FromMS, ToMS int64
}

// Period is a length of time over which cells are counted.
type Period uint8

// The periods. Each has one resolution of cells.
const (
	// Hour counts by cells of resolution 7, about 5 km2.
	Hour Period = iota + 1
	// Minute counts by cells of resolution 9, about 0.1 km2.
	Minute
)

// Resolution is that of the period's cells.
func (p Period) Resolution() int {
	if p == Hour {
		return 7
	}
	return 9
}

// Duration is how long the period is. Periods begin at multiples of it since the
// Unix epoch.
func (p Period) Duration() time.Duration {
	if p == Hour {
		return time.Hour
	}
	return time.Minute
}

// CellQuery asks for the statistics of cells over periods that begin in
// [FromMS, ToMS).
type CellQuery struct {
	Period       Period
	FromMS, ToMS int64
	// Cells limits the answer to cells that are in one of these, which may be of any
	// resolution up to the period's; none means all.
	Cells []h3.Cell
}

// CellStat is what went on in one cell during one period. It counts fixes that have
// an estimate (row.HasEstimate), each in the cell of its corrected position.
type CellStat struct {
	Cell    h3.Cell
	StartMS int64
	// Fixes and Vehicles are how many there were.
	Fixes, Vehicles int64
	// Speeds is how many of the fixes have a corrected speed (row.HasSpeed); the
	// values below are over those and 0 when there is none.
	Speeds int64
	// MeanSpeedCMPS is the mean in cm/s.
	MeanSpeedCMPS float64
	// P50, P85 and P95 are percentiles as Percentile has them, in cm/s.
	P50, P85, P95 int32
}

// Percentile returns the value that the share p, in [0, 1), of the values is below:
// with n values in ascending order the one at index floor(p*n), computed in float64,
// which is what ClickHouse's quantileExact returns. It sorts values and returns 0 when
// there is none.
func Percentile(values []int32, p float64) int32 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[PercentileIndex(int64(len(values)), p)]
}

// PercentileIndex is where among n > 0 ascending values the share p of them is below.
func PercentileIndex(n int64, p float64) int64 { return min(int64(p*float64(n)), n-1) }

// VisitQuery asks which vehicles had a fix in an area at a time in [FromMS, ToMS).
// What counts is each fix's position as shown (row.Fix.Shown); a vehicle that crossed
// the area between two fixes was not seen there.
type VisitQuery struct {
	FromMS, ToMS int64
	// Area is where.
	Area Area
	// After skips vehicles up to and including this id, so that an answer can be
	// continued; empty starts with the first.
	After string
}

// Area is a set of cells or a polygon; one of the two is set.
type Area struct {
	// Cells may be of any resolutions up to 15. A fix is in a cell when the cell of
	// its position, of that resolution, is it.
	Cells []h3.Cell
	// Polygon has at least three corners; the last is joined to the first. Its edges
	// are straight in longitude and latitude, it does not cross the antimeridian, and
	// a point is inside when a line from it crosses the edges an odd number of times.
	// Whether a point on an edge is inside is not set.
	Polygon []row.Position
}

// Bounds are the least and the greatest latitude and longitude of the polygon, which
// must be set.
func (a *Area) Bounds() (lo, hi row.Position) {
	lo, hi = a.Polygon[0], a.Polygon[0]
	for _, p := range a.Polygon {
		lo = row.Position{LatE7: min(lo.LatE7, p.LatE7), LonE7: min(lo.LonE7, p.LonE7)}
		hi = row.Position{LatE7: max(hi.LatE7, p.LatE7), LonE7: max(hi.LonE7, p.LonE7)}
	}
	return lo, hi
}

// Visit is a vehicle that was in an area.
type Visit struct {
	Vehicle string
	// FirstMS and LastMS are the device times of its first and last fix in the area
	// and the time range. It may have left in between.
	FirstMS, LastMS int64
	// Fixes is how many it had there.
	Fixes int64
}

// Explanation is what became of a fix.
type Explanation struct {
	// Found is true if there is a row that stands for the fix: Fix, without arrival.
	Found bool
	Fix   row.Fix
	// Arrivals are the times that it came, in their order: by which report, and why it
	// was not accepted. Steps before version 3 have left none.
	Arrivals []row.Arrival
}

// ExplanationOf explains a fix by all rows that there are of it.
func ExplanationOf(rows []row.Fix) Explanation {
	e := Explanation{Arrivals: row.Arrivals(rows)}
	if truth := row.Truth(rows); len(truth) > 0 {
		e.Found, e.Fix = true, truth[0].Bare()
	}
	return e
}
