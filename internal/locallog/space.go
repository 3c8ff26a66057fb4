package locallog

import (
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/schemas/topics"
)

// writeAmplification is how many bytes of disk a byte of records may take
// before the next look: write-ahead log, table, and space for a compaction.
const writeAmplification = 3

// space is what is known of the disk.
type space struct {
	free  atomic.Int64 // bytes, less what was written since the last look
	known atomic.Bool
	look  chan struct{} // capacity 1
}

// watchSpace looks at the free space at every interval, and sooner when much
// is written.
func (l *Log) watchSpace() {
	ticker := time.NewTicker(l.cfg.SpaceInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.space.look:
		case <-l.stopped:
			return
		}
		l.checkSpace()
		l.clock.watch(l.logger)
	}
}

// spend takes note of bytes written. When the estimate falls below the low
// water the topics refuse at once, and a look at the disk may lift that.
func (l *Log) spend(bytes int64) {
	free := l.space.free.Add(-bytes * writeAmplification)
	if l.space.known.Load() && free < l.cfg.LowWaterFreeBytes {
		l.judge(free)
		select {
		case l.space.look <- struct{}{}:
		default:
		}
	}
}

// checkSpace measures the free space.
func (l *Log) checkSpace() {
	usage, err := l.env.fs.GetDiskUsage(l.cfg.Directory)
	if err != nil {
		if l.space.known.Swap(false) {
			l.logger.Warn("free space of the disk is unknown", "error", err)
		}
		return
	}
	free := int64(min(usage.AvailBytes, 1<<62))
	l.space.free.Store(free)
	l.space.known.Store(true)
	l.judge(free)
}

// judge decides which topics are refused. Fixes go first, and what follows
// from those already taken at half the low water: so the roles can finish, and
// retention can delete, what is in the log. Checkpoints are always taken.
func (l *Log) judge(free int64) {
	for _, t := range l.ordered {
		low := l.cfg.LowWaterFreeBytes / 2
		if t.decl.Name == topics.Locations {
			low = l.cfg.LowWaterFreeBytes
		}
		refuse := free < low
		if t.refuse.Swap(refuse) == refuse {
			continue
		}
		if refuse {
			l.logger.Error("the disk is nearly full: appends are refused", "topic", t.decl.Name, "free_bytes", free, "low_water_bytes", low)
		} else {
			l.logger.Info("the disk has free space again: appends are taken", "topic", t.decl.Name, "free_bytes", free)
		}
	}
}
