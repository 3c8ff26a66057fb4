package repair

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// What a repair makes is put together in buildName. When it is complete that is
// renamed to readyName, after which the repair can only be finished.
const (
	buildName = "repair-building"
	readyName = ends.RepairName
)

// unknownStep is how far a partition's end is moved when it is not known what was
// acknowledged: further than records fit into a store's write-ahead logs, so that
// no acknowledged offset is used again.
const unknownStep = 1 << 27

// leastEpoch is the least epoch of a repaired log: a tracker that finds no state
// begins a partition whose first records are gone only in a raised epoch.
const leastEpoch = 2

// Lost is a stretch of offsets that a repair declares lost.
type Lost struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"` // behind the last
	// Unknown reports that it is not known whether records were acknowledged there.
	Unknown bool `json:"unknown,omitempty"`
}

// Outcome is what a repair has done.
type Outcome struct {
	Epoch int64  `json:"epoch"`
	Lost  []Lost `json:"lost"`
	// KeptIn is where what was replaced is kept.
	KeptIn string `json:"kept_in"`
	// StateLost reports that the checkpoints were damaged and are gone: trackers read
	// what is left of the log from its beginning.
	StateLost bool `json:"state_lost"`
}

// ErrWhole reports that there is nothing to repair.
var ErrWhole = errors.New("the log is whole: there is nothing to repair")

// Repair makes a log that opens of what can be read, in a raised epoch. What it
// replaces is kept beside it. A crash leaves the directory as it was, or a repair
// that the next one finishes; the log does not open in between.
func Repair(ctx context.Context, path string, logger *slog.Logger) (*Outcome, error) {
	return repair(ctx, vfs.Default, path, logger)
}

func repair(ctx context.Context, fs vfs.FS, path string, logger *slog.Logger) (*Outcome, error) {
	d, err := open(fs, path, logger)
	if err != nil {
		return nil, err
	}
	out, err := d.repair(ctx)
	return out, errors.Join(err, d.lock.Close())
}

func (d *directory) repair(ctx context.Context) (*Outcome, error) {
	if _, err := d.fs.Stat(d.fs.PathJoin(d.path, readyName)); err != nil {
		if err := d.check(ctx); err != nil {
			return nil, err
		}
		if len(d.report.Findings) == 0 {
			return nil, ErrWhole
		}
		if d.facts == nil {
			return nil, errors.New("neither the account nor the state store can be read: topics and partitions of the log are not known, so nothing can be kept")
		}
		if err := d.build(ctx); err != nil {
			return nil, fmt.Errorf("put the repaired log together: %w", err)
		}
	}
	return d.finish()
}

