package step

import "github.com/starling-fleet/starling/schemas/wire"

// judge counts each fix, given by device time, and returns the new ones. Fixes
// after limit are stamped ahead.
//
// A copy of what was there already is a duplicate and other content of the same
// device time a conflict, as far as the window and the memory reach. What
// neither knows counts unless another session has taken over, it is late, or it
// is stamped ahead; then it is published as received, without effect, or is a
// duplicate when its report is recognised.
func (p *Partition) judge(v *vehicle, at standing, fixes []wire.Fix, limit int64, t *wire.Track) []wire.Fix {
	p.accepted = p.accepted[:0]
	untilMS := p.untilMS(v, &v.sessions[at.slot])
	for i := range fixes {
		fix := &fixes[i]
		known, same := p.recognise(v, fix)
		outsider := !at.authoritative && fix.DeviceTimeMS > untilMS
		late := fix.DeviceTimeMS < v.lowWatermarkMS || at.fenced
		switch {
		case same:
			t.Counts.Duplicate++
		case known:
			t.Counts.Conflict++
			p.remember(v, fix, 0)
		case !outsider && !late && fix.DeviceTimeMS <= limit:
			t.Counts.Accepted++
			p.accepted = append(p.accepted, *fix)
		case at.recognised:
			t.Counts.Duplicate++
		case late && !outsider:
			t.Counts.Late++
			t.LateFixes = append(t.LateFixes, *fix)
			p.remember(v, fix, 0)
		default:
			t.Counts.SetAside++
			t.SetAsideFixes = append(t.SetAsideFixes, *fix)
			p.remember(v, fix, setAside)
		}
	}
	return p.accepted
}

// recognise returns whether a fix of this device time is known, and whether one
// of this content is.
func (p *Partition) recognise(v *vehicle, fix *wire.Fix) (known, same bool) {
	if n := len(p.accepted); n > 0 && p.accepted[n-1].DeviceTimeMS == fix.DeviceTimeMS {
		known, same = true, sameContent(&p.accepted[n-1], fix)
	} else if fix.DeviceTimeMS <= v.newestMS {
		if open, found := find(v.window, fix.DeviceTimeMS); found {
			known, same = true, sameContent(open, fix)
		}
	}
	if same {
		return true, true
	}
	remembered, same := v.memory.find(fix)
	return known || remembered, same
}
