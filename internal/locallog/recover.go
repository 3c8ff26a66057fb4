package locallog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sort"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-fleet/starling/schemas/topics"
)

// meta is what is fixed when the directory is created, and the epoch.
type meta struct {
	Format     int               `json:"format"`
	Partitions int               `json:"partitions"`
	TopicIDs   map[string]uint16 `json:"topic_ids"`
	Epoch      int64             `json:"epoch"`
	// OpenUnsynced is set while a process uses the log without fsync. Found at
	// the start it says that this process did not close it.
	OpenUnsynced bool `json:"open_unsynced"`
}

const metaFormat = 1

// recover opens the stores and restores what is kept in memory.
func (l *Log) recover(decls []topics.Topic) error {
	fs, dir := l.env.fs, l.cfg.Directory
	err := makeDirectory(fs, dir)
	if err != nil {
		return err
	}
	if l.lock, err = pebble.LockDirectory(dir, fs); err != nil {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if l.state, err = l.openStore("state", l.stateOptions()); err != nil {
		return err
	}
	m, err := l.loadMeta(decls)
	if err != nil {
		return err
	}
	l.buildTopics(decls, m)
	if l.records, err = l.openStore("records", l.recordOptions()); err != nil {
		return err
	}
	if err := syncDirectory(fs, dir); err != nil { // the names of the stores
		return err
	}
	if err := l.loadSegments(); err != nil {
		return err
	}
	if err := l.loadFirsts(); err != nil {
		return err
	}
	if err := l.loadClaims(); err != nil {
		return err
	}
	l.checkSpace()
	return nil
}

// makeDirectory makes a directory that survives a power cut.
func makeDirectory(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDirectory(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDirectory(fs, parent)
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// loadMeta reads or creates the log's facts and stores what this start changes.
// A crash before that is a start that has not happened.
func (l *Log) loadMeta(decls []topics.Topic) (meta, error) {
	m := meta{Format: metaFormat, Partitions: l.cfg.Partitions, TopicIDs: make(map[string]uint16)}
	value, closer, err := l.state.Get(metaKey())
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return m, err
	default:
		err := json.Unmarshal(value, &m)
		if closeErr := closer.Close(); err != nil || closeErr != nil {
			return m, fmt.Errorf("facts of the log are damaged: %w", errors.Join(err, closeErr))
		}
	}
	if m.Format != metaFormat {
		return m, fmt.Errorf("the directory has format %d, this version knows format %d", m.Format, metaFormat)
	}
	if m.Partitions != l.cfg.Partitions {
		return m, fmt.Errorf("partitions: the log was created with %d, the configuration says %d; the number cannot be changed", m.Partitions, l.cfg.Partitions)
	}
	if m.OpenUnsynced {
		m.Epoch++
		l.logger.Warn("the log was not closed while it ran without fsync: acknowledged records may be lost, the epoch is raised", "epoch", m.Epoch)
	}
	m.OpenUnsynced = !l.cfg.Sync
	for _, d := range decls {
		if _, ok := m.TopicIDs[d.Name]; !ok {
			m.TopicIDs[d.Name] = uint16(len(m.TopicIDs) + 1)
		}
	}
	l.epoch = m.Epoch
	return m, l.storeMeta(m)
}

func (l *Log) storeMeta(m meta) error {
	value, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b := l.state.NewBatch()
	if err := b.Set(metaKey(), value, nil); err != nil {
		return err
	}
	return l.apply(b, true)
}

// markClosed says that nothing was lost. The record store is closed by now:
// everything in it is on disk.
func (l *Log) markClosed() error {
	m := meta{Format: metaFormat, Partitions: l.cfg.Partitions, TopicIDs: make(map[string]uint16), Epoch: l.epoch}
	for _, t := range l.ordered {
		m.TopicIDs[t.decl.Name] = t.id
	}
	return l.storeMeta(m)
}

// buildTopics makes the topics, those of the directory that are no longer
// declared included: their ids and records stay theirs.
func (l *Log) buildTopics(decls []topics.Topic, m meta) {
	l.ordered = make([]*topic, len(m.TopicIDs))
	l.topics = make(map[string]*topic)
	for name, id := range m.TopicIDs {
		t := &topic{decl: topics.Topic{Name: name}, id: id, index: int(id-1) * m.Partitions, partitions: make([]partition, m.Partitions)}
		for i := range t.partitions {
			t.partitions[i].topic, t.partitions[i].number = t, int32(i)
		}
		l.ordered[id-1] = t
	}
	for _, d := range decls {
		t := l.ordered[m.TopicIDs[d.Name]-1]
		t.decl = d
		l.topics[d.Name] = t
	}
}

// segments is the index of the record store: which offsets begin where.
type segments struct {
	sync.RWMutex
	all []segment // oldest first; the last is being written
	// written and startedMS are the committer's, of the last segment.
	written   int64
	startedMS int64
}

// segment is a stretch of the record store.
type segment struct {
	number uint64
	timeMS int64   // append time of its first record
	starts []int64 // by topic.index + partition: next offset when it began
	swept  []bool  // likewise: its records here were deleted; Log.retaining guards it
}

func (s *segments) last() (segment, bool) {
	s.RLock()
	defer s.RUnlock()
	if len(s.all) == 0 {
		return segment{}, false
	}
	return s.all[len(s.all)-1], true
}

// holding returns the numbers of the segments that may hold records of a
// partition from an offset on, oldest first. The index is that of the
// partition among all.
func (s *segments) holding(index int, from int64) (first, last uint64, ok bool) {
	s.RLock()
	defer s.RUnlock()
	after := sort.Search(len(s.all), func(i int) bool { return s.all[i].starts[index] > from })
	if after == 0 {
		return 0, 0, false
	}
	return s.all[after-1].number, s.all[len(s.all)-1].number, true
}

// A segment's header is: append time of its first record, then for each topic
// by id and each partition the next offset when it began, all uvarints. The
// header of a store with fewer topics is shorter.
func (s *segment) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(s.timeMS))
	for _, start := range s.starts {
		b = binary.AppendUvarint(b, uint64(start))
	}
	return b
}

