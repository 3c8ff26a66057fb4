// Package judge compares what history has kept with what was sent. It shares no code
// with the roles: it reads the Parquet files and the tables by their documented columns
// (docs/history.md).
package judge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/parquet-go/parquet-go"
	"github.com/uber/h3-go/v4"
)

// Point is a fix as it is identified and compared, degrees in 1e-7.
type Point struct {
	TimeMS       int64
	LatE7, LonE7 int32
}

// Fleet is the fixes of each vehicle.
type Fleet map[string][]Point

// E7 is a degree in 1e-7 degree, as history rounds it.
func E7(deg float64) int32 { return int32(math.Round(deg * 1e7)) }

// First leaves the first fix of each vehicle and time, by time, and returns how many
// fixes are left.
func (f Fleet) First() (fixes int) {
	for vehicle, points := range f {
		slices.SortStableFunc(points, func(a, b Point) int { return cmp.Compare(a.TimeMS, b.TimeMS) })
		f[vehicle] = slices.CompactFunc(points, func(a, b Point) bool { return a.TimeMS == b.TimeMS })
		fixes += len(f[vehicle])
	}
	return fixes
}

// sum is a checksum of a vehicle's fixes.
func sum(points []Point) uint64 {
	h := fnv.New64a()
	for _, p := range points {
		_, _ = fmt.Fprintf(h, "%d,%d,%d;", p.TimeMS, p.LatE7, p.LonE7)
	}
	return h.Sum64()
}

// Differences names what differs between what was sent and what was kept, at most a few
// lines of it; none if nothing does.
func Differences(sent, kept Fleet) (out []string) {
	const most = 10
	vehicles := map[string]bool{}
	for v := range sent {
		vehicles[v] = true
	}
	for v := range kept {
		vehicles[v] = true
	}
	different := 0
	for _, v := range slices.Sorted(maps.Keys(vehicles)) {
		if len(sent[v]) == len(kept[v]) && sum(sent[v]) == sum(kept[v]) {
			continue
		}
		if different++; different <= most {
			out = append(out, fmt.Sprintf("%s: %d fixes were sent (checksum %x), %d are kept (%x)", v, len(sent[v]), sum(sent[v]), len(kept[v]), sum(kept[v])))
		}
	}
	if different > most {
		out = append(out, fmt.Sprintf("and %d vehicles more", different-most))
	}
	return out
}

// Missing returns how many of the fixes that were sent were not kept, and how many were
// kept that were not sent.
func Missing(sent, kept Fleet) (missing, beyond int) {
	for v, points := range sent {
		has := map[Point]bool{}
		for _, p := range kept[v] {
			has[p] = true
		}
		for _, p := range points {
			if !has[p] {
				missing++
			}
			delete(has, p)
		}
		beyond += len(has)
	}
	for v, points := range kept {
		if _, ok := sent[v]; !ok {
			beyond += len(points)
		}
	}
	return missing, beyond
}

// row is what is read of a file.
type row struct {
	Vehicle string `parquet:"vehicle_id"`
	TimeMS  int64  `parquet:"device_time,timestamp(millisecond)"`
	Kind    string `parquet:"kind"`
	LatE7   int32  `parquet:"raw_latitude_e7"`
	LonE7   int32  `parquet:"raw_longitude_e7"`
	AtLatE7 *int32 `parquet:"latitude_e7,optional"`
	AtLonE7 *int32 `parquet:"longitude_e7,optional"`
	Speed   *int32 `parquet:"speed_cm_s,optional"`
	Epoch   int64  `parquet:"epoch"`
	Offset  int64  `parquet:"source_offset"`
}

// rank orders rows of one fix, the truth first. Rows of other kinds stand for none.
var rank = map[string]int{"final": 1, "open": 2, "late": 3, "set_aside": 4}

// Lake is what the files of a lake have of each fix.
type Lake struct {
	// Fleet has each fix once, Rows and Files are as they stand there.
	Fleet Fleet
	Rows  int
	Files int
	truth map[string][]row
}

