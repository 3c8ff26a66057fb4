package clickhouse

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
)

// Store answers from ClickHouse. It is a store.Store.
type Store struct {
	cfg  Config
	conn driver.Conn
}

// NewStore answers from the ClickHouse that cfg names; it connects when it is first
// asked.
func NewStore(cfg Config) (*Store, error) {
	if !cfg.On() {
		return nil, ErrOff
	}
	conn, err := cfg.open(cfg.Database)
	if err != nil {
		return nil, err
	}
	return &Store{cfg, conn}, nil
}

// Close releases the store's connections.
func (s *Store) Close() error { return s.conn.Close() }

// timeMS scans a DateTime64 as milliseconds since the Unix epoch.
type timeMS int64

// Scan implements sql.Scanner.
func (t *timeMS) Scan(v any) error {
	at, ok := v.(time.Time)
	if !ok {
		return fmt.Errorf("a time is %T", v)
	}
	*t = timeMS(at.UnixMilli())
	return nil
}

// within limits a read to device times in [?, ?): also by the hour, which the order of
// the table begins with.
const within = "device_time >= " + msParam + " AND device_time < " + msParam +
	" AND toStartOfHour(device_time) >= toStartOfHour(" + msParam + ") AND toStartOfHour(device_time) <= toStartOfHour(" + msParam + ")"

// msParam is a parameter in milliseconds since the Unix epoch.
const msParam = "fromUnixTimestamp64Milli(toInt64(?), 'UTC')"

// lastMS is the last time that ClickHouse's hours can name, in the year 2106.
const lastMS = 1<<32*1000 - 1

func withinArgs(fromMS, toMS int64) []any {
	fromMS, toMS = max(0, min(fromMS, lastMS)), max(0, min(toMS, lastMS))
	return []any{fromMS, toMS, fromMS, toMS}
}

// once has a FINAL read compare rows within days only, where all rows of a fix are.
const once = " SETTINGS do_not_merge_across_partitions_select_final = 1"

// Track yields the fixes of one vehicle by device time.
func (s *Store) Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error] {
	query := "SELECT " + strings.Join(columnNames, ", ") + " FROM fixes FINAL WHERE vehicle_id = ? AND " + within +
		" ORDER BY toStartOfHour(device_time), vehicle_id, device_time" + once
	return func(yield func(row.Fix, error) bool) {
		var at scanned
		targets := at.targets()
		scan := func(rows driver.Rows) (row.Fix, error) {
			err := rows.Scan(targets...)
			return at.row(), err
		}
		each(ctx, s.conn, yield, scan, query, append([]any{q.Vehicle}, withinArgs(q.FromMS, q.ToMS)...)...)
	}
}

// each yields what a query answers, row by row, and ends with the first error.
func each[T any](ctx context.Context, conn driver.Conn, yield func(T, error) bool, scan func(driver.Rows) (T, error), query string, args ...any) {
	var zero T
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		yield(zero, fmt.Errorf("clickhouse: %w", err))
		return
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			yield(zero, fmt.Errorf("clickhouse: %w", err))
			return
		}
		if !yield(v, nil) {
			return
		}
	}
	if err := rows.Err(); err != nil {
		yield(zero, fmt.Errorf("clickhouse: %w", err))
	}
}
