package locallog

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
	"github.com/starling-fleet/starling/internal/throttle"
)

// reportInterval is the least time between two log lines about a store's errors of
// the same kind.
const reportInterval = 10 * time.Second

// openFiles is a store's share of the files that may be open.
func (l *Log) openFiles(store string) int {
	all := l.cfg.MaxOpenFiles
	if all == 0 {
		all = 1500
	}
	if store == ends.Records.String() {
		return all - all/3
	}
	return all / 3
}

// openStore opens one of the two Pebble stores. Pebble calls the logger's
// Fatalf when it cannot go on, possibly on this very call: then the opening
// goroutine is left behind.
func (l *Log) openStore(name string, opts *pebble.Options) (*pebble.DB, error) {
	opts.FS = l.wire
	opts.FormatMajorVersion = layout.StoreFormat
	opts.MaxOpenFiles = l.openFiles(name)
	report := &throttle.Throttle{Interval: reportInterval}
	opts.Logger = storeLogger{l, l.logger.With("store", name), &throttle.Throttle{Interval: reportInterval}}
	readOnly := opts.ReadOnly
	opts.EventListener = &pebble.EventListener{
		// The read that met it is answered with an error too, but what else the
		// damage has cost only a new start can show.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			if !readOnly {
				l.fail(fmt.Errorf("store %s: %s is damaged: %w", name, info.Path, info.Details))
			}
		},
		// Pebble tries again at once; tripwire makes it pause.
		BackgroundError: func(err error) {
			l.metrics.backgroundErrors.Inc()
			if more, pass := report.Pass(); pass {
				l.logger.Error("store works in the background and fails", "store", name, "error", err, "more_since_last_report", more)
			}
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			l.metrics.stalls.Inc()
			l.logger.Warn("store makes writers wait", "store", name, "reason", info.Reason)
		},
	}
	type opened struct {
		db  *pebble.DB
		err error
	}
	ch := make(chan opened, 1)
	go func() {
		db, err := pebble.Open(l.wire.PathJoin(l.cfg.Directory, name), opts)
		ch <- opened{db, err}
	}()
	select {
	case o := <-ch:
		if o.err != nil {
			return nil, fmt.Errorf("open store %s: %w", name, o.err)
		}
		return o.db, nil
	case <-l.failed:
		return nil, fmt.Errorf("open store %s: %w", name, l.Err())
	}
}

// recordOptions suit a store that is only appended to. Its memtable is larger
// than a segment, and is written out when the segment ends, in a table for each
// topic: every table belongs to one topic of one segment, moves down the levels
// without being rewritten, and goes as a whole when retention passes it. A table of
// several topics would stay on disk for the one that is kept longest.
func (l *Log) recordOptions() *pebble.Options {
	o := &pebble.Options{
		CacheSize:                   l.cfg.BlockCacheBytes,
		MemTableSize:                uint64(l.cfg.recordMemtableBytes()),
		MemTableStopWritesThreshold: 4,
		FlushDelayDeleteRange:       10 * time.Second, // so that retention frees space soon
	}
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = l.cfg.SegmentBytes
	}
	// The policy is the same everywhere; where it ends a table ends.
	o.Experimental.SpanPolicyFunc = func(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
		return policy, layout.BehindTopic(start), nil
	}
	largeBlocks(o)
	// Coordinates hardly compress, and compressing them took a sixth of the
	// whole process's CPU.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return o
}

// stateCacheBytes is the state store's cache: it is read at starts alone.
const stateCacheBytes = 8 << 20

// stateOptions suit a store whose keys are all written again and again.
func (l *Log) stateOptions() *pebble.Options {
	o := &pebble.Options{
		CacheSize:                   stateCacheBytes,
		MemTableSize:                uint64(l.cfg.StateMemtableBytes),
		MemTableStopWritesThreshold: 4,
		// Few large merges into one level instead of many through several: with a
		// million vehicles that was a quarter of the merging's CPU. A start reads
		// through what has not been merged, up to 2 GiB before checkpoints wait.
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 32,
		LBaseMaxBytes:         4 << 30,
	}
	largeBlocks(o)
	// What a checkpoint writes is soon written again, and numbers hardly
	// compress: compressing them took a fifth of a checkpoint's CPU.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return o
}

// storeLogger passes Pebble's messages on.
type storeLogger struct {
	log    *Log
	logger *slog.Logger
	report *throttle.Throttle // of errors
}

// Infof implements pebble.Logger.
func (s storeLogger) Infof(format string, args ...any) {
	s.logger.Debug(fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (s storeLogger) Errorf(format string, args ...any) {
	if more, pass := s.report.Pass(); pass {
		s.logger.Error(fmt.Sprintf(format, args...), "more_since_last_report", more)
	}
}

// Fatalf implements pebble.Logger. Pebble relies on it not to return: a commit
// that has failed would go on and answer that all is well. So the calling
// goroutine stops here for good, and the log fails.
func (s storeLogger) Fatalf(format string, args ...any) {
	s.log.fail(fmt.Errorf("store: "+format, args...))
	select {}
}
