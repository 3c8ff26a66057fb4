// Package repair reads the directory of an embedded log that is not open: Check
// reports what is in it, held against what was acknowledged, and Repair makes a
// log that opens of what can still be read.
package repair

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// ErrNoLog reports that the directory holds no log.
var ErrNoLog = errors.New("there is no log in the directory")

// ErrInUse reports that a process has the log open.
var ErrInUse = errors.New("the log is in use by another process, or its directory cannot be locked")

// Partition is what Check reports of one partition.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// First is the oldest offset kept, End the one behind the last in the store, -1
	// if the store can't be opened, Acknowledged the one up to which was
	// acknowledged, -1 if that is not known.
	First        int64 `json:"first"`
	End          int64 `json:"end"`
	Acknowledged int64 `json:"acknowledged"`
	// Damaged reports that a finding concerns it.
	Damaged bool `json:"damaged"`
}

// Report is what Check has found.
type Report struct {
	Directory  string      `json:"directory"`
	Format     int         `json:"format"`
	Epoch      int64       `json:"epoch"`
	Partitions []Partition `json:"partitions"`
	// Gaps are offsets that an earlier repair has declared lost.
	Gaps []ends.Gap `json:"gaps,omitempty"`
	// Segments, Chunks, Records and Bytes of records were read, and so many keys
	// of the state store.
	Segments  int   `json:"segments"`
	Chunks    int64 `json:"chunks"`
	Records   int64 `json:"records"`
	Bytes     int64 `json:"bytes"`
	StateKeys int64 `json:"state_keys"`
	// Notes are worth knowing and no damage.
	Notes    []string         `json:"notes,omitempty"`
	Findings []layout.Finding `json:"findings"`
}

// directory is a log's directory while it is looked at.
type directory struct {
	fs     vfs.FS
	path   string
	lock   *pebble.Lock
	logger *slog.Logger

	loaded *ends.Loaded // nil if the account can't be read
	facts  *ends.Facts  // from the account or the state store; nil if neither can be read
	firsts []int64      // nil if the state store can't be read
	newest ends.Commit  // of the state store
	walk   layout.Walk
	broken map[string]bool // by store, and ends.FileName
	report Report
}

// Check reads everything in a log's directory and changes nothing. It fails when
// there is no log or it is in use; damage is in the report.
func Check(ctx context.Context, path string, logger *slog.Logger) (*Report, error) {
	d, err := open(vfs.Default, path, logger)
	if err != nil {
		return nil, err
	}
	return &d.report, errors.Join(d.check(ctx), d.lock.Close())
}

func open(fs vfs.FS, path string, logger *slog.Logger) (*directory, error) {
	there := false
	for _, name := range []string{ends.FileName, ends.Records.String(), ends.State.String(), readyName} {
		if _, err := fs.Stat(fs.PathJoin(path, name)); err == nil {
			there = true
		}
	}
	if !there {
		return nil, fmt.Errorf("%w: %s", ErrNoLog, path)
	}
	lock, err := pebble.LockDirectory(path, fs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return &directory{fs: fs, path: path, lock: lock, logger: logger, broken: make(map[string]bool), report: Report{Directory: path, Findings: []layout.Finding{}}}, nil
}

func (d *directory) find(store, format string, args ...any) {
	d.add(layout.Finding{Store: store, What: fmt.Sprintf(format, args...)})
}

func (d *directory) add(findings ...layout.Finding) {
	for _, f := range findings {
		d.broken[f.Store] = true
	}
	d.report.Findings = append(d.report.Findings, findings...)
}

// check fills the report in.
func (d *directory) check(ctx context.Context) error {
	if _, err := d.fs.Stat(d.fs.PathJoin(d.path, readyName)); err == nil {
		d.find(readyName, "a repair was interrupted; `starling log repair` with the same directory finishes it")
		return nil
	}
	loaded, err := ends.Load(d.fs, d.path)
	switch {
	case err == nil:
		d.loaded, d.facts = loaded, &loaded.Facts
		if loaded.Damaged != nil {
			d.report.Notes = append(d.report.Notes, fmt.Sprintf("%v: as after a crash while it was written; the other one counts", loaded.Damaged))
		}
		if loaded.OpenUnsynced {
			d.report.Notes = append(d.report.Notes, "the log ran without fsync and was not closed: what was acknowledged since that start is not known, and the next start raises the epoch")
		}
	case errors.Is(err, ends.ErrMissing), errors.Is(err, ends.ErrDamaged):
		d.find(ends.FileName, "what was acknowledged is not known: %v", err)
	default:
		return err
	}
	if d.loaded != nil && d.loaded.New {
		d.report.Notes = append(d.report.Notes, "the log was being made; nothing was acknowledged")
	} else {
		d.checkState(ctx)
		d.checkRecords(ctx)
	}
	d.fillIn()
	return ctx.Err()
}

// store opens a store for reading, after its files were held against the account.
func (d *directory) store(store ends.Store) *pebble.DB {
	name := store.String()
	if d.loaded != nil {
		d.add(layout.CheckFiles(d.fs, d.path, &d.loaded.Account, store)...)
	}
	if _, err := d.fs.Stat(d.fs.PathJoin(d.path, name)); err != nil {
		if d.loaded == nil {
			d.find(name, "the whole store is missing")
		} else if store == ends.Records {
			d.add(layout.AllMissing(&d.loaded.Account)...)
		}
		return nil
	}
	db, err := pebble.Open(d.fs.PathJoin(d.path, name), d.options(&pebble.Options{ReadOnly: true, ErrorIfNotExists: true}))
	if err != nil {
		d.find(name, "it can't be opened: %v", err)
		return nil
	}
	return db
}

func (d *directory) options(o *pebble.Options) *pebble.Options {
	o.FS = d.fs
	o.FormatMajorVersion = layout.StoreFormat
	o.Logger = quiet{d.logger}
	o.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}} // the read reports it
	return o
}

