package lake

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// files is where the files of a lake are: a local directory or a bucket of S3. Paths
// count from the lake's root and have slashes.
type files interface {
	// put makes a file durable, whole or not at all, in place of one of that path.
	put(ctx context.Context, path string, write func(io.Writer) error) (size int64, err error)
	// list returns what is directly in a directory, by name; nothing if it is not there.
	list(ctx context.Context, dir string) ([]entry, error)
	// has returns whether there is a file of that path.
	has(ctx context.Context, path string) (bool, error)
	// open fails with fs.ErrNotExist if there is none.
	open(ctx context.Context, path string) (file, error)
	// remove deletes a file; one that is not there is no error.
	remove(ctx context.Context, path string) error
	// String names the place.
	String() string
}

// file is read at any place; reads may come at once.
type file interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// entry is a file or a directory.
type entry struct {
	name     string
	dir      bool
	bytes    int64
	modified time.Time
}

// filesAt returns where a lake is: a directory, or s3://bucket/prefix.
func filesAt(where string) (files, error) {
	if strings.HasPrefix(where, s3Scheme) {
		return newBucket(where)
	}
	return &directory{root: where, step: func(string) error { return nil }}, nil
}

// Check returns why a lake can't be there, or nil. It asks nobody.
func Check(where string) error {
	_, err := filesAt(where)
	return err
}

// directory keeps files in a local directory.
type directory struct {
	root string
	// step is called before each durable step; tests stop there.
	step func(name string) error
}

func (d *directory) String() string { return d.root }

func (d *directory) at(path string) string { return filepath.Join(d.root, filepath.FromSlash(path)) }

// put writes a temporary file, syncs it and renames it: a crash before the rename
// leaves a temporary file, one after it a whole file.
func (d *directory) put(_ context.Context, path string, write func(io.Writer) error) (size int64, err error) {
	path = d.at(path)
	dir, base := filepath.Split(path)
	if err := makeDirs(dir); err != nil {
		return 0, err
	}
	// What a crash has left of the same file. A writer that was replaced may still be
	// at it; its rename fails then.
	old, err := filepath.Glob(filepath.Join(dir, "."+base+".*.tmp"))
	if err != nil {
		return 0, err
	}
	for _, f := range old {
		if err := removeIfThere(f); err != nil {
			return 0, err
		}
	}
	if err := d.step("create"); err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(dir, "."+base+".*.tmp")
	if err != nil {
		return 0, err
	}
	err = write(f)
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = d.step("rename")
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return 0, errors.Join(err, removeIfThere(f.Name()))
	}
	if err := d.step("sync"); err != nil {
		return 0, err
	}
	return size, syncDir(dir)
}

func (d *directory) list(_ context.Context, dir string) ([]entry, error) {
	found, err := os.ReadDir(d.at(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make([]entry, 0, len(found))
	for _, f := range found {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, entry{f.Name(), f.IsDir(), info.Size(), info.ModTime()})
	}
	return out, nil
}

func (d *directory) has(_ context.Context, path string) (bool, error) {
	_, err := os.Stat(d.at(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// localFile is an open file and its size.
type localFile struct {
	*os.File
	size int64
}

// Size implements file.
func (f localFile) Size() int64 { return f.size }

func (d *directory) open(_ context.Context, path string) (file, error) {
	f, err := os.Open(d.at(path))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return localFile{f, info.Size()}, nil
}

// remove is durable when it returns.
func (d *directory) remove(_ context.Context, path string) error {
	path = d.at(path)
	if err := removeIfThere(path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// makeDirs makes a directory and its parents, each durable in its own parent.
func makeDirs(dir string) error {
	dir = filepath.Clean(dir)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
