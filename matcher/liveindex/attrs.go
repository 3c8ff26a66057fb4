package liveindex

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/starling-fleet/starling/schemas/wire"
)

// Attributes describe a vehicle. Many vehicles share one value, which never
// changes.
type Attributes struct {
	Type  string
	Seats int32
	Tags  []string
}

// noAttributes is the number of the empty set, which vehicles have that never
// reported any.
const noAttributes = 0

// attrTable keeps every distinct set of attributes once. The writer counts the
// states that use a set and frees its number after the last.
type attrTable struct {
	sets  atomic.Pointer[[]atomic.Pointer[Attributes]]
	uses  []uint32
	free  []uint32
	byKey map[string]uint32
	key   []byte
}

func newAttrTable() *attrTable {
	t := &attrTable{byKey: map[string]uint32{}, uses: make([]uint32, 1, 8)}
	sets := make([]atomic.Pointer[Attributes], 8)
	sets[noAttributes].Store(&Attributes{})
	t.sets.Store(&sets)
	return t
}

// at returns a set by its number. Readers may call it.
func (t *attrTable) at(n uint32) *Attributes { return (*t.sets.Load())[n].Load() }

// len is one more than the largest number. Readers may call it.
func (t *attrTable) len() int { return len(*t.sets.Load()) }

// intern returns the number of a set and counts one use. The hint is the
// number that the vehicle had before, which is nearly always right.
func (t *attrTable) intern(has bool, a *wire.Attributes, hint uint32) uint32 {
	if !has {
		return noAttributes
	}
	if hint != noAttributes {
		if old := t.at(hint); old.Seats == a.Seats && old.Type == a.Type && slices.Equal(old.Tags, a.Tags) {
			t.uses[hint]++
			return hint
		}
	}
	t.key = appendAttrKey(t.key[:0], a)
	if n, ok := t.byKey[string(t.key)]; ok {
		t.uses[n]++
		return n
	}
	return t.add(a)
}

func (t *attrTable) add(a *wire.Attributes) uint32 {
	set := &Attributes{Type: strings.Clone(a.Type), Seats: a.Seats}
	for _, tag := range a.Tags {
		set.Tags = append(set.Tags, strings.Clone(tag))
	}
	var n uint32
	if last := len(t.free) - 1; last >= 0 {
		n = t.free[last]
		t.free = t.free[:last]
	} else {
		n = uint32(len(t.uses))
		t.uses = append(t.uses, 0)
	}
	sets := *t.sets.Load()
	if int(n) >= len(sets) {
		grown := make([]atomic.Pointer[Attributes], 2*len(sets))
		for i := range sets {
			grown[i].Store(sets[i].Load())
		}
		sets = grown
		t.sets.Store(&grown)
	}
	sets[n].Store(set)
	t.uses[n] = 1
	t.byKey[string(t.key)] = n
	return n
}

// release takes back one use. It is called when no reader can reach the state
// that used the set any more.
func (t *attrTable) release(n uint32) {
	if n == noAttributes {
		return
	}
	if t.uses[n]--; t.uses[n] > 0 {
		return
	}
	set := t.at(n)
	t.key = appendAttrKey(t.key[:0], &wire.Attributes{Type: set.Type, Seats: set.Seats, Tags: set.Tags})
	delete(t.byKey, string(t.key))
	t.free = append(t.free, n)
}

// appendAttrKey encodes a set unambiguously.
func appendAttrKey(b []byte, a *wire.Attributes) []byte {
	b = append(b, byte(a.Seats), byte(a.Seats>>8), byte(a.Seats>>16), byte(a.Seats>>24))
	b = appendString(b, a.Type)
	for _, tag := range a.Tags {
		b = appendString(b, tag)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	n := len(s)
	b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	return append(b, s...)
}
