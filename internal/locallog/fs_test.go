package locallog

import (
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"
)

// gate is a file system whose syncs of the record store's write-ahead log can
// be held back.
type gate struct {
	vfs.FS
	mu sync.RWMutex
}

func newGate(fs vfs.FS) *gate {
	g := &gate{}
	g.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isSync(op.Kind) && isRecordLog(op.Path) {
			g.mu.RLock()
			defer g.mu.RUnlock()
		}
		return nil
	}))
	return g
}

func isSync(kind errorfs.OpKind) bool {
	return kind == errorfs.OpFileSync || kind == errorfs.OpFileSyncData || kind == errorfs.OpFileSyncTo
}

func isRecordLog(path string) bool {
	return strings.Contains(path, "/records/") && strings.HasSuffix(path, ".log")
}

func (g *gate) hold(*testing.T) func() {
	g.mu.Lock()
	return g.mu.Unlock
}

func newRegistry() prometheus.Registerer { return prometheus.NewRegistry() }
