package liveindex

import "slices"

// compiledFilter is a Filter in the form that the scan reads.
type compiledFilter struct {
	minDeviceTimeMS int64
	availabilities  uint8 // a bit for each that passes
	attributes      bool  // attributes have to be looked at
	filter          Filter
}

func (c *compiledFilter) compile(f Filter, scratch *searchScratch, attrs *attrTable) {
	c.filter = f
	c.minDeviceTimeMS = f.MinDeviceTimeMS
	c.availabilities = 0xff
	if len(f.Availabilities) > 0 {
		c.availabilities = 0
		for _, a := range f.Availabilities {
			c.availabilities |= 1 << uint(a)
		}
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

// passes says whether an entry that is alive passes.
func (c *compiledFilter) passes(scratch *searchScratch, attrs *attrTable, e *entry) bool {
	return e.deviceTimeMS >= c.minDeviceTimeMS &&
		c.availabilities>>(e.kind&(1<<availabilityBits-1))&1 == 1 &&
		(!c.attributes || c.pass(scratch, attrs, e.kind>>availabilityBits))
}

// passesState says whether a state passes.
func (c *compiledFilter) passesState(scratch *searchScratch, attrs *attrTable, s *state) bool {
	e := entry{deviceTimeMS: s.deviceTimeMS, kind: s.attributes<<availabilityBits | uint32(s.availability)}
	return c.passes(scratch, attrs, &e)
}

// pass says whether the numbered attributes pass. It looks at each number once
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
