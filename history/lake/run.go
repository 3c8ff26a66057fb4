package lake

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// field sets what a column has of a row, from a value that is there.
type field func(*row.Fix, *parquet.Value)

// fields are those by column: the reverse of encode, for one column at a time, which
// costs a fraction of what rows do. A kind, verdict or rule that this version does not
// know is left unset.
var fields = map[string]field{
	"device_time":          func(r *row.Fix, v *parquet.Value) { r.DeviceTimeMS = v.Int64() },
	"kind":                 func(r *row.Fix, v *parquet.Value) { r.Kind, _ = row.ParseKind(string(v.ByteArray())) },
	"verdict":              func(r *row.Fix, v *parquet.Value) { r.Verdict = verdicts[string(v.ByteArray())] },
	"raw_latitude_e7":      number(0, func(r *row.Fix) *int32 { return &r.Raw.LatE7 }),
	"raw_longitude_e7":     number(0, func(r *row.Fix) *int32 { return &r.Raw.LonE7 }),
	"raw_speed_cm_s":       number(row.HasRawSpeed, func(r *row.Fix) *int32 { return &r.RawSpeedCMPS }),
	"raw_heading_ddeg":     number(row.HasRawHeading, func(r *row.Fix) *int32 { return &r.RawHeadingDDeg }),
	"accuracy_dm":          number(row.HasAccuracy, func(r *row.Fix) *int32 { return &r.AccuracyDM }),
	"altitude_dm":          number(row.HasAltitude, func(r *row.Fix) *int32 { return &r.AltitudeDM }),
	"mocked":               func(r *row.Fix, v *parquet.Value) { r.Has |= row.HasMocked; r.Mocked = v.Boolean() },
	"latitude_e7":          number(row.HasEstimate, func(r *row.Fix) *int32 { return &r.Corrected.LatE7 }),
	"longitude_e7":         number(row.HasEstimate, func(r *row.Fix) *int32 { return &r.Corrected.LonE7 }),
	"speed_cm_s":           number(row.HasSpeed, func(r *row.Fix) *int32 { return &r.SpeedCMPS }),
	"heading_ddeg":         number(row.HasHeading, func(r *row.Fix) *int32 { return &r.HeadingDDeg }),
	"display_latitude_e7":  number(row.HasEstimate, func(r *row.Fix) *int32 { return &r.Display.LatE7 }),
	"display_longitude_e7": number(row.HasEstimate, func(r *row.Fix) *int32 { return &r.Display.LonE7 }),
	"epoch":                func(r *row.Fix, v *parquet.Value) { r.Epoch = v.Int64() },
	"partition":            number(0, func(r *row.Fix) *int32 { return &r.Partition }),
	"source_offset":        func(r *row.Fix, v *parquet.Value) { r.SourceOffset = v.Int64() },
	"rule":                 func(r *row.Fix, v *parquet.Value) { r.Rule = rules[string(v.ByteArray())] },
	"session_id":           func(r *row.Fix, v *parquet.Value) { r.Has |= row.HasArrival; r.Session = v.Uint64() },
	"sequence":             func(r *row.Fix, v *parquet.Value) { r.Has |= row.HasArrival; r.Sequence = v.Int64() },
	"arrival_offset":       func(r *row.Fix, v *parquet.Value) { r.Has |= row.HasArrival; r.ArrivalOffset = v.Int64() },
}

func number(bit row.Has, of func(*row.Fix) *int32) field {
	return func(r *row.Fix, v *parquet.Value) {
		r.Has |= bit
		*of(r) = v.Int32()
	}
}

// Verdicts and rules by what they are called in files.
var (
	verdicts = reversed(verdictNames)
	rules    = reversed(ruleNames)
)

func reversed[E starlingv1.Verdict | starlingv1.OutcomeRule](names map[E]string) map[string]E {
	all := map[string]E{}
	for v, name := range names {
		all[name] = v
	}
	return all
}

// runOf returns the rows of a vehicle among those of a column of vehicles, in order,
// that begin with one: the first, and how many they are.
func runOf(vehicles parquet.ColumnChunk, from int64, vehicle string) (first, n int64, err error) {
	first = from
	err = eachValue(vehicles, from, func(v *parquet.Value) bool {
		switch at := string(v.ByteArray()); {
		case at < vehicle:
			first++
		case at == vehicle:
			n++
		default:
			return false
		}
		return true
	})
	return first, n, err
}

// readRows appends n rows of a row group from the first on; of all, vehicle is the
// vehicle.
func readRows(group parquet.RowGroup, vehicle string, first, n int64, rows []row.Fix) ([]row.Fix, error) {
	begin := len(rows)
	rows = append(rows, make([]row.Fix, n)...)
	added := rows[begin:]
	for i := range added {
		added[i].Vehicle = vehicle
	}
	chunks := group.ColumnChunks()
	for i, path := range group.Schema().Columns() {
		set, known := fields[path[0]]
		if !known {
			continue
		}
		at := 0
		err := eachValue(chunks[i], first, func(v *parquet.Value) bool {
			if !v.IsNull() {
				set(&added[at], v)
			}
			at++
			return at < len(added)
		})
		if err == nil && at < len(added) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", path[0], err)
		}
	}
	return rows, nil
}

// eachValue calls do with the values of a column, of which each row has one, from a
// row on, until it returns false.
func eachValue(chunk parquet.ColumnChunk, from int64, do func(*parquet.Value) bool) error {
	// Without its index, pages before the row would be read too.
	if _, err := chunk.OffsetIndex(); err != nil {
		return err
	}
	pages := chunk.Pages()
	defer func() { _ = pages.Close() }()
	if err := pages.SeekToRow(from); err != nil {
		return err
	}
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		more, err := eachOfPage(page.Values(), do)
		parquet.Release(page)
		if err != nil || !more {
			return err
		}
	}
}

func eachOfPage(values parquet.ValueReader, do func(*parquet.Value) bool) (bool, error) {
	var buffer [256]parquet.Value
	for {
		n, err := values.ReadValues(buffer[:])
		for i := range buffer[:n] {
			if !do(&buffer[i]) {
				return false, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}
