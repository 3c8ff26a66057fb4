// Package reprocess steps a range of `locations` again, by other settings or another
// step version, into a lake of its own, and compares the result with the `tracks` that
// there are. The log is only read.
package reprocess

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// Log is the part of eventlog.Log that is read.
type Log interface {
	Epoch() int64
	Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error)
	NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error)
}

// Options are what is stepped, and how.
type Options struct {
	// Version and Settings are what the step computes by, whatever version switches
	// the range has.
	Version  int32
	Settings step.Settings
	// From and To bound the range by append time; To is not in it.
	From, To time.Time
	// WarmUp is the stretch before From that is stepped too and not written, so that
	// the vehicles' states are those of vehicles under way. A vehicle is compared when
	// it has been known for so long.
	WarmUp time.Duration
	// Out is the directory of the lake, which must not be there or be empty.
	Out string
	// Worst is how many differences the report has.
	Worst int
	// Progress, if not nil, is told how far it is.
	Progress func(string)
}

// batchRows are the rows of a batch.
const batchRows = 50_000

// Validate returns what is wrong with o, or nil.
func (o *Options) Validate() error {
	switch {
	case !o.From.Before(o.To):
		return errors.New("from must be before to")
	case o.WarmUp < 0 || o.WarmUp > 7*24*time.Hour:
		return errors.New("the warm-up must be between 0 and 168h")
	case o.Out == "":
		return errors.New("the directory of the lake must be named")
	case o.Worst < 0 || o.Worst > 10_000:
		return errors.New("the report may have 0 to 10,000 differences")
	}
	there, err := os.ReadDir(o.Out)
	if err == nil && len(there) > 0 {
		return fmt.Errorf("%s is not empty: what is reprocessed goes into a lake of its own", o.Out)
	}
	return o.Settings.Validate()
}

// Run reprocesses every partition, one after the other.
func Run(ctx context.Context, log Log, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	bounds, err := log.Bounds(ctx, topics.Locations)
	if err != nil {
		return nil, fmt.Errorf("bounds of %s: %w", topics.Locations, err)
	}
	sink, err := lake.NewSink(o.Out)
	if err != nil {
		return nil, err
	}
	report := newReport(&o)
	for n := range bounds {
		if o.Progress != nil {
			o.Progress(fmt.Sprintf("partition %d of %d: %d fixes so far", n, len(bounds), report.Fixes))
		}
		p := &partition{o: &o, log: log, number: int32(n), sink: sink, report: report, known: map[string]int64{}, pending: map[key]pending{}}
		if err := p.run(ctx, bounds[n]); err != nil {
			return nil, fmt.Errorf("partition %d: %w", n, err)
		}
	}
	report.finish()
	return report, nil
}

// partition is one under way.
type partition struct {
	o      *Options
	log    Log
	number int32
	sink   *lake.Sink
	report *Report

	step  *step.Partition
	known map[string]int64 // append time of a vehicle's first report
	live  *tracks
	// pending are rows of one side that the other has not had yet.
	pending map[key]pending
	rows    []row.Fix
	first   int64 // offset of the first record of the batch
	// erased are the erasures that the log has, also behind the range.
	erased row.Erasures
}

// errEnd ends a reading.
var errEnd = errors.New("end")

// each calls fn with the records of a partition of a topic from an offset to before
// end. It returns nil when fn has returned errEnd.
func each(ctx context.Context, log Log, topic string, number int32, from, end int64, fn func(*eventlog.Stored) error) error {
	if from >= end {
		return nil
	}
	reader, err := log.NewReader(ctx, topic, map[int32]int64{number: from})
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	for from < end {
		b, err := reader.Poll(ctx)
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", topic, from, err)
		}
		for i := range b.Records {
			r := &b.Records[i]
			if r.Offset >= end {
				return nil
			}
			if err := fn(r); errors.Is(err, errEnd) {
				return nil
			} else if err != nil {
				return err
			}
			from = r.Offset + 1
		}
		from = max(from, min(end, b.End)) // the last offsets may be those of no record
	}
	return nil
}