// ReadLake reads every Parquet file below a directory.
func ReadLake(dir string) (*Lake, error) {
	l := &Lake{Fleet: Fleet{}, truth: map[string][]row{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".parquet" || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		l.Files++
		if err := l.add(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for vehicle, rows := range l.truth {
		slices.SortFunc(rows, func(a, b row) int {
			return cmp.Or(cmp.Compare(a.TimeMS, b.TimeMS), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(rank[a.Kind], rank[b.Kind]), cmp.Compare(a.Offset, b.Offset))
		})
		rows = slices.CompactFunc(rows, func(a, b row) bool { return a.TimeMS == b.TimeMS })
		l.truth[vehicle] = rows
		for _, r := range rows {
			l.Fleet[vehicle] = append(l.Fleet[vehicle], Point{r.TimeMS, r.LatE7, r.LonE7})
		}
	}
	return l, nil
}

func (l *Lake) add(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was joined into another meanwhile; whoever misses its rows reads again
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := parquet.NewGenericReader[row](f)
	defer func() { _ = r.Close() }()
	rows := make([]row, 1000)
	for {
		clear(rows)
		n, err := r.Read(rows)
		for _, row := range rows[:n] {
			if rank[row.Kind] == 0 {
				continue
			}
			row.Vehicle = strings.Clone(row.Vehicle)
			l.truth[row.Vehicle] = append(l.truth[row.Vehicle], row)
		}
		l.Rows += n
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Table is what table fixes of a ClickHouse has.
func Table(ctx context.Context, conn ch.Conn) (Fleet, error) {
	rows, err := conn.Query(ctx, "SELECT vehicle_id, toUnixTimestamp64Milli(device_time), raw_lat_e7, raw_lon_e7 FROM fixes FINAL ORDER BY vehicle_id, device_time")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := Fleet{}
	for rows.Next() {
		var vehicle string
		var p Point
		if err := rows.Scan(&vehicle, &p.TimeMS, &p.LatE7, &p.LonE7); err != nil {
			return nil, err
		}
		out[vehicle] = append(out[vehicle], p)
	}
	return out, rows.Err()
}

// cellHour is a cell during an hour.
type cellHour struct {
	hour int64
	cell uint64
}

// stat is what table cell_hours has of one.
type stat struct {
	Fixes, Vehicles, Speeds uint64
	P50, P85, P95           int32
}

// CellHours are the statistics of cells and hours, computed from a lake.
func (l *Lake) CellHours() (Statistics, error) {
	const resolution = 7
	out := Statistics{}
	vehicles := map[cellHour]map[string]bool{}
	speeds := map[cellHour][]int32{}
	for vehicle, rows := range l.truth {
		for _, r := range rows {
			if r.AtLatE7 == nil {
				continue
			}
			cell, err := h3.LatLngToCell(h3.NewLatLng(float64(*r.AtLatE7)/1e7, float64(*r.AtLonE7)/1e7), resolution)
			if err != nil {
				return nil, err
			}
			at := cellHour{r.TimeMS / 3_600_000, uint64(cell)}
			s := out[at]
			s.Fixes++
			out[at] = s
			if vehicles[at] == nil {
				vehicles[at] = map[string]bool{}
			}
			vehicles[at][vehicle] = true
			if r.Speed != nil {
				speeds[at] = append(speeds[at], *r.Speed)
			}
		}
	}
	for at, s := range out {
		all := speeds[at]
		slices.Sort(all)
		s.Vehicles, s.Speeds = uint64(len(vehicles[at])), uint64(len(all))
		if n := float64(len(all)); n > 0 {
			s.P50, s.P85, s.P95 = all[int(0.5*n)], all[int(0.85*n)], all[int(0.95*n)]
		}
		out[at] = s
	}
	return out, nil
}

// Statistics are those of cells and hours.
type Statistics map[cellHour]stat

// Rollups is what table cell_hours of a ClickHouse has.
func Rollups(ctx context.Context, conn ch.Conn) (Statistics, error) {
	rows, err := conn.Query(ctx, "SELECT toInt64(toUnixTimestamp(hour)), cell, fixes, vehicles, speeds, p50_speed_cm_s, p85_speed_cm_s, p95_speed_cm_s FROM cell_hours FINAL WHERE fixes > 0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := Statistics{}
	for rows.Next() {
		var at cellHour
		var s stat
		if err := rows.Scan(&at.hour, &at.cell, &s.Fixes, &s.Vehicles, &s.Speeds, &s.P50, &s.P85, &s.P95); err != nil {
			return nil, err
		}
		at.hour /= 3600
		out[at] = s
	}
	return out, rows.Err()
}

// Compare returns how many cells and hours differ.
func (s Statistics) Compare(other Statistics) (different int) {
	for at, v := range s {
		if other[at] != v {
			different++
		}
	}
	for at := range other {
		if _, ok := s[at]; !ok {
			different++
		}
	}
	return different
}
