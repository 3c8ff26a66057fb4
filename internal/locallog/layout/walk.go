package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/ends"
)

// WalkedSegments is how many of the newest segments an open reads through: more
// than may stand in the write-ahead log alone, which is four memtables of one
// and a quarter segments.
const WalkedSegments = 6

// Walk goes through the record store and holds it against the account.
type Walk struct {
	Facts ends.Facts
	// Account is what was acknowledged; nil if that is not known.
	Account *ends.Account
	// Firsts are the oldest offsets kept, by place; nil if they are not known.
	Firsts []int64
	// Tail is how many of the newest segments are read chunk by chunk. Of those
	// before only the headers are read: their tables are vouched for by the
	// store's MANIFEST, and by the checksums of their blocks when they are read.
	// Zero means all.
	Tail int
	// Deep decodes every record, and goes on behind what can't be read.
	Deep bool

	// Segments are those that have a header, oldest first.
	Segments []Segment
	// Places are where the partitions end.
	Places []ends.Place
	// NewestMS is the newest append time.
	NewestMS int64
	// Chunks, Records and Bytes are what was read.
	Chunks, Records, Bytes int64
	Findings               []Finding

	known []bool // the place is known: of a walk that begins behind the first segment, all are
	met   []bool // the acknowledged end was passed with its checksum
	from  []ends.Place
}

// Run walks. It fails when the store can't be read, unless the walk is deep.
func (w *Walk) Run(ctx context.Context, db *pebble.DB) error {
	n := len(w.Facts.TopicIDs) * w.Facts.Partitions
	w.Places, w.from = make([]ends.Place, n), make([]ends.Place, n)
	w.known, w.met = make([]bool, n), make([]bool, n)
	if err := w.readHeaders(db); err != nil {
		return err
	}
	if all := w.Segments; len(all) > 0 {
		w.checkBeginning(&all[0])
		begin := 0
		if w.Tail > 0 && len(all) > w.Tail {
			begin = len(all) - w.Tail
		}
		w.checkNumbers(all[:begin+1])
		for i := begin; i < len(all); i++ {
			if i > begin {
				if err := w.between(ctx, db, &all[i-1], &all[i]); err != nil {
					return err
				}
			}
			if err := w.segment(ctx, db, all[i].Number, &all[i]); err != nil {
				return err
			}
		}
	}
	w.checkEnds()
	return nil
}

// readHeaders reads the headers of all segments.
func (w *Walk) readHeaders(db *pebble.DB) error {
	const maxFaults = 1000 // of a deep walk, one after the other
	var from uint64
	for faults := 0; ; {
		it, err := db.NewIter(nil)
		if err != nil {
			return err
		}
		from, err = w.headersFrom(it, from)
		if err = errors.Join(err, it.Close()); err == nil {
			return nil
		}
		if faults++; !w.Deep || faults > maxFaults {
			return err
		}
		w.find("", 0, 0, 0, fmt.Sprintf("the header of segment %d can't be read: %v", from, err))
		from++
	}
}

func (w *Walk) headersFrom(it *pebble.Iterator, from uint64) (uint64, error) {
	for ok := it.SeekGE(SegmentKey(from)); ok; ok = it.SeekGE(SegmentKey(from)) {
		number := SegmentOf(it.Key())
		if IsHeaderKey(it.Key()) {
			value, err := it.ValueAndErr()
			if err != nil {
				return number, err
			}
			s, err := ParseSegment(number, value, len(w.Places))
			if err != nil {
				return number, err
			}
			w.Segments = append(w.Segments, s)
			w.NewestMS = max(w.NewestMS, s.TimeMS)
		} else if !w.Deep {
			w.find("", 0, 0, 0, fmt.Sprintf("segment %d has no header", number))
		}
		from = number + 1
	}
	return from, it.Error()
}

// checkNumbers finds segments that are missing as a whole, of those whose chunks
// are not read.
func (w *Walk) checkNumbers(all []Segment) {
	for i := 1; i < len(all); i++ {
		if all[i].Number == all[i-1].Number+1 {
			continue
		}
		for p := range w.Places {
			if from, to := max(all[i-1].Starts[p].Next, w.first(p)), all[i].Starts[p].Next; to > from {
				w.missing(p, from, to, fmt.Sprintf("may be missing: segments %d to %d are not in the store", all[i-1].Number+1, all[i].Number-1))
			}
		}
	}
}

// passed reports whether the numbers between two headers are missing because
// retention has passed all records of their segments.
func (w *Walk) passed(before, behind *Segment) bool {
	for p := range w.Places {
		if behind.Starts[p].Next > max(before.Starts[p].Next, w.first(p)) {
			return false
		}
	}
	return true
}

