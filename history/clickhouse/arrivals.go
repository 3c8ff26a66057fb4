package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// arrivalNames are the columns of `arrivals` as they are inserted.
var arrivalNames = []string{
	"vehicle_id", "device_time", "epoch", "source_offset", "n", "session_id", "sequence", "rule", "has", "mocked",
	"raw_lat_e7", "raw_lon_e7", "raw_speed_cm_s", "raw_heading_ddeg", "accuracy_dm", "altitude_dm",
}

// arrivalsOf returns the arrivals that rows, as row.Dedup leaves them, have, by column
// in the order of arrivalNames, and how many there are.
func arrivalsOf(rows []row.Fix) (columns []any, count int) {
	var (
		vehicles, rules []string
		times, seqs     []int64
		epochs, ns, has []uint16
		offsets, ids    []uint64
		mocked          []bool
		numbers         [6][]int32
		last            *row.Fix
		n               uint16
	)
	for i := range rows {
		r := &rows[i]
		a, ok := r.Arrival()
		if !ok {
			continue
		}
		n++
		if last == nil || last.Vehicle != r.Vehicle || last.DeviceTimeMS != r.DeviceTimeMS || last.Epoch != r.Epoch || last.ArrivalOffset != r.ArrivalOffset {
			n = 0
		}
		last = r
		vehicles, times, epochs, offsets, ns = append(vehicles, r.Vehicle), append(times, r.DeviceTimeMS), append(epochs, uint16(a.Epoch)), append(offsets, uint64(a.Offset)), append(ns, n)
		ids, seqs, rules = append(ids, a.Session), append(seqs, a.Sequence), append(rules, ruleName(a.Rule))
		p := &a.Reported
		has, mocked = append(has, uint16(p.Has)), append(mocked, p.Mocked)
		for c, v := range [...]int32{p.Position.LatE7, p.Position.LonE7, p.SpeedCMPS, p.HeadingDDeg, p.AccuracyDM, p.AltitudeDM} {
			numbers[c] = append(numbers[c], v)
		}
	}
	columns = []any{vehicles, times, epochs, offsets, ns, ids, seqs, rules, has, mocked}
	for _, c := range numbers {
		columns = append(columns, c)
	}
	return columns, len(vehicles)
}

const rulePrefix = "OUTCOME_RULE_"

// ruleName is a rule as it stands in the table, empty for none.
func ruleName(r starlingv1.OutcomeRule) string {
	if r == starlingv1.OutcomeRule_OUTCOME_RULE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(r.String(), rulePrefix))
}

// Explain implements store.Store.
func (s *Store) Explain(ctx context.Context, vehicle string, deviceTimeMS int64) (store.Explanation, error) {
	var e store.Explanation
	for fix, err := range s.Track(ctx, store.TrackQuery{Vehicle: vehicle, FromMS: deviceTimeMS, ToMS: deviceTimeMS + 1}) {
		if err != nil {
			return store.Explanation{}, err
		}
		e.Found, e.Fix = true, fix
	}
	query := "SELECT " + strings.Join(arrivalNames[2:], ", ") + " FROM arrivals FINAL WHERE vehicle_id = ? AND " + within + once
	var faults error
	each(ctx, s.conn, func(a row.Arrival, err error) bool {
		if err != nil {
			faults = errors.Join(faults, err)
			return false
		}
		e.Arrivals = append(e.Arrivals, a)
		return true
	}, scanArrival, query, append([]any{vehicle}, withinArgs(deviceTimeMS, deviceTimeMS+1)...)...)
	if faults != nil {
		return store.Explanation{}, faults
	}
	e.Arrivals = row.SortArrivals(e.Arrivals)
	return e, nil
}

func scanArrival(rows driver.Rows) (a row.Arrival, err error) {
	var epoch, n, has uint16
	var offset uint64
	var rule string
	p := &a.Reported
	if err := rows.Scan(&epoch, &offset, &n, &a.Session, &a.Sequence, &rule, &has, &p.Mocked, &p.Position.LatE7, &p.Position.LonE7, &p.SpeedCMPS, &p.HeadingDDeg, &p.AccuracyDM, &p.AltitudeDM); err != nil {
		return a, err
	}
	a.Epoch, a.Offset, p.Has = int64(epoch), int64(offset), row.Has(has)
	if rule != "" {
		number, ok := starlingv1.OutcomeRule_value[rulePrefix+strings.ToUpper(rule)]
		if !ok {
			return a, fmt.Errorf("the rule %q is not this build's", rule)
		}
		a.Rule = starlingv1.OutcomeRule(number)
	}
	return a, nil
}
