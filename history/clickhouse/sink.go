package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Sink writes batches. It is safe for concurrent use.
type Sink struct {
	cfg     Config
	conn    driver.Conn
	checked atomic.Bool // the schema was found to fit
	// step is called before each insert; tests stop there.
	step func(name string) error
}

// NewSink writes to the ClickHouse that cfg names. It connects when it is first
// used, so that one that is away delays nothing; whoever holds it closes it.
func NewSink(cfg Config) (*Sink, error) {
	if !cfg.On() {
		return nil, ErrOff
	}
	conn, err := cfg.open(cfg.Database)
	if err != nil {
		return nil, err
	}
	return &Sink{cfg: cfg, conn: conn, step: func(string) error { return nil }}, nil
}

// Close releases the sink's connections.
func (s *Sink) Close() error { return s.conn.Close() }

// ready fails unless the schema is this build's.
func (s *Sink) ready(ctx context.Context) error {
	if s.checked.Load() {
		return nil
	}
	if err := checkSchema(ctx, &s.cfg, s.conn); err != nil {
		return err
	}
	s.checked.Store(true)
	return nil
}

// The bits of a row's rank, and the largest numbers that they hold.
const (
	offsetBits, kindBits = 44, 4
	maxOffset, maxEpoch  = 1<<offsetBits - 1, 1<<(64-offsetBits-kindBits) - 1
)

// rank is the greater the nearer a row is to the truth, by the order of row.Compare.
func rank(f *row.Fix) uint64 {
	return ^(uint64(f.Epoch)<<(offsetBits+kindBits) | uint64(f.Kind)<<offsetBits | uint64(f.SourceOffset))
}

// unrank is the reverse of rank.
func unrank(f *row.Fix, rank uint64) {
	r := ^rank
	f.Epoch, f.Kind, f.SourceOffset = int64(r>>(offsetBits+kindBits)), row.Kind(r>>offsetBits&(1<<kindBits-1)), int64(r&maxOffset)
}

// errRange refuses a batch whose numbers no rank holds.
var errRange = errors.New("clickhouse: the batch's epoch or offset is beyond what a row's rank holds")

const (
	dayMS  = int64(day / time.Millisecond)
	hourMS = int64(time.Hour / time.Millisecond)
)

// Write keeps a batch, durably and whole. The same batch may be written again. After
// an error any part of it may be there; the package comment says why that shows
// nothing wrong.
func (s *Sink) Write(ctx context.Context, b *row.Batch) (row.Written, error) {
	if b.Epoch < 0 || b.Epoch > maxEpoch || b.Last > maxOffset {
		return row.Written{}, errRange
	}
	if err := s.ready(ctx); err != nil {
		return row.Written{}, err
	}
	erased, err := s.erasures(ctx, b.Partition)
	if err != nil {
		return row.Written{}, fmt.Errorf("clickhouse: read erasures: %w", err)
	}
	rows := erased.Without(b.Rows)
	byDay := map[int64][]row.Fix{}
	hours := map[int64]bool{}
	var days []int64
	for i := range rows {
		r := &rows[i]
		if r.SourceOffset < 0 || r.SourceOffset > maxOffset {
			return row.Written{}, errRange
		}
		d := row.Period(r.DeviceTimeMS, dayMS)
		if _, ok := byDay[d]; !ok {
			days = append(days, d)
		}
		byDay[d] = append(byDay[d], *r)
		hours[row.Period(r.DeviceTimeMS, hourMS)] = true
	}
	slices.Sort(days)
	for _, d := range days {
		token := fmt.Sprintf("%d-%d-%d-%d-%d", b.Partition, b.Epoch, b.First, b.Last, d)
		if err := s.insertDay(ctx, byDay[d], token); err != nil {
			return row.Written{}, err
		}
	}
	if err := s.touch(ctx, slices.Sorted(maps.Keys(hours))); err != nil {
		return row.Written{}, fmt.Errorf("clickhouse: touch hours: %w", err)
	}
	return row.Written{Files: len(days)}, nil
}

// insertDay sends the rows of one day: to `fixes` what stands, to `arrivals` what came.
func (s *Sink) insertDay(ctx context.Context, rows []row.Fix, token string) error {
	arrivals, n := arrivalsOf(rows)
	if n > 0 {
		if err := s.insert(ctx, "arrivals", arrivalNames, arrivals, n, token); err != nil {
			return fmt.Errorf("clickhouse: insert arrivals: %w", err)
		}
	}
	rows = slices.DeleteFunc(rows, func(f row.Fix) bool { return !f.Kind.Stands() })
	if len(rows) == 0 {
		return nil
	}
	if err := s.insert(ctx, "fixes", columnNames, columnsOf(rows), len(rows), token); err != nil {
		return fmt.Errorf("clickhouse: insert fixes: %w", err)
	}
	return nil
}

// insert sends n rows by column as one block.
func (s *Sink) insert(ctx context.Context, table string, names []string, columns []any, n int, token string) error {
	if err := s.step("insert"); err != nil {
		return err
	}
	ctx, cancel := s.cfg.bounded(ctx)
	defer cancel()
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{
		"insert_deduplication_token": token, "async_insert": 0, "insert_quorum_parallel": 1,
		// One block, so that the part of the day is there as a whole or not at all.
		"min_insert_block_size_rows": n + 1, "max_insert_block_size": n + 1, "max_partitions_per_insert_block": 1,
	}))
	batch, err := s.conn.PrepareBatch(ctx, "INSERT INTO "+table+" ("+strings.Join(names, ", ")+")")
	if err != nil {
		return err
	}
	defer func() { _ = batch.Close() }()
	for i, values := range columns {
		if err := batch.Column(i).Append(values); err != nil {
			return fmt.Errorf("column %s: %w", names[i], err)
		}
	}
	return batch.Send()
}

// WriteGap puts a range of records of a partition on record that the sink will not be
// given: table gaps.
func (s *Sink) WriteGap(ctx context.Context, partition int32, gap *starlingv1.HistoryGap) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := s.cfg.bounded(ctx)
	defer cancel()
	reason := strings.ToLower(strings.TrimPrefix(gap.Reason.String(), "HISTORY_GAP_REASON_"))
	err := s.conn.Exec(ctx, "INSERT INTO gaps (partition, first_offset, last_offset, reason) VALUES (?, ?, ?, ?)", uint16(partition), uint64(gap.First), uint64(gap.Last), reason)
	if err != nil {
		return fmt.Errorf("clickhouse: insert a gap: %w", err)
	}
	return nil
}