func (p *partition) run(ctx context.Context, bounds eventlog.Bounds) error {
	var err error
	if p.step, err = step.NewPartition(p.o.Settings, p.log.Epoch()); err != nil {
		return err
	}
	all, err := p.log.Bounds(ctx, topics.Tracks)
	if err != nil {
		return err
	}
	if err := p.findErasures(ctx, bounds); err != nil {
		return err
	}
	p.live = newTracks(ctx, p.log, p.number, all[p.number])
	defer p.live.close()
	from, to, warm := p.o.From.UnixMilli(), p.o.To.UnixMilli(), p.o.From.Add(-p.o.WarmUp).UnixMilli()
	begun := false
	err = each(ctx, p.log, topics.Locations, p.number, bounds.First, bounds.End, func(r *eventlog.Stored) error {
		if r.AppendTimeMS >= to {
			return errEnd
		}
		if !begun {
			p.report.reach(r.AppendTimeMS)
		}
		if r.AppendTimeMS < warm {
			begun = true
			return nil
		}
		begun = true
		return p.take(ctx, r, r.AppendTimeMS >= from)
	})
	if err != nil {
		return err
	}
	p.report.leftOver(p.pending)
	return p.flush(ctx, p.step.Offset())
}

// findErasures reads the whole partition for what was asked to be erased.
func (p *partition) findErasures(ctx context.Context, bounds eventlog.Bounds) error {
	p.erased = row.Erasures{}
	var loc wire.Location
	return each(ctx, p.log, topics.Locations, p.number, bounds.First, bounds.End, func(r *eventlog.Stored) error {
		if loc.Unmarshal(r.Value) == nil && loc.Kind == wire.KindErasure {
			p.erased.Add(string(r.Key), loc.Erasure.UntilMS)
		}
		return nil
	})
}

// take steps one record, and writes and compares what it gives.
func (p *partition) take(ctx context.Context, r *eventlog.Stored, counts bool) error {
	rec := step.Record{Offset: r.Offset, AppendTimeMS: r.AppendTimeMS, Key: r.Key, Value: r.Value}
	var loc wire.Location
	if loc.Unmarshal(r.Value) == nil && loc.Kind == wire.KindVersionSwitch {
		tick := wire.Location{Kind: wire.KindTick} // the version and settings stay those of the options
		rec.Value = tick.Append(nil)
	}
	if p.first == 0 && p.rows == nil {
		if err := p.begin(rec); err != nil {
			return err
		}
	}
	res, err := p.step.Step(rec)
	if err != nil {
		return err
	}
	if res.Poison != nil {
		p.report.Poison++
	}
	made := len(p.rows)
	p.rows = append(p.rows[:made], p.erased.Without(row.Append(nil, p.number, string(r.Key), res.Track))...)
	for i := range p.rows[made:] {
		v := p.rows[made+i].Vehicle
		if _, ok := p.known[v]; !ok {
			p.known[v] = r.AppendTimeMS
		}
	}
	live, err := p.live.at(r.Offset)
	if err != nil {
		return err
	}
	live = p.erased.Without(live)
	if !counts {
		p.rows = p.rows[:0]
		p.first = r.Offset + 1
		return nil
	}
	p.report.Fixes += countOpen(p.rows[made:])
	p.compare(p.rows[made:], live, r.AppendTimeMS)
	if len(p.rows) >= batchRows {
		return p.flush(ctx, r.Offset)
	}
	return nil
}

// begin has the first record that is stepped at hand.
func (p *partition) begin(first step.Record) error {
	p.first, p.rows = first.Offset, make([]row.Fix, 0, 1024)
	if p.o.Version == p.step.Version() {
		return nil
	}
	to, err := step.NewVersionSwitch(p.o.Version, p.o.Settings)
	if err != nil {
		return err
	}
	_, err = p.step.Step(step.Record{Offset: first.Offset - 1, AppendTimeMS: first.AppendTimeMS, Value: to.Append(nil)})
	return err
}

// flush writes the rows up to an offset.
func (p *partition) flush(ctx context.Context, last int64) error {
	if len(p.rows) == 0 {
		return nil
	}
	_, err := p.sink.Write(ctx, &row.Batch{Partition: p.number, Epoch: p.log.Epoch(), First: p.first, Last: last, Rows: row.Dedup(p.rows)})
	p.rows, p.first = p.rows[:0], last+1
	return err
}

func countOpen(rows []row.Fix) (n int64) {
	for i := range rows {
		if rows[i].Kind.Stands() && rows[i].Kind != row.Final {
			n++
		}
	}
	return n
}
