package liveindex

import (
	"math"
	"slices"
)

// compiledFilter is a Filter in the form that the scan reads.
type compiledFilter struct {
	minFixTimeMS int64
	kinds        uint16 // a bit for each value of an entry's low kindBits that passes
	attributes   bool   // attributes have to be looked at
	filter       Filter
}

func (c *compiledFilter) compile(f Filter, scratch *searchScratch, attrs *attrTable) {
	c.filter = f
	if c.minFixTimeMS = f.MinFixTimeMS; f.MinFixTimeMS == 0 {
		c.minFixTimeMS = math.MinInt64
	}
	available := uint16(1<<dispatchableKind - 1)
	if len(f.Availabilities) > 0 {
		available = 0
		for _, a := range f.Availabilities {
			available |= 1 << uint(a)
		}
	}
	c.kinds = available << dispatchableKind
	if !f.Dispatchable {
		c.kinds |= available
	}
	c.attributes = len(f.Types) > 0 || f.MinSeats > 0 || len(f.Tags) > 0
	if !c.attributes {
		return
	}
	if n := attrs.len(); len(scratch.memo) < n {
		scratch.memo = make([]uint32, n)
	}
	if scratch.stamp++; scratch.stamp == 1<<31 {
		clear(scratch.memo)
		scratch.stamp = 1
	}
}

// passes returns whether an entry that is alive passes, except for its Skew.
func (c *compiledFilter) passes(scratch *searchScratch, attrs *attrTable, e *entry) bool {
	return c.passesBits(e) && (!c.attributes || c.pass(scratch, attrs, e.kind>>kindBits))
}

// passesBits returns whether an entry passes by what stands in it.
func (c *compiledFilter) passesBits(e *entry) bool {
	return e.fixTimeMS >= c.minFixTimeMS && c.kinds>>(e.kind&(1<<kindBits-1))&1 == 1
}

// passesSkew returns whether a state is fresh enough by its own time.
func (x *Index) passesSkew(c *compiledFilter, s *state) bool {
	f := &c.filter
	return f.Skew.Of == nil || f.MinFixTimeMS == 0 || s.fixTimeMS() >= f.MinFixTimeMS+f.Skew.Of(x.vehicles.at(s.vehicle).id())
}

// passesState returns whether a state passes.
func (x *Index) passesState(c *compiledFilter, scratch *searchScratch, s *state) bool {
	e := entry{fixTimeMS: s.fixTimeMS(), kind: s.kind()}
	return c.passes(scratch, x.attrs, &e) && x.passesSkew(c, s)
}

// pass reports whether the numbered attributes pass. It looks at each number once
// in a search: many vehicles share few sets.
func (c *compiledFilter) pass(scratch *searchScratch, attrs *attrTable, number uint32) bool {
	if int(number) >= len(scratch.memo) {
		scratch.memo = append(scratch.memo, make([]uint32, attrs.len()-len(scratch.memo))...)
	}
	if m := scratch.memo[number]; m>>1 == scratch.stamp {
		return m&1 == 1
	}
	ok := c.filter.passAttributes(attrs.at(number))
	m := scratch.stamp << 1
	if ok {
		m |= 1
	}
	scratch.memo[number] = m
	return ok
}

// Passes returns whether a vehicle passes, as a search would have it: for those who
// have the vehicle already.
func (f *Filter) Passes(v *Vehicle) bool {
	if len(f.Availabilities) > 0 && !slices.Contains(f.Availabilities, v.DerivedAvailability) || f.Dispatchable && !v.Dispatchable {
		return false
	}
	if least := f.MinFixTimeMS; least != 0 {
		if f.Skew.Of != nil {
			least += f.Skew.Of(v.ID)
		}
		if v.FixTimeMS() < least {
			return false
		}
	}
	attributes := v.Attributes
	if attributes == nil {
		attributes = &Attributes{}
	}
	return f.passAttributes(attributes)
}

func (f *Filter) passAttributes(a *Attributes) bool {
	if a.Seats < f.MinSeats || len(f.Types) > 0 && !slices.Contains(f.Types, a.Type) {
		return false
	}
	for _, tag := range f.Tags {
		if !slices.Contains(a.Tags, tag) {
			return false
		}
	}
	return true
}
