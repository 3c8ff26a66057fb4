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
	low   atomic.Int64  // the low-water mark, in bytes
	look  chan struct{} // capacity 1
}

// mostLowWater bounds the mark's share of a large disk.
const mostLowWater = 16 << 30

// lowWater is the mark on a disk of so many bytes.
func (c *Config) lowWater(total uint64) int64 {
	share := int64(float64(total) / 100 * c.LowWaterPercent)
	return max(c.LowWaterFreeBytes, min(share, mostLowWater))
}

// workingBytes is what the log needs on a disk besides the mark before it keeps
// anything: the write-ahead logs and memtables of both stores, and a merge.
func (c *Config) workingBytes() int64 { return 8*c.SegmentBytes + 8*c.StateMemtableBytes }

// announceSpace logs at the start what the disk leaves to the log.
func (l *Log) announceSpace() {
	usage, err := l.env.fs.GetDiskUsage(l.cfg.Directory)
	if err != nil {
		return // checkSpace has warned
	}
	total, low := int64(min(usage.TotalBytes, 1<<62)), l.space.low.Load()
	if need := low + l.cfg.workingBytes(); total < need {
		l.logger.Error("the disk is too small for the log: fixes will soon be refused", "total_bytes", total, "needed_bytes", need, "low_water_bytes", low)
		return
	}
	l.logger.Info("the log's disk", "total_bytes", total, "free_bytes", l.space.free.Load(), "low_water_bytes", low)
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
	if l.space.known.Load() && free < l.space.low.Load() {
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
	l.space.low.Store(l.cfg.lowWater(usage.TotalBytes))
	l.space.free.Store(free)
	l.space.known.Store(true)
	l.judge(free)
}

// judge decides which topics are refused. Fixes go first, and what follows
// from those already taken at half the low water: so the roles can finish, and
// retention can delete, what is in the log. Checkpoints are always taken.
func (l *Log) judge(free int64) {
	for _, t := range l.ordered {
		low := l.space.low.Load()
		if t.decl.Name != topics.Locations {
			low /= 2
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