// quiet passes Pebble's messages on at the level of debugging.
type quiet struct{ logger *slog.Logger }

// Infof implements pebble.Logger.
func (q quiet) Infof(format string, args ...any) { q.logger.Debug(fmt.Sprintf(format, args...)) }

// Errorf implements pebble.Logger.
func (q quiet) Errorf(format string, args ...any) { q.logger.Debug(fmt.Sprintf(format, args...)) }

// Fatalf implements pebble.Logger. It must not return, and nothing is lost by
// ending here.
func (q quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (d *directory) checkState(ctx context.Context) {
	db := d.store(ends.State)
	if db == nil {
		return
	}
	defer d.closing(ends.State, db)
	name := ends.State.String()
	if d.facts == nil {
		value, closer, err := db.Get(layout.FactsKey())
		if err == nil {
			facts := &ends.Facts{}
			if err = errors.Join(json.Unmarshal(value, facts), closer.Close()); err == nil {
				d.facts = facts
			}
		}
		if err != nil {
			d.find(name, "the log's facts can't be read: %v", err)
			return
		}
	}
	var acknowledged ends.Commit
	unsynced := true
	if d.loaded != nil {
		acknowledged, unsynced = d.loaded.State, d.loaded.OpenUnsynced
	}
	newest, findings, err := layout.Newest(db, acknowledged, unsynced)
	if d.loaded != nil {
		d.add(findings...)
	}
	d.newest = newest
	firsts, firstsErr := layout.Firsts(db, d.facts)
	if firstsErr == nil {
		d.firsts = firsts
	}
	if err := errors.Join(err, firstsErr, d.readAll(ctx, db)); err != nil {
		d.find(name, "it can't be read: %v", err)
	}
}

func (d *directory) closing(store ends.Store, db *pebble.DB) {
	if err := db.Close(); err != nil {
		d.find(store.String(), "it can't be closed: %v", err)
	}
}

// readAll reads every key and value.
func (d *directory) readAll(ctx context.Context, db *pebble.DB) (err error) {
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok && ctx.Err() == nil; ok = it.Next() {
		if _, err := it.ValueAndErr(); err != nil {
			return fmt.Errorf("value of %x: %w", it.Key(), err)
		}
		d.report.StateKeys++
	}
	return it.Error()
}

func (d *directory) checkRecords(ctx context.Context) {
	db := d.store(ends.Records)
	if db == nil || d.facts == nil {
		if db != nil {
			d.closing(ends.Records, db)
			d.find(ends.Records.String(), "its topics are not known: neither the account nor the state store can be read")
		}
		return
	}
	defer d.closing(ends.Records, db)
	d.walk = layout.Walk{Facts: *d.facts, Firsts: d.firsts, Deep: true}
	if d.loaded != nil {
		d.walk.Account = &d.loaded.Account
	}
	if err := d.walk.Run(ctx, db); err != nil {
		d.find(ends.Records.String(), "it can't be read: %v", err)
	}
	d.add(d.walk.Findings...)
	d.report.Segments, d.report.Chunks = len(d.walk.Segments), d.walk.Chunks
	d.report.Records, d.report.Bytes = d.walk.Records, d.walk.Bytes
}

// fillIn reports the partitions.
func (d *directory) fillIn() {
	d.report.Format = ends.Format
	if d.facts == nil {
		return
	}
	d.report.Epoch, d.report.Gaps = d.facts.Epoch, d.facts.Gaps
	damaged := make(map[string]map[int32]bool)
	for _, f := range d.report.Findings {
		if f.Topic != "" {
			if damaged[f.Topic] == nil {
				damaged[f.Topic] = make(map[int32]bool)
			}
			damaged[f.Topic][f.Partition] = true
		}
	}
	for i := range len(d.facts.TopicIDs) * d.facts.Partitions {
		p := Partition{Topic: d.facts.Topic(uint16(i/d.facts.Partitions + 1)), Partition: int32(i % d.facts.Partitions), Acknowledged: -1}
		if d.firsts != nil {
			p.First = d.firsts[i]
		}
		switch {
		case i < len(d.walk.Places):
			p.End = d.walk.Places[i].Next
		case d.loaded == nil || !d.loaded.New:
			p.End = -1
		}
		if d.loaded != nil && i < len(d.loaded.Places) {
			p.Acknowledged = d.loaded.Places[i].Next
		}
		p.Damaged = damaged[p.Topic][p.Partition]
		d.report.Partitions = append(d.report.Partitions, p)
	}
}
