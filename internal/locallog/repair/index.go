package repair

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// indexing goes through the salvaged chunks in their order.
type indexing struct {
	d      *directory
	a      *ends.Account
	out    *Outcome
	places []ends.Place
	known  []bool
	gaps   []ends.Gap
}

// index writes the segments' headers, and finds the gaps and the ends of the
// partitions.
func (d *directory) index(db *pebble.DB, times map[uint64]int64, a *ends.Account, out *Outcome) error {
	n := len(a.TopicIDs) * a.Partitions
	x := &indexing{d: d, a: a, out: out, places: make([]ends.Place, n), known: make([]bool, n)}
	for p, first := range d.firsts {
		x.places[p].Next = first
	}
	numbers := slices.Sorted(maps.Keys(times))
	headers := db.NewBatch()
	for i, number := range numbers {
		// The first of the segments of which nothing is left states where the records
		// before them end.
		if i > 0 && number > numbers[i-1]+1 {
			if err := x.header(headers, numbers[i-1]+1, times[numbers[i-1]]); err != nil {
				return err
			}
		}
		if err := x.header(headers, number, times[number]); err != nil {
			return err
		}
		if err := x.segment(db, headers, number); err != nil {
			return err
		}
	}
	if d.firsts == nil {
		d.firsts = make([]int64, n)
		for p, at := range x.places {
			d.firsts[p] = at.Next // of a partition of which nothing is left
		}
	}
	x.close()
	if err := errors.Join(db.Apply(headers, pebble.Sync), headers.Close()); err != nil {
		return err
	}
	a.Places, a.Gaps = x.places, x.gaps
	return nil
}

func (x *indexing) header(b *pebble.Batch, number uint64, timeMS int64) error {
	s := layout.Segment{Number: number, TimeMS: timeMS, Starts: x.places}
	return b.Set(layout.HeaderKey(number), s.Encode(), nil)
}

// segment goes through one segment's chunks; those that retention has passed, and
// those that begin before the end of what came before, are left out.
func (x *indexing) segment(db *pebble.DB, b *pebble.Batch, number uint64) (err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: layout.SegmentKey(number), UpperBound: layout.SegmentKey(number + 1)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if layout.IsHeaderKey(it.Key()) {
			continue
		}
		key, err := layout.ParseChunkKey(it.Key())
		if err != nil {
			return err
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		c, err := layout.ParseChunk(key.Base, value)
		if err != nil {
			return err
		}
		p := int(key.Topic-1)*x.a.Partitions + int(key.Partition)
		if !x.take(p, &c) {
			if err := b.Delete(slices.Clone(it.Key()), nil); err != nil {
				return err
			}
		}
	}
	return it.Error()
}

// take moves a partition over a chunk. It returns false if the chunk is not to be
// kept.
func (x *indexing) take(p int, c *layout.Chunk) bool {
	at := x.places[p]
	switch {
	case !x.known[p]:
		if first := x.d.firsts; first != nil && c.End() <= first[p] {
			return false // retention has passed it
		} else if first != nil && c.Base > first[p] {
			x.gap(p, first[p], c.Base, c.Before)
		}
		x.known[p] = true
	case c.Base < at.Next:
		return false
	case c.Base > at.Next || c.Before != at.Chain:
		x.gap(p, at.Next, c.Base, c.Before)
	}
	x.places[p] = c.Ends()
	return true
}

// gap notes offsets that are lost; none if only the checksum begins anew.
func (x *indexing) gap(p int, from, to int64, chain uint64) {
	topic, partition := uint16(p/x.a.Partitions+1), int32(p%x.a.Partitions)
	x.gaps = append(x.gaps, ends.Gap{Topic: topic, Partition: partition, From: from, To: to, Chain: chain})
	for _, old := range x.d.facts.Gaps { // lost before
		if old.Topic == topic && old.Partition == partition && old.From == from && old.To == to {
			return
		}
	}
	if to > from {
		x.out.Lost = append(x.out.Lost, Lost{Topic: x.a.Topic(topic), Partition: partition, From: from, To: to})
	}
}

// close moves the partitions to where they go on: never to an offset that was
// acknowledged.
func (x *indexing) close() {
	if x.d.loaded == nil {
		x.a.Places, x.a.Gaps = x.places, x.gaps
		x.d.moveOn(x.a, x.out)
		x.places, x.gaps = x.a.Places, x.a.Gaps
		return
	}
	for p, acknowledged := range x.d.loaded.Places {
		if at := x.places[p]; at.Next < acknowledged.Next {
			x.gap(p, at.Next, acknowledged.Next, acknowledged.Chain)
			x.places[p] = acknowledged
		}
	}
}

// moveOn moves every partition far ahead, because nobody knows what was
// acknowledged.
func (d *directory) moveOn(a *ends.Account, out *Outcome) {
	for p := range a.Places {
		at := &a.Places[p]
		topic, partition := uint16(p/a.Partitions+1), int32(p%a.Partitions)
		a.Gaps = append(a.Gaps, ends.Gap{Topic: topic, Partition: partition, From: at.Next, To: at.Next + unknownStep, Chain: at.Chain})
		out.Lost = append(out.Lost, Lost{Topic: a.Topic(topic), Partition: partition, From: at.Next, To: at.Next + unknownStep, Unknown: true})
		at.Next += unknownStep
	}
}

// String reports what is lost.
func (l Lost) String() string {
	if l.Unknown {
		return fmt.Sprintf("%s partition %d: nobody knows what was acknowledged behind offset %d; it goes on at %d", l.Topic, l.Partition, l.From, l.To)
	}
	return fmt.Sprintf("%s partition %d: offsets %d to %d (%d records) are lost", l.Topic, l.Partition, l.From, l.To-1, l.To-l.From)
}
