package locallog

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tripwire is the file system under both stores. The first error of a
// write-ahead log fails the whole log, and the call that met it never returns.
// Left to itself Pebble panics in some of these places with its locks half
// released, which no one above can recover from.
//
// Errors of tables are Pebble's: it tries them again.
type tripwire struct {
	vfs.FS
	armed atomic.Bool // once the log is open; before that Open answers errors
	fail  func(error)
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

func isLogFile(name string) bool { return strings.HasSuffix(name, ".log") }

func (t *tripwire) watch(name string, f vfs.File, err error) (vfs.File, error) {
	if !isLogFile(name) {
		if err == nil && isTable(name) {
			f = politeFile{f}
		}
		return f, err
	}
	if err = t.check("create", name, err); err != nil {
		return nil, err
	}
	return &trippedFile{File: f, wire: t, name: name}, nil
}

// Create implements vfs.FS.
func (t *tripwire) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := t.FS.Create(name, category)
	return t.watch(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (t *tripwire) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := t.FS.ReuseForWrite(oldname, newname, category)
	return t.watch(newname, f, err)
}

// OpenDir implements vfs.FS. A new log's name is durable when its directory
// is synced.
func (t *tripwire) OpenDir(name string) (vfs.File, error) {
	f, err := t.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &trippedFile{File: f, wire: t, name: name}, nil
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
