package clickhouse

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
)

// CellStats yields the statistics of cells as they were computed last: within
// Config.RollupInterval of what is written, or a longer pause where that takes long.
func (s *Store) CellStats(ctx context.Context, q store.CellQuery) iter.Seq2[store.CellStat, error] {
	r := rollupOf(q.Period)
	where := ""
	if len(q.Cells) > 0 {
		where = " AND (" + inCells(q.Cells, func(resolution int) string {
			return fmt.Sprintf("h3ToParent(cell, %d)", resolution)
		}) + ")"
	}
	query := fmt.Sprintf(`SELECT cell, toInt64(toUnixTimestamp(%[1]s)) * 1000, toInt64(fixes), toInt64(vehicles), toInt64(speeds), mean_speed_cm_s, p50_speed_cm_s, p85_speed_cm_s, p95_speed_cm_s
		FROM %[2]s FINAL WHERE %[1]s >= %[3]s AND %[1]s < %[3]s AND fixes > 0%[4]s ORDER BY %[1]s, cell`, r.column, r.table, msParam, where)
	return func(yield func(store.CellStat, error) bool) {
		scan := func(rows driver.Rows) (c store.CellStat, err error) {
			var cell uint64
			err = rows.Scan(&cell, &c.StartMS, &c.Fixes, &c.Vehicles, &c.Speeds, &c.MeanSpeedCMPS, &c.P50, &c.P85, &c.P95)
			c.Cell = h3.Cell(cell)
			return c, err
		}
		each(ctx, s.conn, yield, scan, query, q.FromMS, q.ToMS)
	}
}

// inCells is the condition that a cell is in one of these: parent returns the SQL of
// its cell of a resolution.
func inCells(cells []h3.Cell, parent func(resolution int) string) string {
	byResolution := map[int][]string{}
	for _, c := range cells {
		byResolution[c.Resolution()] = append(byResolution[c.Resolution()], strconv.FormatUint(uint64(c), 10))
	}
	var conditions []string
	for _, r := range slices.Sorted(maps.Keys(byResolution)) {
		conditions = append(conditions, parent(r)+" IN ("+strings.Join(byResolution[r], ", ")+")")
	}
	return strings.Join(conditions, " OR ")
}

// The position that stands for a fix, in 1e-7 degree: without an estimate the
// differences are zero.
const shownLat, shownLon = "toInt32(raw_lat_e7 + lat_diff_e7)", "toInt32(raw_lon_e7 + lon_diff_e7)"

// Visits yields, by vehicle id, which vehicles were in an area.
func (s *Store) Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error] {
	query := fmt.Sprintf(`SELECT vehicle_id, toInt64(toUnixTimestamp64Milli(min(device_time))), toInt64(toUnixTimestamp64Milli(max(device_time))), toInt64(count())
		FROM fixes FINAL WHERE %s AND vehicle_id > ? AND (%s) GROUP BY vehicle_id ORDER BY vehicle_id%s, geotoh3_argument_order = 'lat_lon'`, within, inArea(q.Area), once)
	return func(yield func(store.Visit, error) bool) {
		scan := func(rows driver.Rows) (v store.Visit, err error) {
			err = rows.Scan(&v.Vehicle, &v.FirstMS, &v.LastMS, &v.Fixes)
			return v, err
		}
		each(ctx, s.conn, yield, scan, query, append(withinArgs(q.FromMS, q.ToMS), q.After)...)
	}
}

// inArea is the condition that a fix is in an area.
func inArea(a store.Area) string {
	if len(a.Polygon) == 0 {
		return inCells(a.Cells, func(resolution int) string {
			return fmt.Sprintf("geoToH3(%s / 1e7, %s / 1e7, %d)", shownLat, shownLon, resolution)
		})
	}
	lo, hi := a.Bounds()
	var edges []string
	for i, p := range a.Polygon {
		if q := a.Polygon[(i+1)%len(a.Polygon)]; q.LatE7 != p.LatE7 {
			edges = append(edges, fmt.Sprintf("(toFloat64(%d), toFloat64(%d), toFloat64(%d), toFloat64(%d))", p.LatE7, p.LonE7, q.LatE7, q.LonE7))
		}
	}
	if len(edges) == 0 {
		return "false"
	}
	// pointInPolygon refuses a polygon that crosses itself, or takes it otherwise.
	return fmt.Sprintf("%[1]s BETWEEN %[3]d AND %[4]d AND %[2]s BETWEEN %[5]d AND %[6]d AND "+
		"arrayCount(e -> (e.1 > %[1]s) != (e.3 > %[1]s) AND %[2]s < e.2 + (e.4 - e.2) * (%[1]s - e.1) / (e.3 - e.1), [%[7]s]) %% 2 = 1",
		shownLat, shownLon, lo.LatE7, hi.LatE7, lo.LonE7, hi.LonE7, strings.Join(edges, ", "))
}