// between walks through what is there of segments between two headers that lack
// their own.
func (w *Walk) between(ctx context.Context, db *pebble.DB, before, behind *Segment) error {
	first, last := before.Number+1, behind.Number-1
	if first > last || w.passed(before, behind) {
		return nil
	}
	w.find("", 0, 0, 0, fmt.Sprintf("segments %d to %d have no header", first, last))
	for number := first; number <= last; number++ {
		var err error
		if number, err = nextSegment(db, number); err != nil || number > last {
			return err
		}
		if err := w.segment(ctx, db, number, nil); err != nil {
			return err
		}
	}
	return nil
}

// nextSegment returns the number of the first segment from one on of which there is
// anything.
func nextSegment(db *pebble.DB, from uint64) (number uint64, err error) {
	it, err := db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.SeekGE(SegmentKey(from)) {
		return math.MaxUint64, it.Error()
	}
	return SegmentOf(it.Key()), nil
}

// checkBeginning finds records that are missing before the first segment.
func (w *Walk) checkBeginning(s *Segment) {
	if w.Firsts == nil {
		return
	}
	for p, start := range s.Starts {
		from := w.first(p)
		for _, g := range w.Facts.Gaps {
			if i, ok := w.index(g.Topic, int(g.Partition)); ok && i == p && g.From <= from {
				from = max(from, g.To)
			}
		}
		if start.Next > from {
			w.missing(p, from, start.Next, "are missing before the oldest segment")
		}
	}
}

// segment walks through one segment, which may lack its header.
func (w *Walk) segment(ctx context.Context, db *pebble.DB, number uint64, s *Segment) error {
	if s != nil {
		for p, start := range s.Starts {
			w.enter(p, start)
		}
	}
	lower, upper := SegmentKey(number), SegmentKey(number+1)
	const maxFaults = 100_000 // of a deep walk, in one segment
	for faults := 0; ; faults++ {
		last, err := w.chunks(ctx, db, lower, upper)
		if err == nil {
			return nil
		}
		if !w.Deep || ctx.Err() != nil || faults == maxFaults {
			return err
		}
		w.find("", 0, 0, 0, fmt.Sprintf("segment %d can't be read behind key %x: %v", number, last, err))
		if lower = w.skip(db, last, upper); lower == nil {
			return nil
		}
	}
}

// chunks walks through the chunks between two keys and returns the last key
// that it has read, or lower.
func (w *Walk) chunks(ctx context.Context, db *pebble.DB, lower, upper []byte) (last []byte, err error) {
	last = lower
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return last, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		if IsHeaderKey(it.Key()) {
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return last, err
		}
		last = append([]byte(nil), it.Key()...)
		key, err := ParseChunkKey(last)
		if err != nil {
			return last, err
		}
		if err := w.chunk(key, value); err != nil && !w.Deep {
			return last, err
		}
	}
	return last, it.Error()
}

// skip returns a key behind last from which the store can be read again, or nil
// if there is none before upper.
func (w *Walk) skip(db *pebble.DB, last, upper []byte) []byte {
	return Behind(last, &w.Facts, func(k []byte) bool {
		if bytes.Compare(k, upper) >= 0 {
			return false
		}
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: k, UpperBound: upper})
		if err != nil {
			return false
		}
		it.First()
		return errors.Join(it.Error(), it.Close()) == nil
	})
}

// Behind returns a key behind last, which is a key of the record store or begins
// as one, from which it can be read again, or nil if none is found: offsets at
// growing steps, then the partitions behind it, then the next segments.
func Behind(last []byte, f *ends.Facts, readable func(k []byte) bool) []byte {
	at := append(append([]byte(nil), last...), make([]byte, RecordKeyLen)...)[:RecordKeyLen]
	k, _ := ParseChunkKey(at) // of the right length
	try := func(next []byte) bool { return bytes.Compare(next, last) > 0 && readable(next) }
	// Few tries: Pebble looks for the flipped bit of a block that it can't read,
	// which takes a second.
	ahead := func(step int64) []byte {
		return AppendChunkKey(nil, k.Segment, k.Topic, uint32(k.Partition), k.Base+step)
	}
	for step := int64(8); step < 1<<30; step *= 8 {
		if !try(ahead(step)) {
			continue
		}
		bad, good := step/8, step
		for range 2 {
			if middle := (bad + good) / 2; try(ahead(middle)) {
				good = middle
			} else {
				bad = middle
			}
		}
		return ahead(good)
	}
	for topic := 1; topic <= len(f.TopicIDs); topic++ {
		for p := range f.Partitions {
			if next := PartitionKey(k.Segment, uint16(topic), uint32(p)); try(next) {
				return next
			}
		}
	}
	for step := uint64(1); step < 1<<20; step *= 2 {
		if next := SegmentKey(k.Segment + step); try(next) {
			return next
		}
	}
	return nil
}

