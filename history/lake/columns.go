package lake

import (
	"strings"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// columns is one row of a file. Columns are only ever added. docs/history.md
// describes them.
type columns struct {
	Vehicle      string  `parquet:"vehicle_id,dict"`
	DeviceTimeMS int64   `parquet:"device_time,delta,timestamp(millisecond)"`
	Kind         string  `parquet:"kind,dict"`
	Verdict      *string `parquet:"verdict,optional,dict"`
	RawLatE7     int32   `parquet:"raw_latitude_e7,delta"`
	RawLonE7     int32   `parquet:"raw_longitude_e7,delta"`
	RawSpeed     *int32  `parquet:"raw_speed_cm_s,optional"`
	RawHeading   *int32  `parquet:"raw_heading_ddeg,optional"`
	Accuracy     *int32  `parquet:"accuracy_dm,optional"`
	Altitude     *int32  `parquet:"altitude_dm,optional"`
	Mocked       *bool   `parquet:"mocked,optional"`
	LatE7        *int32  `parquet:"latitude_e7,optional"`
	LonE7        *int32  `parquet:"longitude_e7,optional"`
	Speed        *int32  `parquet:"speed_cm_s,optional"`
	Heading      *int32  `parquet:"heading_ddeg,optional"`
	DisplayLatE7 *int32  `parquet:"display_latitude_e7,optional"`
	DisplayLonE7 *int32  `parquet:"display_longitude_e7,optional"`
	Epoch        int64   `parquet:"epoch,delta"`
	Partition    int32   `parquet:"partition,delta"`
	SourceOffset int64   `parquet:"source_offset,delta"`
	Geometry     []byte  `parquet:"geometry"`
	Rule         *string `parquet:"rule,optional,dict"`
	Session      *uint64 `parquet:"session_id,optional,dict"`
	Sequence     *int64  `parquet:"sequence,optional"`
	Arrival      *int64  `parquet:"arrival_offset,optional"`
}

// rowsAtOnce is how many rows are converted at once, which bounds their memory.
const rowsAtOnce = 1024

// encoder converts rows without an allocation for each.
type encoder struct {
	columns  [rowsAtOnce]columns
	verdicts [rowsAtOnce]string
	rules    [rowsAtOnce]string
	points   [rowsAtOnce][wkbBytes]byte
}

// encode returns the columns of at most rowsAtOnce rows. They point into rows and
// are valid until the next call.
func (e *encoder) encode(rows []row.Fix) []columns {
	for i := range rows {
		r := &rows[i]
		e.columns[i] = columns{
			Vehicle: r.Vehicle, DeviceTimeMS: r.DeviceTimeMS, Kind: r.Kind.String(), RawLatE7: r.Raw.LatE7, RawLonE7: r.Raw.LonE7,
			RawSpeed: present(r, row.HasRawSpeed, &r.RawSpeedCMPS), RawHeading: present(r, row.HasRawHeading, &r.RawHeadingDDeg),
			Accuracy: present(r, row.HasAccuracy, &r.AccuracyDM), Altitude: present(r, row.HasAltitude, &r.AltitudeDM), Mocked: present(r, row.HasMocked, &r.Mocked),
			LatE7: present(r, row.HasEstimate, &r.Corrected.LatE7), LonE7: present(r, row.HasEstimate, &r.Corrected.LonE7),
			Speed: present(r, row.HasSpeed, &r.SpeedCMPS), Heading: present(r, row.HasHeading, &r.HeadingDDeg),
			DisplayLatE7: present(r, row.HasEstimate, &r.Display.LatE7), DisplayLonE7: present(r, row.HasEstimate, &r.Display.LonE7),
			Epoch: r.Epoch, Partition: r.Partition, SourceOffset: r.SourceOffset,
			Session: present(r, row.HasArrival, &r.Session), Sequence: present(r, row.HasArrival, &r.Sequence), Arrival: present(r, row.HasArrival, &r.ArrivalOffset),
		}
		if r.Rule != 0 {
			e.rules[i] = ruleName(r.Rule)
			e.columns[i].Rule = &e.rules[i]
		}
		if r.Has&row.HasEstimate != 0 {
			e.verdicts[i] = verdictName(r.Verdict)
			e.columns[i].Verdict = &e.verdicts[i]
		}
		putPoint(&e.points[i], r.Shown())
		e.columns[i].Geometry = e.points[i][:]
	}
	return e.columns[:len(rows)]
}

func present[T any](r *row.Fix, bit row.Has, v *T) *T {
	if r.Has&bit == 0 {
		return nil
	}
	return v
}

// decode is the reverse of encode. A kind or verdict that this version does not
// know is left unset.
func (c *columns) decode() row.Fix {
	r := row.Fix{
		Vehicle: c.Vehicle, DeviceTimeMS: c.DeviceTimeMS, Epoch: c.Epoch, Partition: c.Partition, SourceOffset: c.SourceOffset,
		Raw: row.Position{LatE7: c.RawLatE7, LonE7: c.RawLonE7},
	}
	r.Kind, _ = row.ParseKind(c.Kind)
	take(&r, row.HasRawSpeed, &r.RawSpeedCMPS, c.RawSpeed)
	take(&r, row.HasRawHeading, &r.RawHeadingDDeg, c.RawHeading)
	take(&r, row.HasAccuracy, &r.AccuracyDM, c.Accuracy)
	take(&r, row.HasAltitude, &r.AltitudeDM, c.Altitude)
	take(&r, row.HasMocked, &r.Mocked, c.Mocked)
	take(&r, row.HasEstimate, &r.Corrected.LatE7, c.LatE7)
	take(&r, row.HasEstimate, &r.Corrected.LonE7, c.LonE7)
	take(&r, row.HasSpeed, &r.SpeedCMPS, c.Speed)
	take(&r, row.HasHeading, &r.HeadingDDeg, c.Heading)
	take(&r, row.HasEstimate, &r.Display.LatE7, c.DisplayLatE7)
	take(&r, row.HasEstimate, &r.Display.LonE7, c.DisplayLonE7)
	take(&r, row.HasArrival, &r.Session, c.Session)
	take(&r, row.HasArrival, &r.Sequence, c.Sequence)
	take(&r, row.HasArrival, &r.ArrivalOffset, c.Arrival)
	if c.Rule != nil {
		r.Rule = rules[*c.Rule]
	}
	if c.Verdict != nil {
		r.Verdict = verdicts[*c.Verdict]
	}
	return r
}

func take[T any](r *row.Fix, bit row.Has, to, from *T) {
	if from != nil {
		r.Has |= bit
		*to = *from
	}
}

const verdictPrefix, rulePrefix = "VERDICT_", "OUTCOME_RULE_"

// verdictNames and ruleNames are the verdicts and the rules as they stand in files.
var (
	verdictNames = namesOf[starlingv1.Verdict](starlingv1.Verdict_name, verdictPrefix)
	ruleNames    = namesOf[starlingv1.OutcomeRule](starlingv1.OutcomeRule_name, rulePrefix)
)

func namesOf[E ~int32](of map[int32]string, prefix string) map[E]string {
	names := map[E]string{}
	for n, name := range of {
		names[E(n)] = strings.ToLower(strings.TrimPrefix(name, prefix))
	}
	return names
}

func ruleName(r starlingv1.OutcomeRule) string {
	if name, ok := ruleNames[r]; ok {
		return name
	}
	return ruleNames[starlingv1.OutcomeRule_OUTCOME_RULE_UNSPECIFIED]
}

func verdictName(v starlingv1.Verdict) string {
	if name, ok := verdictNames[v]; ok {
		return name
	}
	return verdictNames[starlingv1.Verdict_VERDICT_UNSPECIFIED]
}
