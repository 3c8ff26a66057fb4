package clickhouse

import (
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// columnNames are the columns of `fixes` as they are inserted and read.
var columnNames = []string{
	"vehicle_id", "device_time", "rank", "partition", "has", "verdict", "mocked", "raw_lat_e7", "raw_lon_e7", "raw_speed_cm_s", "raw_heading_ddeg",
	"accuracy_dm", "altitude_dm", "lat_diff_e7", "lon_diff_e7", "display_lat_diff_e7", "display_lon_diff_e7", "speed_cm_s", "heading_ddeg",
}

// columnsOf returns rows by column, in the order of columnNames. A difference that
// leaves int32 wraps, and back again when it is read.
func columnsOf(rows []row.Fix) []any {
	n := len(rows)
	vehicles, times, ranks := make([]string, n), make([]int64, n), make([]uint64, n)
	partitions, has, verdicts, mocked := make([]uint16, n), make([]uint16, n), make([]uint8, n), make([]bool, n)
	var numbers [12][]int32
	for i := range numbers {
		numbers[i] = make([]int32, n)
	}
	for i := range rows {
		r := &rows[i]
		vehicles[i], times[i], ranks[i] = r.Vehicle, r.DeviceTimeMS, rank(r)
		partitions[i], has[i], verdicts[i], mocked[i] = uint16(r.Partition), uint16(r.Has&^row.HasArrival), uint8(r.Verdict), r.Mocked
		for c, v := range numbersOf(r) {
			numbers[c][i] = v
		}
	}
	out := []any{vehicles, times, ranks, partitions, has, verdicts, mocked}
	for _, c := range numbers {
		out = append(out, c)
	}
	return out
}

// numbersOf returns what a row has in the columns from raw_lat_e7 on.
func numbersOf(r *row.Fix) [12]int32 {
	v := [12]int32{r.Raw.LatE7, r.Raw.LonE7, r.RawSpeedCMPS, r.RawHeadingDDeg, r.AccuracyDM, r.AltitudeDM}
	if r.Has&row.HasEstimate != 0 {
		v[6], v[7] = r.Corrected.LatE7-r.Raw.LatE7, r.Corrected.LonE7-r.Raw.LonE7
		v[8], v[9] = r.Display.LatE7-r.Corrected.LatE7, r.Display.LonE7-r.Corrected.LonE7
	}
	v[10], v[11] = r.SpeedCMPS, r.HeadingDDeg
	return v
}

// setNumbers is the reverse of numbersOf; Has is set already.
func setNumbers(r *row.Fix, v *[12]int32) {
	r.Raw = row.Position{LatE7: v[0], LonE7: v[1]}
	r.RawSpeedCMPS, r.RawHeadingDDeg, r.AccuracyDM, r.AltitudeDM = v[2], v[3], v[4], v[5]
	if r.Has&row.HasEstimate != 0 {
		r.Corrected = row.Position{LatE7: v[0] + v[6], LonE7: v[1] + v[7]}
		r.Display = row.Position{LatE7: r.Corrected.LatE7 + v[8], LonE7: r.Corrected.LonE7 + v[9]}
	}
	r.SpeedCMPS, r.HeadingDDeg = v[10], v[11]
}

// scanned is one row as it is read.
type scanned struct {
	fix     row.Fix
	time    timeMS
	rank    uint64
	part    uint16
	has     uint16
	verdict uint8
	numbers [12]int32
}

// targets are where Scan puts the columns of columnNames.
func (s *scanned) targets() []any {
	t := []any{&s.fix.Vehicle, &s.time, &s.rank, &s.part, &s.has, &s.verdict, &s.fix.Mocked}
	for i := range s.numbers {
		t = append(t, &s.numbers[i])
	}
	return t
}

func (s *scanned) row() row.Fix {
	f := s.fix
	f.DeviceTimeMS, f.Partition, f.Has, f.Verdict = int64(s.time), int32(s.part), row.Has(s.has), starlingv1.Verdict(s.verdict)
	unrank(&f, s.rank)
	setNumbers(&f, &s.numbers)
	return f
}