// chunk takes one chunk in.
func (w *Walk) chunk(key ChunkKey, value []byte) error {
	p, ok := w.index(key.Topic, int(key.Partition))
	if !ok {
		err := fmt.Errorf("chunk of topic %d partition %d, which the log does not have", key.Topic, key.Partition)
		w.find("", 0, 0, 0, err.Error())
		return err
	}
	c, err := ParseChunk(key.Base, value)
	if err == nil && w.Deep {
		_, err = c.AppendRecords(nil, c.End())
	}
	if err != nil {
		w.missing(p, key.Base, key.Base, fmt.Sprintf("chunk at offset %d: %v", key.Base, err))
		return err
	}
	w.enter(p, c.Begins())
	w.Places[p] = c.Ends()
	w.meet(p)
	w.NewestMS = max(w.NewestMS, c.TimeMS)
	w.Chunks++
	w.Records += int64(c.Count)
	w.Bytes += int64(len(value))
	return nil
}

// enter moves a partition to a place that the store names next, and finds what
// is missing up to there.
func (w *Walk) enter(p int, at ends.Place) {
	if !w.known[p] {
		w.known[p], w.Places[p], w.from[p] = true, at, at
		w.meet(p)
		return
	}
	if w.Places[p] == at {
		return
	}
	w.passGaps(p)
	was := w.Places[p]
	switch {
	case was == at:
		return
	case at.Next < was.Next:
		w.missing(p, at.Next, at.Next, fmt.Sprintf("the store goes back from offset %d to %d", was.Next, at.Next))
	case at.Next <= w.first(p): // retention has deleted it
	case at.Next == was.Next:
		w.missing(p, at.Next, at.Next, fmt.Sprintf("the running checksum at offset %d is %016x, what follows says %016x", at.Next, was.Chain, at.Chain))
	default:
		w.missing(p, max(was.Next, w.first(p)), at.Next, "are missing or can't be read")
	}
	w.Places[p] = at
	w.meet(p)
}

// passGaps moves a partition over what a repair has declared lost.
func (w *Walk) passGaps(p int) {
	for _, g := range w.Facts.Gaps {
		if i, ok := w.index(g.Topic, int(g.Partition)); ok && i == p && g.From == w.Places[p].Next {
			w.Places[p] = ends.Place{Next: g.To, Chain: g.Chain}
			w.meet(p)
		}
	}
}

// meet notes that the acknowledged end was passed as it was acknowledged.
func (w *Walk) meet(p int) {
	if w.Account != nil && w.Account.Places[p] == w.Places[p] {
		w.met[p] = true
	}
}

// checkEnds holds the ends against the account.
func (w *Walk) checkEnds() {
	for p := range w.Places {
		w.passGaps(p)
		if w.Account == nil {
			continue
		}
		acknowledged, got := w.Account.Places[p], w.Places[p]
		switch {
		case got.Next < acknowledged.Next:
			from := max(got.Next, w.first(p))
			if from < acknowledged.Next {
				w.missing(p, from, acknowledged.Next, "were acknowledged and are missing at the end")
			}
		case w.met[p], !w.known[p] && acknowledged == ends.Place{}:
		case w.Account.OpenUnsynced && acknowledged.Next < w.from[p].Next: // the account is of the start
		default:
			w.missing(p, got.Next, got.Next, fmt.Sprintf("the store does not pass offset %d, up to which it was acknowledged, with the checksum %016x", acknowledged.Next, acknowledged.Chain))
		}
	}
}

// index returns the place of a partition.
func (w *Walk) index(topic uint16, partition int) (int, bool) {
	if topic < 1 || int(topic) > len(w.Facts.TopicIDs) || partition >= w.Facts.Partitions {
		return 0, false
	}
	return int(topic-1)*w.Facts.Partitions + partition, true
}

func (w *Walk) first(p int) int64 {
	if w.Firsts == nil {
		return 0
	}
	return w.Firsts[p]
}

func (w *Walk) missing(p int, from, to int64, what string) {
	w.find(w.Facts.Topic(uint16(p/w.Facts.Partitions+1)), int32(p%w.Facts.Partitions), from, to, what)
}

func (w *Walk) find(topic string, partition int32, from, to int64, what string) {
	w.Findings = append(w.Findings, Finding{Store: ends.Records.String(), Topic: topic, Partition: partition, From: from, To: to, What: what})
}
