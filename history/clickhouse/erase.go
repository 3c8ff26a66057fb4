package clickhouse

import (
	"context"
	"fmt"
	"time"

	"github.com/starling-fleet/starling/history/row"
)

// Erase deletes the fixes of a vehicle before a device time, and has every later Write
// leave them out. It may be repeated. The hours that have such fixes are on record
// before the first is deleted: after a crash, their statistics are computed anew all the
// same.
func (s *Sink) Erase(ctx context.Context, e row.Erasure) (row.Erased, error) {
	if e.Epoch < 0 || e.Epoch > maxEpoch || e.Offset < 0 || e.Offset > maxOffset {
		return row.Erased{}, errRange
	}
	if err := s.ready(ctx); err != nil {
		return row.Erased{}, err
	}
	found, hours, err := s.recordErasure(ctx, &e)
	if err != nil {
		return row.Erased{}, fmt.Errorf("clickhouse: record an erasure: %w", err)
	}
	for _, table := range []string{"fixes", "arrivals"} {
		if err := s.step("erase " + table); err != nil {
			return row.Erased{}, err
		}
		statement := "ALTER TABLE " + table + " DELETE WHERE vehicle_id = ? AND device_time < " + msParam + " SETTINGS mutations_sync = 2"
		if err := s.exec(ctx, statement, e.Vehicle, e.UntilMS); err != nil {
			return row.Erased{}, fmt.Errorf("clickhouse: erase from %s: %w", table, err)
		}
	}
	if len(hours) > 0 {
		if err := s.touch(ctx, hours); err != nil {
			return row.Erased{}, fmt.Errorf("clickhouse: touch hours: %w", err)
		}
	}
	if err := s.putErasure(ctx, &e, found, hours, time.Now()); err != nil {
		return row.Erased{}, fmt.Errorf("clickhouse: record an erasure: %w", err)
	}
	return row.Erased{Rows: int64(found)}, nil
}

// recordErasure puts an erasure on record, with how many rows it concerns and the hours
// (since the Unix epoch) that have them, and returns both; or what is on record of it.
func (s *Sink) recordErasure(ctx context.Context, e *row.Erasure) (found uint64, hours []int64, err error) {
	bounded, cancel := s.cfg.bounded(ctx)
	defer cancel()
	var known uint64
	var starts []time.Time
	err = s.conn.QueryRow(bounded, "SELECT count(), max(rows), arrayFlatten(groupUniqArray(hours)) FROM erasures WHERE partition = ? AND epoch = ? AND source_offset = ?",
		uint16(e.Partition), uint16(e.Epoch), uint64(e.Offset)).Scan(&known, &found, &starts)
	if err != nil {
		return 0, nil, err
	}
	if known == 0 {
		at := "vehicle_id = ? AND device_time < " + msParam
		err := s.conn.QueryRow(bounded, "SELECT count(), groupUniqArray(toStartOfHour(device_time)) FROM (SELECT device_time FROM fixes WHERE "+at+" UNION ALL SELECT device_time FROM arrivals WHERE "+at+")",
			e.Vehicle, e.UntilMS, e.Vehicle, e.UntilMS).Scan(&found, &starts)
		if err != nil {
			return 0, nil, err
		}
	}
	for _, t := range starts {
		hours = append(hours, row.Period(t.UnixMilli(), hourMS))
	}
	if known == 0 {
		err = s.putErasure(ctx, e, found, hours, time.Unix(0, 0))
	}
	return found, hours, err
}

func (s *Sink) putErasure(ctx context.Context, e *row.Erasure, found uint64, hours []int64, at time.Time) error {
	ctx, cancel := s.cfg.bounded(ctx)
	defer cancel()
	batch, err := s.conn.PrepareBatch(ctx, "INSERT INTO erasures (vehicle_id, until, partition, epoch, source_offset, rows, hours, erased_at)")
	if err != nil {
		return err
	}
	defer func() { _ = batch.Close() }()
	starts := make([]time.Time, 0, len(hours))
	for _, h := range hours {
		starts = append(starts, time.UnixMilli(h*hourMS).UTC())
	}
	if err := batch.Append(e.Vehicle, time.UnixMilli(e.UntilMS).UTC(), uint16(e.Partition), uint16(e.Epoch), uint64(e.Offset), found, starts, at.UTC()); err != nil {
		return err
	}
	return batch.Send()
}

// erasures returns what is erased of the vehicles of a partition.
func (s *Sink) erasures(ctx context.Context, partition int32) (row.Erasures, error) {
	ctx, cancel := s.cfg.bounded(ctx)
	defer cancel()
	rows, err := s.conn.Query(ctx, "SELECT vehicle_id, toInt64(toUnixTimestamp64Milli(max(until))) FROM erasures WHERE partition = ? GROUP BY vehicle_id", uint16(partition))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := row.Erasures{}
	for rows.Next() {
		var vehicle string
		var untilMS int64
		if err := rows.Scan(&vehicle, &untilMS); err != nil {
			return nil, err
		}
		out.Add(vehicle, untilMS)
	}
	return out, rows.Err()
}
