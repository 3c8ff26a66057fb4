package locallog

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// tripwire is the file system under both stores. The first error of a
// write-ahead log fails the whole log, and the call that met it never returns.
// Left to itself Pebble panics in some of these places with its locks half
// released, which no one above can recover from.
//
// Errors of tables are Pebble's: it tries them again.
//
// It also enters in the account how much of a store's MANIFEST is durable and
// which write-ahead logs there are.
type tripwire struct {
	vfs.FS
	armed atomic.Bool // once the log is open; before that Open answers errors
	fail  func(error)
	dir   string     // the log's: files elsewhere, those of a backup, are none of its
	ends  *ends.File // set before a store is opened for writing

	pauses atomic.Int32 // errors of tables since the last success

	mu   sync.Mutex
	made []ends.Log // whose names may not be durable yet
}

// Unwrap implements vfs.FS.
func (t *tripwire) Unwrap() vfs.FS { return t.FS }

// check stops the goroutine that has met an error.
func (t *tripwire) check(what, name string, err error) error {
	if err == nil || !t.armed.Load() {
		return err
	}
	t.fail(fmt.Errorf("%s %s: %w", what, name, err))
	select {}
}

// foreign reports that a file is in none of the stores.
func (t *tripwire) foreign(name string) bool { return t.PathDir(t.PathDir(name)) != t.dir }

func isLogFile(name string) bool { return strings.HasSuffix(name, ".log") }

func (t *tripwire) watch(name string, f vfs.File, err error) (vfs.File, error) {
	if number, ok := layout.ManifestNumber(t.PathBase(name)); ok && err == nil {
		return &manifestFile{File: f, wire: t, name: name, store: t.storeOf(name), number: number}, nil
	}
	if !isLogFile(name) {
		if isTable(name) {
			if err != nil {
				t.pause(err)
				return nil, err
			}
			f = politeFile{f, t}
		}
		return f, err
	}
	if err = t.check("create", name, err); err != nil {
		return nil, err
	}
	return &trippedFile{File: f, wire: t, name: name}, nil
}

func (t *tripwire) storeOf(name string) ends.Store {
	if t.PathBase(t.PathDir(name)) == ends.Records.String() {
		return ends.Records
	}
	return ends.State
}

// logMade takes note of a new write-ahead log.
func (t *tripwire) logMade(name string, err error) {
	if number, ok := layout.LogNumber(t.PathBase(name)); ok && err == nil && t.ends != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.made = append(t.made, ends.Log{Store: t.storeOf(name), Number: number})
	}
}

// syncNames syncs a directory and enters the new logs in it in the account: in
// memory, since whatever is acknowledged of them flushes the account first.
func (t *tripwire) syncNames(dir string, sync func() error) error {
	t.mu.Lock()
	made := slices.Clone(t.made)
	t.mu.Unlock()
	if err := sync(); err != nil || len(made) == 0 {
		return err
	}
	for _, l := range made {
		if l.Store.String() != t.PathBase(dir) {
			continue
		}
		t.ends.Update(func(a *ends.Account) { a.AddLog(l) })
		t.mu.Lock()
		t.made = slices.DeleteFunc(t.made, func(other ends.Log) bool { return other == l })
		t.mu.Unlock()
	}
	return nil
}

// logGoes takes a write-ahead log out of the account, durably, before it goes. A
// crash in between leaves one that is not in the account and holds nothing that
// is not in tables.
func (t *tripwire) logGoes(name string) error {
	number, ok := layout.LogNumber(t.PathBase(name))
	if !ok || t.ends == nil {
		return nil
	}
	gone := ends.Log{Store: t.storeOf(name), Number: number}
	t.mu.Lock()
	t.made = slices.DeleteFunc(t.made, func(other ends.Log) bool { return other == gone })
	t.mu.Unlock()
	t.ends.Update(func(a *ends.Account) { a.DropLog(gone) })
	return t.check("drop from the account", name, t.ends.Flush())
}

// Create implements vfs.FS.
func (t *tripwire) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if t.foreign(name) {
		return t.FS.Create(name, category)
	}
	f, err := t.patiently(func() (vfs.File, error) { return t.FS.Create(name, category) })
	t.logMade(name, err)
	return t.watch(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (t *tripwire) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if t.foreign(newname) {
		return t.FS.ReuseForWrite(oldname, newname, category)
	}
	if err := t.logGoes(oldname); err != nil {
		return nil, err
	}
	f, err := t.patiently(func() (vfs.File, error) { return t.FS.ReuseForWrite(oldname, newname, category) })
	t.logMade(newname, err)
	return t.watch(newname, f, err)
}

// Remove implements vfs.FS.
func (t *tripwire) Remove(name string) error {
	if t.foreign(name) {
		return t.FS.Remove(name)
	}
	if err := t.logGoes(name); err != nil {
		return err
	}
	return t.FS.Remove(name)
}

// OpenDir implements vfs.FS. A new log's name is durable when its directory
// is synced.
func (t *tripwire) OpenDir(name string) (vfs.File, error) {
	if t.PathDir(name) != t.dir {
		return t.FS.OpenDir(name)
	}
	f, err := t.patiently(func() (vfs.File, error) { return t.FS.OpenDir(name) })
	if err != nil {
		return nil, err
	}
	return &trippedDir{trippedFile{File: f, wire: t, name: name}}, nil
}

// trippedDir is a directory.
type trippedDir struct{ trippedFile }

// Sync implements vfs.File.
func (d *trippedDir) Sync() error {
	return d.wire.check("sync", d.name, d.wire.syncNames(d.name, d.File.Sync))
}

// trippedFile is a write-ahead log's file, or a directory.
type trippedFile struct {
	vfs.File
	wire *tripwire
	name string
}

// Write implements vfs.File.
func (f *trippedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.wire.check("write", f.name, err)
}

// Sync implements vfs.File.
func (f *trippedFile) Sync() error {
	return f.wire.check("sync", f.name, f.File.Sync())
}

// SyncTo implements vfs.File.
func (f *trippedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.wire.check("sync", f.name, err)
}

// SyncData implements vfs.File.
func (f *trippedFile) SyncData() error {
	return f.wire.check("sync", f.name, f.File.SyncData())
}

// Close implements vfs.File.
func (f *trippedFile) Close() error {
	return f.wire.check("close", f.name, f.File.Close())
}

// manifestFile is a store's MANIFEST, which is only ever appended to. When Pebble
// has synced it the account gets to know, and only then may Pebble go by it.
type manifestFile struct {
	vfs.File
	wire   *tripwire
	name   string
	store  ends.Store
	number uint64
	bytes  int64
	sum    xxhash.Digest
	begun  bool
}

// Write implements vfs.File.
func (f *manifestFile) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.sum.Reset()
	}
	// Before the write, which may use the bytes up. A write that fails fails the log.
	f.bytes += int64(len(p))
	_, _ = f.sum.Write(p)
	return f.File.Write(p)
}

// Sync implements vfs.File.
func (f *manifestFile) Sync() error { return f.synced(f.File.Sync()) }

// SyncData implements vfs.File.
func (f *manifestFile) SyncData() error { return f.synced(f.File.SyncData()) }

func (f *manifestFile) synced(err error) error {
	if err == nil && f.begun {
		f.wire.ends.Update(func(a *ends.Account) {
			a.SetManifest(ends.Manifest{Store: f.store, Number: f.number, Bytes: f.bytes, Sum: f.sum.Sum64()})
		})
		err = f.wire.ends.Flush()
	}
	return f.wire.check("sync", f.name, err)
}
