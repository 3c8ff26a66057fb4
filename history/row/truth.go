package row

import (
	"cmp"
	"slices"
)

// Compare orders rows by vehicle and device time, and the rows of one fix so that
// the truth is first: what stands before what does not, then the least epoch, within it
// the least kind, within that the least offset.
func Compare(a, b Fix) int {
	return cmp.Or(
		cmp.Compare(a.Vehicle, b.Vehicle), cmp.Compare(a.DeviceTimeMS, b.DeviceTimeMS), cmp.Compare(a.unsettled(), b.unsettled()),
		cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.SourceOffset, b.SourceOffset),
	)
}

// unsettled is 1 for a row that stands for no fix.
func (f *Fix) unsettled() int {
	if f.Kind.Stands() {
		return 0
	}
	return 1
}

// compareAll is Compare, and goes on with what was reported: one record may have several
// fixes of a device time.
func compareAll(a, b Fix) int {
	if c := Compare(a, b); c != 0 || a.Kind.Stands() {
		return c
	}
	return cmp.Or(
		cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Has, b.Has), cmp.Compare(a.Raw.LatE7, b.Raw.LatE7), cmp.Compare(a.Raw.LonE7, b.Raw.LonE7),
		cmp.Compare(a.RawSpeedCMPS, b.RawSpeedCMPS), cmp.Compare(a.RawHeadingDDeg, b.RawHeadingDDeg), cmp.Compare(a.AccuracyDM, b.AccuracyDM), cmp.Compare(a.AltitudeDM, b.AltitudeDM),
	)
}

// Dedup sorts rows and leaves one for each fix, the truth, and behind it one for each
// time that the fix came and was not taken. A Final row is given the arrival of the Open
// row that it replaces. It returns the shortened slice.
func Dedup(rows []Fix) []Fix {
	slices.SortFunc(rows, compareAll)
	kept := rows[:0]
	for i := range rows {
		r := rows[i]
		if n := len(kept); n > 0 && isSame(&kept[n-1], &r) {
			last := &kept[n-1]
			if last.Kind.Stands() && r.Kind.Stands() {
				last.arriveBy(&r)
				continue
			}
			if r == *last {
				continue
			}
		}
		kept = append(kept, r)
	}
	return kept
}

// Truth sorts rows and leaves one for each fix that has any which stands, the truth. It
// returns the shortened slice.
func Truth(rows []Fix) []Fix {
	rows = slices.DeleteFunc(rows, func(f Fix) bool { return !f.Kind.Stands() })
	slices.SortFunc(rows, Compare)
	return slices.CompactFunc(rows, func(a, b Fix) bool { return isSame(&a, &b) })
}

// isSame returns whether two rows are of one fix.
func isSame(a, b *Fix) bool { return a.DeviceTimeMS == b.DeviceTimeMS && a.Vehicle == b.Vehicle }

// arriveBy takes the arrival of a row that f replaces, unless f has its own.
func (f *Fix) arriveBy(open *Fix) {
	if f.Kind == Final && f.Has&HasArrival == 0 && open.Kind == Open && open.Epoch == f.Epoch && open.Has&HasArrival != 0 {
		f.Has |= HasArrival
		f.Session, f.Sequence, f.ArrivalOffset = open.Session, open.Sequence, open.ArrivalOffset
	}
}

// Bare returns f without what says how it came: a row of a track.
func (f Fix) Bare() Fix {
	f.Has &^= HasArrival
	f.Session, f.Sequence, f.ArrivalOffset, f.Rule = 0, 0, 0, 0
	return f
}
