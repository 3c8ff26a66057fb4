package clickhouse

import (
	"context"
	"fmt"
	"slices"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
)

// rollupTimeouts is how many times Config.Timeout the computation of one hour may take.
const rollupTimeouts = 10

// touch notes that hours have rows that their statistics may lack. It comes behind the
// rows: what reads the number of touches first and the rows then has no fewer rows
// than it has read touches of. A touch that is written twice costs a computation.
func (s *Sink) touch(ctx context.Context, hours []int64) error {
	if err := s.step("touch"); err != nil {
		return err
	}
	ctx, cancel := s.cfg.bounded(ctx)
	defer cancel()
	batch, err := s.conn.PrepareBatch(ctx, "INSERT INTO touched (hour, touches)")
	if err != nil {
		return err
	}
	defer func() { _ = batch.Close() }()
	for _, h := range hours {
		if err := batch.Append(h*secondsPerHour, uint64(1)); err != nil {
			return err
		}
	}
	return batch.Send()
}

const secondsPerHour = hourMS / 1000

// touchedHour is an hour whose statistics are behind.
type touchedHour struct {
	hour    int64 // since the Unix epoch
	touches uint64
}

// Rollup computes the statistics of all hours that were touched since they were
// computed last and that owns is true for, the newest first, and returns how many
// there were. Several processes may do it at once, also for one hour: the result of
// the one that has seen most touches stands.
//
// The statistics of an hour change by one insert, the hour is noted as computed behind
// it: after a crash in between it is computed once more.
func (s *Sink) Rollup(ctx context.Context, owns func(hour int64) bool) (computed int, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	hours, err := s.behind(ctx)
	if err != nil {
		return 0, fmt.Errorf("clickhouse: find touched hours: %w", err)
	}
	for _, h := range hours {
		if !owns(h.hour) {
			continue
		}
		if err := s.compute(ctx, h); err != nil {
			return computed, fmt.Errorf("clickhouse: compute the statistics of an hour: %w", err)
		}
		computed++
	}
	return computed, nil
}

// behind returns the hours that were touched since they were computed last.
func (s *Sink) behind(ctx context.Context) ([]touchedHour, error) {
	ctx, cancel := s.cfg.bounded(ctx)
	defer cancel()
	rows, err := s.conn.Query(ctx, `SELECT toInt64(toUnixTimestamp(hour)) AS at, sum(t) AS touches FROM (
		SELECT hour, sum(touches) AS t, 0 AS c FROM touched GROUP BY hour UNION ALL SELECT hour, 0, max(touches) FROM computed GROUP BY hour
	) GROUP BY hour HAVING touches > sum(c) ORDER BY hour DESC`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []touchedHour
	for rows.Next() {
		var at int64
		var h touchedHour
		if err := rows.Scan(&at, &h.touches); err != nil {
			return nil, err
		}
		h.hour = at / secondsPerHour
		out = append(out, h)
	}
	return out, rows.Err()
}

// rollup is a table of statistics, the column of its periods' start, and the SQL by
// which a fix falls into one.
type rollup struct {
	period               store.Period
	table, column, start string
}

var rollups = []rollup{
	{store.Hour, "cell_hours", "hour", "toStartOfHour(device_time)"},
	{store.Minute, "cell_minutes", "minute", "toStartOfMinute(device_time)"},
}

// rollupOf returns the table of a period.
func rollupOf(p store.Period) rollup {
	return rollups[max(0, slices.IndexFunc(rollups, func(r rollup) bool { return r.period == p }))]
}

// compute puts the statistics of an hour in place.
func (s *Sink) compute(ctx context.Context, h touchedHour) error {
	from := h.hour * hourMS
	for _, r := range rollups {
		if err := s.step(r.table); err != nil {
			return err
		}
		statement := fmt.Sprintf(`INSERT INTO %[1]s SELECT at, cell, max(n), max(v), max(s), max(mean), max(p[1]), max(p[2]), max(p[3]), toUInt64(?) FROM (
			SELECT toDateTime(%[3]s, 'UTC') AS at, geoToH3(toInt32(raw_lat_e7 + lat_diff_e7) / 1e7, toInt32(raw_lon_e7 + lon_diff_e7) / 1e7, %[4]d) AS cell,
				count() AS n, uniqExact(vehicle_id) AS v, countIf(bitAnd(has, %[5]d) != 0) AS s,
				if(s = 0, 0, sumIf(speed_cm_s, bitAnd(has, %[5]d) != 0) / s) AS mean,
				quantilesExactIf(0.5, 0.85, 0.95)(speed_cm_s, bitAnd(has, %[5]d) != 0) AS p
			FROM fixes FINAL WHERE %[6]s AND bitAnd(has, %[7]d) != 0 GROUP BY at, cell
			UNION ALL
			SELECT %[2]s, cell, 0, 0, 0, 0, [0, 0, 0] FROM %[1]s FINAL WHERE toStartOfHour(%[2]s) = %[8]s AND fixes > 0
		) GROUP BY at, cell`, r.table, r.column, r.start, r.period.Resolution(), uint16(row.HasSpeed), within, uint16(row.HasEstimate), "toDateTime("+msParam+", 'UTC')")
		args := append([]any{h.touches}, withinArgs(from, from+hourMS)...)
		if err := s.exec(ctx, statement, append(args, from)...); err != nil {
			return err
		}
	}
	if err := s.step("computed"); err != nil {
		return err
	}
	return s.exec(ctx, "INSERT INTO computed (hour, touches) SELECT toDateTime("+msParam+", 'UTC'), toUInt64(?)", from, h.touches)
}

func (s *Sink) exec(ctx context.Context, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, rollupTimeouts*s.cfg.Timeout)
	defer cancel()
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{
		"geotoh3_argument_order": "lat_lon", "do_not_merge_across_partitions_select_final": 1,
		"max_bytes_before_external_group_by": rollupMemory,
	}))
	return s.conn.Exec(ctx, statement, args...)
}

// rollupMemory is what the computation of one hour may hold in ClickHouse's memory
// before it goes to disk, in bytes.
const rollupMemory = 1 << 30