// build puts the repaired parts together, beside the others.
func (d *directory) build(ctx context.Context) error {
	building := d.fs.PathJoin(d.path, buildName)
	if err := errors.Join(d.fs.RemoveAll(building), d.fs.MkdirAll(building, 0o700)); err != nil {
		return err
	}
	a := ends.Account{Facts: *d.facts, State: d.newest, Places: slices.Clone(d.walk.Places)}
	a.TopicIDs, a.Gaps = d.facts.TopicIDs, slices.Clone(d.facts.Gaps)
	a.New, a.OpenUnsynced = false, false
	a.Epoch = max(a.Epoch+1, leastEpoch)
	if a.LogID == 0 {
		a.LogID = rand.Uint64()
	}
	out := &Outcome{Epoch: a.Epoch, Lost: []Lost{}, StateLost: d.broken[ends.State.String()], KeptIn: d.fs.PathJoin(d.path, "damaged-"+time.Now().UTC().Format("20060102T150405.000"))}
	recordsFrom, stateFrom := d.path, d.path
	if d.broken[ends.Records.String()] {
		recordsFrom = building
		if err := d.rebuildRecords(ctx, building, &a, out); err != nil {
			return fmt.Errorf("records: %w", err)
		}
	} else if d.loaded == nil {
		d.moveOn(&a, out)
	}
	if out.StateLost {
		stateFrom = building
		if err := d.rebuildState(building, &a); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	for store, from := range map[ends.Store]string{ends.Records: recordsFrom, ends.State: stateFrom} {
		if err := layout.Describe(d.fs, from, &a, store); err != nil {
			return err
		}
	}
	generation := uint64(0)
	if d.loaded != nil {
		generation = d.loaded.Generation
	}
	file, err := ends.Create(d.fs, building, a, generation)
	if err != nil {
		return err
	}
	outcome, err := json.Marshal(out)
	if err := errors.Join(err, file.Close(), d.write(d.fs.PathJoin(building, outcomeName), outcome), d.sync(building)); err != nil {
		return err
	}
	// A crash before this leaves the directory as it was.
	return errors.Join(d.fs.Rename(building, d.fs.PathJoin(d.path, readyName)), d.sync(d.path))
}

const outcomeName = "outcome.json"

// rebuildRecords makes a record store of all chunks that can be read, in
// d.walk.Places and gaps of the account.
func (d *directory) rebuildRecords(ctx context.Context, building string, a *ends.Account, out *Outcome) error {
	db, err := pebble.Open(d.fs.PathJoin(building, ends.Records.String()), d.options(&pebble.Options{MemTableSize: 32 << 20}))
	if err != nil {
		return err
	}
	times, err := d.salvage(ctx, db)
	if err == nil {
		err = d.index(db, times, a, out)
	}
	if err == nil {
		err = db.Flush()
	}
	return errors.Join(err, db.Close())
}

// rebuildState makes a state store that knows no checkpoint.
func (d *directory) rebuildState(building string, a *ends.Account) error {
	db, err := pebble.Open(d.fs.PathJoin(building, ends.State.String()), d.options(&pebble.Options{}))
	if err != nil {
		return err
	}
	b := db.NewBatch()
	for p, first := range d.firsts {
		if err := b.Set(layout.FirstKey(uint16(p/a.Partitions+1), uint32(p%a.Partitions)), binary.AppendUvarint(nil, uint64(first)), nil); err != nil {
			return err
		}
	}
	a.State = layout.NextCommit(ends.Commit{Count: max(a.State.Count, d.newest.Count)}, b.Repr())
	err = b.Set(layout.CommitKey(a.State.Count), layout.EncodeCommit(a.State), nil)
	return errors.Join(err, db.Apply(b, pebble.Sync), b.Close(), db.Flush(), db.Close())
}

// finish puts the repaired parts in their places. Every step can be repeated.
func (d *directory) finish() (*Outcome, error) {
	ready := d.fs.PathJoin(d.path, readyName)
	s := salvaging{d: d}
	data, err := s.readFile(d.fs.PathJoin(ready, outcomeName))
	if err != nil {
		return nil, err
	}
	out := &Outcome{}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("%s: %w", outcomeName, err)
	}
	if err := d.fs.MkdirAll(out.KeptIn, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{ends.Records.String(), ends.State.String(), ends.FileName} {
		from, to := d.fs.PathJoin(ready, name), d.fs.PathJoin(d.path, name)
		if _, err := d.fs.Stat(from); err != nil {
			continue // was kept, or is in its place already
		}
		if _, err := d.fs.Stat(to); err == nil {
			if err := d.fs.Rename(to, d.fs.PathJoin(out.KeptIn, name)); err != nil {
				return nil, err
			}
		}
		if err := errors.Join(d.fs.Rename(from, to), d.sync(out.KeptIn), d.sync(ready), d.sync(d.path)); err != nil {
			return nil, err
		}
	}
	return out, errors.Join(d.fs.RemoveAll(ready), d.sync(d.path))
}

func (d *directory) sync(dir string) error {
	f, err := d.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *directory) write(path string, data []byte) error {
	f, err := d.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
