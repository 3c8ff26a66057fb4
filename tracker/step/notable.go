package step

// notable counts vehicles that are conflicting or whose device's clock is off. It
// is not state: it follows from the vehicles.
type notable struct {
	conflicting, clocksOff int
}

// notableIn is one vehicle's part.
func (p *Partition) notableIn(v *vehicle) (n notable) {
	if v.conflictUntilMS != 0 {
		n.conflicting = 1
	}
	if off := v.clock.aheadMS(); max(off, -off) > p.settings.AheadToleranceMS {
		n.clocksOff = 1
	}
	return n
}

// recount replaces one vehicle's part by another.
func (p *Partition) recount(before, after notable) {
	p.notable.conflicting += after.conflicting - before.conflicting
	p.notable.clocksOff += after.clocksOff - before.clocksOff
}

// countAll counts all vehicles anew.
func (p *Partition) countAll() {
	p.notable = notable{}
	for _, v := range p.vehicles {
		p.recount(notable{}, p.notableIn(v))
	}
}