func parseSegment(number uint64, b []byte, partitions int) (segment, error) {
	s := segment{number: number, starts: make([]int64, 0, partitions), swept: make([]bool, partitions)}
	for i := 0; len(b) > 0; i++ {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > math.MaxInt64 {
			return s, fmt.Errorf("header of segment %d is damaged", number)
		}
		if b = b[n:]; i == 0 {
			s.timeMS = int64(v)
		} else {
			s.starts = append(s.starts, int64(v))
		}
	}
	if len(s.starts) > partitions {
		return s, fmt.Errorf("header of segment %d names %d partitions, there are %d", number, len(s.starts), partitions)
	}
	// Topics that are younger than the segment begin at 0.
	for len(s.starts) < partitions {
		s.starts = append(s.starts, 0)
	}
	return s, nil
}

// loadSegments reads the index, and finds the ends of the partitions in the
// last segment.
func (l *Log) loadSegments() error {
	it, err := l.records.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	all := len(l.ordered) * l.cfg.Partitions
	for ok := it.First(); ok; {
		number := binary.BigEndian.Uint64(it.Key())
		if len(it.Key()) != len(headerKey(0)) {
			return fmt.Errorf("segment %d has no header", number)
		}
		s, err := parseSegment(number, it.Value(), all)
		if err != nil {
			return err
		}
		l.segments.all = append(l.segments.all, s)
		ok = it.SeekGE(segmentKey(number + 1))
	}
	if err := it.Error(); err != nil {
		return err
	}
	if len(l.segments.all) == 0 {
		return nil // the first group begins the first segment
	}
	return l.findEnds(it)
}

func (l *Log) findEnds(it *pebble.Iterator) error {
	last := &l.segments.all[len(l.segments.all)-1]
	l.segments.startedMS, l.lastTimeMS = last.timeMS, last.timeMS
	for _, t := range l.ordered {
		for i := range t.partitions {
			p := &t.partitions[i]
			p.end = last.starts[t.index+i]
			lower := partitionKey(last.number, t.id, uint32(i))
			if it.SeekLT(partitionKey(last.number, t.id, uint32(i)+1)) && len(it.Key()) == recordKeyLen && string(it.Key()) >= string(lower) {
				base, err := chunkBase(it.Key())
				if err != nil {
					return err
				}
				c, err := parseChunk(base, it.Value())
				if err != nil {
					return fmt.Errorf("%s partition %d offset %d: %w", t.decl.Name, i, base, err)
				}
				p.end = c.end()
				l.lastTimeMS = max(l.lastTimeMS, c.timeMS)
			}
			p.next = p.end
		}
	}
	used, err := l.records.EstimateDiskUsage(segmentKey(last.number), segmentKey(last.number+1))
	l.segments.written = int64(used)
	return errors.Join(err, it.Error())
}

// loadFirsts restores the oldest offsets kept.
func (l *Log) loadFirsts() error {
	for _, t := range l.ordered {
		for i := range t.partitions {
			value, closer, err := l.state.Get(firstKey(t.id, uint32(i)))
			if errors.Is(err, pebble.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			first, n := binary.Uvarint(value)
			if err := closer.Close(); err != nil {
				return err
			}
			if n <= 0 {
				return fmt.Errorf("oldest offset of %s partition %d is damaged", t.decl.Name, i)
			}
			// Records lost without fsync may lie between the end and first.
			p := &t.partitions[i]
			p.first = int64(first)
			p.end = max(p.end, p.first)
			p.next = p.end
		}
	}
	return nil
}
