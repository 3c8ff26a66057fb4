package row

import "slices"

// Erasure asks that fixes of a vehicle be erased, and never written again.
type Erasure struct {
	Vehicle string
	// UntilMS is the device time before which fixes are erased.
	UntilMS int64
	// Partition, Epoch and Offset are the record of `locations` that asks for it.
	Partition     int32
	Epoch, Offset int64
}

// Erased is what an erasure has found.
type Erased struct {
	// Rows is how many rows of the vehicle there were, also those that came before a
	// crash in between.
	Rows int64
	// Files is how many files were written anew or removed; zero for ClickHouse.
	Files int
}

// Erasures are the device times before which fixes of vehicles are erased.
type Erasures map[string]int64

// Add takes an erasure in.
func (e Erasures) Add(vehicle string, untilMS int64) { e[vehicle] = max(e[vehicle], untilMS) }

// Covers returns whether a row is erased.
func (e Erasures) Covers(f *Fix) bool {
	untilMS, ok := e[f.Vehicle]
	return ok && f.DeviceTimeMS < untilMS
}

// Without returns the rows that are not erased: rows itself if all of them are.
func (e Erasures) Without(rows []Fix) []Fix {
	if len(e) == 0 || !slices.ContainsFunc(rows, func(f Fix) bool { return e.Covers(&f) }) {
		return rows
	}
	out := make([]Fix, 0, len(rows))
	for i := range rows {
		if !e.Covers(&rows[i]) {
			out = append(out, rows[i])
		}
	}
	return out
}
