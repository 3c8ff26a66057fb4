// Package backup seals copies of a local log's stores as a backup, and makes a log
// of one again.
//
// A backup is a directory as a log's is, with an account of its own that is marked,
// so that no process opens it: a log that goes back to an earlier point uses
// offsets again, and whoever has read the records that are lost must know. Restore
// makes a log of a copy in a raised epoch, as every reader sees.
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// FileName is the name of the manifest, which is written last: a directory without
// it is no backup.
const FileName = "backup.json"

// leastEpoch is the least epoch of a restored log; see package repair.
const leastEpoch = 2

// Partition is where a partition ends in a backup.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// Acknowledged is the end of what was acknowledged when the backup began: it is
	// all there. End is the end of what there is.
	Acknowledged int64 `json:"acknowledged"`
	End          int64 `json:"end"`
}

// Manifest describes a backup.
type Manifest struct {
	Format     int         `json:"format"`
	LogID      uint64      `json:"log_id"`
	Epoch      int64       `json:"epoch"`
	Began      time.Time   `json:"began"`
	Partitions []Partition `json:"partitions"`
}

// Refusals.
var (
	// ErrNotEmpty reports that the target is there already.
	ErrNotEmpty = errors.New("the target is there already: name a directory that is not")
	// ErrNoBackup reports that a directory holds no complete backup.
	ErrNoBackup = errors.New("there is no complete backup: " + FileName + " is missing")
)

// Point is what was acknowledged when a backup began, by place.
type Point []int64

// Seal makes a backup of copies of both stores in dir: it reads them, finds
// everything up to the point, and writes account and manifest. Facts are those of
// the log. A crash leaves a directory without a manifest.
func Seal(ctx context.Context, fs vfs.FS, dir string, facts ends.Facts, point Point, began time.Time) (*Manifest, error) {
	facts.Backup, facts.New, facts.OpenUnsynced = true, false, false
	a := ends.Account{Facts: facts}
	walk := layout.Walk{Facts: facts, Tail: layout.WalkedSegments}
	err := read(fs, fs.PathJoin(dir, ends.State.String()), func(db *pebble.DB) (err error) {
		if a.State, _, err = layout.Newest(db, ends.Commit{}, true); err != nil {
			return err
		}
		walk.Firsts, err = layout.Firsts(db, &facts)
		return err
	})
	if err == nil {
		err = read(fs, fs.PathJoin(dir, ends.Records.String()), func(db *pebble.DB) error { return walk.Run(ctx, db) })
	}
	if err != nil {
		return nil, err
	}
	if len(walk.Findings) > 0 {
		return nil, &layout.DamageError{Directory: dir, Findings: walk.Findings}
	}
	m := &Manifest{Format: ends.Format, LogID: facts.LogID, Epoch: facts.Epoch, Began: began}
	for p, at := range walk.Places {
		topic, number := facts.Topic(uint16(p/facts.Partitions+1)), int32(p%facts.Partitions)
		end := max(at.Next, walk.Firsts[p])
		if end < point[p] {
			return nil, fmt.Errorf("the copy of %s partition %d ends at %d, %d was acknowledged", topic, number, end, point[p])
		}
		m.Partitions = append(m.Partitions, Partition{Topic: topic, Partition: number, Acknowledged: point[p], End: end})
	}
	a.Places = walk.Places
	for _, store := range []ends.Store{ends.Records, ends.State} {
		if err := layout.Describe(fs, dir, &a, store); err != nil {
			return nil, err
		}
	}
	account, err := ends.Create(fs, dir, a, 0)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	return m, errors.Join(err, account.Close(), writeFile(fs, fs.PathJoin(dir, FileName), text), syncDirectory(fs, dir))
}

// read opens a store for reading alone.
func read(fs vfs.FS, dir string, fn func(*pebble.DB) error) error {
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, ReadOnly: true, ErrorIfNotExists: true, FormatMajorVersion: layout.StoreFormat, Logger: silent{}})
	if err != nil {
		return fmt.Errorf("open the copy %s: %w", dir, err)
	}
	return errors.Join(fn(db), db.Close())
}

// silent is a logger: what matters of a copy is in its errors.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}

// Fatalf does not return, as Pebble wants it.
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// Load reads the manifest of a backup.
func Load(fs vfs.FS, dir string) (*Manifest, error) {
	f, err := fs.Open(fs.PathJoin(dir, FileName))
	if oserror.IsNotExist(err) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoBackup)
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	m := &Manifest{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s: %w", fs.PathJoin(dir, FileName), err)
	}
	return m, nil
}

// Restore makes a log in the directory to, which must not be there, of a backup,
// which stays as it is. The log's epoch is above the backup's and at least the
// given one: state and readers' positions of earlier epochs do not count any more.
// A crash leaves to missing and a directory beside it to be removed.
func Restore(fs vfs.FS, from, to string, epoch int64) (*Manifest, error) {
	m, err := Load(fs, from)
	if err != nil {
		return nil, err
	}
	loaded, err := ends.Load(fs, from)
	if err != nil {
		return nil, err
	}
	if !loaded.Backup || loaded.LogID != m.LogID {
		return nil, fmt.Errorf("%s: its account is not the backup's", from)
	}
	if _, err := fs.Stat(to); !oserror.IsNotExist(err) {
		return nil, errors.Join(fmt.Errorf("%s: %w", to, ErrNotEmpty), err)
	}
	building := to + ".restoring"
	if err := errors.Join(fs.RemoveAll(building), fs.MkdirAll(building, 0o700)); err != nil {
		return nil, err
	}
	for _, store := range []ends.Store{ends.Records, ends.State} {
		if err := copyStore(fs, fs.PathJoin(from, store.String()), fs.PathJoin(building, store.String())); err != nil {
			return nil, err
		}
	}
	a := loaded.Account
	a.Backup, a.Epoch = false, max(a.Epoch+1, leastEpoch, epoch)
	m.Epoch = a.Epoch
	account, err := ends.Create(fs, building, a, loaded.Generation)
	if err != nil {
		return nil, err
	}
	return m, errors.Join(account.Close(), syncDirectory(fs, building), fs.Rename(building, to), syncDirectory(fs, fs.PathDir(to)))
}

func copyStore(fs vfs.FS, from, to string) error {
	if err := fs.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names, err := fs.List(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == "LOCK" {
			continue
		}
		if err := copyFile(fs, fs.PathJoin(from, name), fs.PathJoin(to, name)); err != nil {
			return fmt.Errorf("copy %s: %w", fs.PathJoin(from, name), err)
		}
	}
	return syncDirectory(fs, to)
}

func copyFile(fs vfs.FS, from, to string) (err error) {
	in, err := fs.Open(from, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := fs.Create(to, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

func writeFile(fs vfs.FS, path string, data []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
