package locallog

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// retain looks for old records at every interval.
func (l *Log) retain() {
	defer l.recoverStore()
	ticker := time.NewTicker(l.cfg.RetentionInterval)
	defer ticker.Stop()
	for {
		if err := l.retainOnce(stampJump); err != nil {
			l.logger.Error("old records could not be deleted", "error", err)
		}
		select {
		case <-ticker.C:
		case <-l.stopped:
			return
		}
	}
}

// retainOnce deletes the records that are older than their topic's retention, or
// beyond its bytes, in whole segments, and never what an owners' group has yet to read. Age is
// counted back from the log's own newest stamp, and not by one that has only just
// jumped there by more than jump, or two segments' age (see settledMS).
func (l *Log) retainOnce(jump time.Duration) error {
	nowMS := l.settledMS(max(jump, 2*l.cfg.SegmentAge))
	for _, t := range l.ordered {
		if t.decl.Compacted || t.decl.Retention <= 0 && t.keepBytes == 0 {
			continue
		}
		cutoff := int64(math.MinInt64)
		if t.decl.Retention > 0 {
			cutoff = nowMS - t.decl.Retention.Milliseconds()
		}
		over, err := l.beyondBytes(t)
		if err != nil {
			return err
		}
		for i := range t.partitions {
			p := &t.partitions[i]
			before := max(l.segments.expired(t.index+i, cutoff), over.start(t.index+i))
			for _, resume := range l.resumes(t.decl.Name, int32(i)) {
				before = min(before, resume)
			}
			if err := l.truncate(p, before); err != nil {
				return err
			}
		}
	}
	return l.sweep()
}

// settledMS is the time that retention goes by.
func (l *Log) settledMS(jump time.Duration) int64 {
	l.segments.RLock()
	stamps := make([]int64, 0, len(l.segments.all)+1)
	for _, s := range l.segments.all {
		stamps = append(stamps, s.TimeMS)
	}
	l.segments.RUnlock()
	stamps = append(stamps, l.newestMS.Load())
	settled := settledMS(stamps, jump, stampStay)
	l.metrics.retentionLag.Store(stamps[len(stamps)-1] - settled)
	return settled
}

// expired returns the offset of a partition below which all records are older
// than the cutoff: the start of the newest segment that began before it.
func (s *segments) expired(index int, cutoffMS int64) int64 {
	s.RLock()
	defer s.RUnlock()
	before := int64(0)
	for _, seg := range s.all {
		if seg.TimeMS >= cutoffMS {
			break
		}
		before = seg.Starts[index].Next
	}
	return before
}

// truncate hides a partition's records below an offset, durably; sweep deletes
// them. A crash in between leaves them for the next sweep.
func (l *Log) truncate(p *partition, before int64) error {
	l.retaining.Lock()
	defer l.retaining.Unlock()
	if before <= p.bounds().First {
		return nil
	}
	b := l.state.NewBatch()
	if err := b.Set(layout.FirstKey(p.topic.id, uint32(p.number)), binary.AppendUvarint(nil, uint64(before)), nil); err != nil {
		return err
	}
	if err := l.apply(b, true); err != nil {
		return fmt.Errorf("store the oldest offset of %s partition %d: %w", p.topic.decl.Name, p.number, err)
	}
	p.shown.Lock()
	p.first = before
	p.shown.Unlock()
	return nil
}

// sweep deletes the hidden records of the segments that are no longer written,
// and the leading segments that nothing is left of. Pebble takes the range out
// of its tables at once: unlike a range tombstone this frees the space without
// a compaction. A crash leaves some for the next sweep.
func (l *Log) sweep() error {
	l.retaining.Lock()
	defer l.retaining.Unlock()
	l.segments.RLock()
	all := slices.Clone(l.segments.all)
	l.segments.RUnlock()
	dropped := 0
	for i := 0; i+1 < len(all); i++ {
		hidden, kept := l.hiddenIn(all[i], all[i+1])
		if !kept && dropped == i {
			dropped++
			continue
		}
		for _, p := range hidden {
			if err := l.excise(layout.PartitionKey(all[i].Number, p.topic.id, uint32(p.number)), layout.PartitionKey(all[i].Number, p.topic.id, uint32(p.number)+1)); err != nil {
				return err
			}
			all[i].swept[p.topic.index+int(p.number)] = true
		}
	}
	if dropped == 0 {
		return nil
	}
	// The index first: nobody looks for what is about to go.
	l.segments.Lock()
	l.segments.all = slices.Clone(l.segments.all[dropped:])
	l.segments.Unlock()
	return l.excise(layout.SegmentKey(all[0].Number), layout.SegmentKey(all[dropped].Number))
}

// hiddenIn returns the partitions whose records in a segment are all hidden and
// not yet deleted, and reports whether any records of the segment are kept.
func (l *Log) hiddenIn(s, next segment) (hidden []*partition, kept bool) {
	for _, t := range l.ordered {
		for i := range t.partitions {
			index := t.index + i
			switch {
			case s.Starts[index].Next == next.Starts[index].Next: // has none here
			case t.partitions[i].bounds().First < next.Starts[index].Next:
				kept = true
			case !s.swept[index]:
				hidden = append(hidden, &t.partitions[i])
			}
		}
	}
	return hidden, kept
}

func (l *Log) excise(start, end []byte) error {
	if err := l.records.Excise(context.Background(), pebble.KeyRange{Start: start, End: end}); err != nil {
		return fmt.Errorf("delete old records: %w", err)
	}
	return nil
}

// start is where a partition's records begin in the segment; 0 of none.
func (s *segment) start(index int) int64 {
	if s == nil {
		return 0
	}
	return s.Starts[index].Next
}

// beyondBytes returns the oldest segment whose records of a topic are kept by the
// topic's limit of bytes, or nil if all are. The segment that is being written
// always is. Sizes are of tables on disk: what is still in memory does not count.
func (l *Log) beyondBytes(t *topic) (*segment, error) {
	if t.keepBytes == 0 {
		return nil, nil
	}
	l.segments.RLock()
	all := l.segments.all
	l.segments.RUnlock()
	var sum int64
	for i := len(all) - 1; i >= 0; i-- {
		used, err := l.records.EstimateDiskUsage(layout.PartitionKey(all[i].Number, t.id, 0), layout.PartitionKey(all[i].Number, t.id+1, 0))
		if err != nil {
			return nil, fmt.Errorf("size of %s in segment %d: %w", t.decl.Name, all[i].Number, err)
		}
		if sum += int64(used); sum > t.keepBytes && i+1 < len(all) {
			return &all[i+1], nil
		}
	}
	return nil, nil
}
