package locallog

import (
	"errors"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tableBlockBytes is the size of a table's blocks. Pebble hands each block from
// one goroutine to another and writes it by itself; with its default of 4 kB that
// took more CPU than merging, and everything here is read in long runs.
const tableBlockBytes = 32 << 10

// largeBlocks sets it.
func largeBlocks(o *pebble.Options) {
	for i := range o.Levels {
		o.Levels[i].BlockSize = tableBlockBytes
	}
}

// politeFile is a table that Pebble writes in the background. The two goroutines
// that do it wake each other and so keep a processor for 10 ms at a time, which
// is how long Go lets such a pair run; whoever wants to answer a call waits
// behind them. After each write they go to the end of the queue instead.
type politeFile struct {
	vfs.File
	wire *tripwire
}

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// Write implements vfs.File.
func (f politeFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	runtime.Gosched()
	f.wire.pause(err)
	return n, err
}

// pause makes whoever writes tables wait after an error, longer and longer up to a
// second: Pebble tries again at once, and would do so thousands of times a second.
func (t *tripwire) pause(err error) {
	const shortest, longest = 10 * time.Millisecond, time.Second
	if err == nil {
		t.pauses.Store(0)
		return
	}
	n := t.pauses.Add(1)
	time.Sleep(min(shortest<<min(n, 10), longest))
}

// patiently tries to open a file again while the process or the machine has no
// descriptor free, for some seconds. Nothing was done to the disk meanwhile.
func (t *tripwire) patiently(open func() (vfs.File, error)) (vfs.File, error) {
	f, err := open()
	for wait := 10 * time.Millisecond; wait < 3*time.Second && (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)); wait *= 2 {
		time.Sleep(wait)
		f, err = open()
	}
	return f, err
}

// Open implements vfs.FS.
func (t *tripwire) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return t.patiently(func() (vfs.File, error) { return t.FS.Open(name, opts...) })
}
