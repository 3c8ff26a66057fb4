package locallog

import (
	"runtime"
	"strings"

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
type politeFile struct{ vfs.File }

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// Write implements vfs.File.
func (f politeFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	runtime.Gosched()
	return n, err
}
