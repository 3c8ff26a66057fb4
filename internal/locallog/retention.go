package locallog

import (
	"bytes"
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

// sweep deletes the hidden records of the segments that are no longer written, and
// the segments that nothing is left of. Tables end where topics do, so this drops
// whole tables and frees their space at once, without a compaction. A crash leaves
// some for the next sweep.
//
// Behind the oldest segment of which something is left (a takeover of rides may stay
// for weeks) the first of a run of empty ones keeps its header, which states where
// the records before it end: so an open knows that the numbers behind it are missing
// because retention has passed them. The newest segments, which an open reads
// through, all stay.
func (l *Log) sweep() error {
	l.retaining.Lock()
	defer l.retaining.Unlock()
	l.segments.RLock()
	all := slices.Clone(l.segments.all)
	l.segments.RUnlock()
	left := make([]segment, 0, len(all))
	var gone []stretch
	inRun := true // nothing is kept of the segment before, if there is one
	for i, s := range all {
		if i+1 == len(all) {
			left = append(left, s)
			break
		}
		hidden, kept := l.hiddenIn(s, all[i+1])
		old := i+layout.WalkedSegments < len(all)
		if !kept && inRun && (old || len(left) == 0) {
			gone = append(gone, stretch{start: layout.SegmentKey(s.Number), end: layout.SegmentKey(all[i+1].Number)})
		} else {
			left = append(left, s)
			gone = append(gone, hidden...)
		}
		inRun = !kept
	}
	// The index first: nobody looks for what is about to go.
	l.segments.Lock()
	l.segments.all = append(left, l.segments.all[len(all):]...)
	l.segments.Unlock()
	for _, g := range merge(gone) {
		if err := l.excise(g.start, g.end); err != nil {
			return err
		}
		for _, swept := range g.swept {
			*swept = true
		}
	}
	return nil
}

// stretch is a run of keys to delete.
type stretch struct {
	start, end []byte
	swept      []*bool // become true with it
}

// merge joins stretches of which one begins where the other ends: each deletion
// costs a sync.
func merge(all []stretch) []stretch {
	var out []stretch
	for _, s := range all {
		if n := len(out); n > 0 && bytes.Equal(out[n-1].end, s.start) {
			out[n-1].end = s.end
			out[n-1].swept = append(out[n-1].swept, s.swept...)
			continue
		}
		out = append(out, s)
	}
	return out
}

// hiddenIn returns the stretches of a segment whose records are all hidden and not
// yet deleted, and reports whether any records of the segment are kept.
func (l *Log) hiddenIn(s, next segment) (hidden []stretch, kept bool) {
	joins := false // nothing kept lies between the last stretch and the next partition
	for _, t := range l.ordered {
		for i := range t.partitions {
			index := t.index + i
			switch {
			case s.swept[index], s.Starts[index].Next == next.Starts[index].Next: // has none here
			case t.partitions[i].bounds().First < next.Starts[index].Next:
				kept, joins = true, false
			default:
				end := layout.PartitionKey(s.Number, t.id, uint32(i)+1)
				if joins {
					last := &hidden[len(hidden)-1]
					last.end, last.swept = end, append(last.swept, &s.swept[index])
					continue
				}
				hidden = append(hidden, stretch{layout.PartitionKey(s.Number, t.id, uint32(i)), end, []*bool{&s.swept[index]}})
				joins = true
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
