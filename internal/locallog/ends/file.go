package ends

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// RepairName is a directory beside the account while a repair is to be finished.
const RepairName = "repair-ready"

// pageBytes is what slots are aligned to, so that writing one touches no page of
// the other.
const pageBytes = 4096

// writeCategory names the writes in Pebble's statistics of the disk.
const writeCategory vfs.DiskWriteCategory = "starling-ends"

// Loaded is an account as it was found.
type Loaded struct {
	Account
	Generation uint64
	// Damaged reports why one slot of the two could not be read, or nil: damage, or
	// a crash while it was written.
	Damaged error
}

// ErrMissing reports that there is no account.
var ErrMissing = errors.New("the file " + FileName + " is missing")

// Load reads the account of a directory. It fails with ErrMissing if there is
// none, and with ErrDamaged when neither slot can be read.
func Load(fs vfs.FS, dir string) (*Loaded, error) {
	f, err := fs.Open(fs.PathJoin(dir, FileName))
	if oserror.IsNotExist(err) {
		return nil, ErrMissing
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", FileName, err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", FileName, err)
	}
	first, firstErr := decodeSlot(data)
	middle := int64(len(data)) / 2
	if firstErr == nil {
		middle = first.bytes
	}
	second, secondErr := slot{}, fmt.Errorf("%w: it is missing", ErrDamaged)
	if middle >= headBytes && middle < int64(len(data)) {
		second, secondErr = decodeSlot(data[middle:])
	}
	for _, err := range []error{firstErr, secondErr} {
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
	}
	switch {
	case firstErr != nil && secondErr != nil:
		return nil, fmt.Errorf("both slots of %s: first: %w; second: %w", FileName, firstErr, secondErr)
	case firstErr != nil:
		return &Loaded{second.account, second.generation, fmt.Errorf("first slot of %s: %w", FileName, firstErr)}, nil
	case secondErr != nil:
		return &Loaded{first.account, first.generation, fmt.Errorf("second slot of %s: %w", FileName, secondErr)}, nil
	case first.generation > second.generation:
		return &Loaded{Account: first.account, Generation: first.generation}, nil
	}
	return &Loaded{Account: second.account, Generation: second.generation}, nil
}

// File is the account of a log that is open. It is safe for concurrent use.
type File struct {
	fs        vfs.FS
	dir       string
	file      vfs.File
	slotBytes int64

	mu      sync.Mutex
	account Account
	facts   []byte // encoded
	changed uint64 // counts the changes of account

	writing    sync.Mutex // held while a slot is written; before mu
	generation uint64
	older      int64  // where the slot with the lower generation begins
	stored     uint64 // the changes that are durable
	buffer     []byte
}

// Create writes a new account in place of one that may be there, as one step: a
// crash leaves the one or the other. Generations go on behind the given one.
// Capacity is left for so many places.
func Create(fs vfs.FS, dir string, a Account, generation uint64) (*File, error) {
	a.Format = Format
	a = a.clone()
	if err := a.check(); err != nil {
		return nil, err
	}
	w := &File{fs: fs, dir: dir, account: a, generation: generation}
	if err := w.encodeFacts(); err != nil {
		return nil, err
	}
	const growth = 16 << 10 // of the facts, MANIFESTs and logs
	need := int64(headBytes + len(w.facts) + growth + len(a.Places)*placeBytes)
	w.slotBytes = (need + pageBytes - 1) / pageBytes * pageBytes
	temporary, name := fs.PathJoin(dir, FileName+".new"), fs.PathJoin(dir, FileName)
	f, err := fs.Create(temporary, writeCategory)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", FileName, err)
	}
	both := make([]byte, 2*w.slotBytes)
	for i := range int64(2) {
		w.generation++
		copy(both[i*w.slotBytes:], encodeSlot(nil, w.facts, &w.account, w.generation, w.slotBytes))
	}
	_, err = f.Write(both)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("write %s: %w", FileName, err)
	}
	if err := fs.Rename(temporary, name); err != nil {
		return nil, fmt.Errorf("replace %s: %w", FileName, err)
	}
	if err := syncDirectory(fs, dir); err != nil {
		return nil, err
	}
	if w.file, err = fs.OpenReadWrite(name, writeCategory); err != nil {
		return nil, fmt.Errorf("open %s: %w", FileName, err)
	}
	return w, nil
}

func (a *Account) clone() Account {
	c := *a
	c.Places, c.Manifests, c.Logs, c.Gaps = slices.Clone(a.Places), slices.Clone(a.Manifests), slices.Clone(a.Logs), slices.Clone(a.Gaps)
	return c
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (w *File) encodeFacts() error {
	facts, err := json.Marshal(w.account.Facts)
	w.facts = facts
	return err
}

// Update changes the account in memory. Flush makes it durable.
func (w *File) Update(change func(a *Account)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.account)
	w.changed++
}

// UpdateFacts is Update for a change that touches the facts.
func (w *File) UpdateFacts(change func(a *Account)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.account)
	w.changed++
	return w.encodeFacts()
}

// Account returns a copy of the account in memory.
func (w *File) Account() Account {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.account.clone()
}

// Flush returns when all changes made before it are durable. Calls that come
// while a slot is being written share the next one. After an error the file is
// not to be used any more: what is on disk is open.
func (w *File) Flush() error {
	w.mu.Lock()
	mine := w.changed
	w.mu.Unlock()
	w.writing.Lock()
	defer w.writing.Unlock()
	if w.stored >= mine {
		return nil
	}
	w.mu.Lock()
	covers := w.changed
	w.buffer = encodeSlot(w.buffer, w.facts, &w.account, w.generation+1, w.slotBytes)
	w.mu.Unlock()
	if int64(len(w.buffer)) > w.slotBytes {
		return fmt.Errorf("write %s: %d bytes do not fit into a slot of %d", FileName, len(w.buffer), w.slotBytes)
	}
	// A crash from here on leaves this slot torn or whole; the other one holds
	// what was durable before.
	w.generation++
	at := w.older
	w.older = w.slotBytes - at
	if _, err := w.file.WriteAt(w.buffer, at); err != nil {
		return fmt.Errorf("write %s: %w", FileName, err)
	}
	if err := w.file.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", FileName, err)
	}
	w.stored = covers
	return nil
}

// Close releases the file; it writes nothing.
func (w *File) Close() error { return w.file.Close() }
