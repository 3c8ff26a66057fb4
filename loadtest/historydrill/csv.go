package historydrill

import (
	"cmp"
	"slices"

	"github.com/starling-fleet/starling/loadtest/recorded"
)

// ReadCSV reads a recording in the order of its times; the rows of one time keep theirs.
func ReadCSV(path string) ([]Fix, error) {
	rows, err := recorded.Read(path)
	if err != nil {
		return nil, err
	}
	out := make([]Fix, len(rows))
	for i := range rows {
		out[i] = Fix{rows[i].Vehicle, rows[i].Fix.ToProto()}
	}
	slices.SortStableFunc(out, func(a, b Fix) int { return cmp.Compare(a.Fix.DeviceTimeMs, b.Fix.DeviceTimeMs) })
	return out, nil
}
