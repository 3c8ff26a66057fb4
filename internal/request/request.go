// Package request is the one form in which a service refuses what a caller asks
// for, and the home of the rules that several services share:
//
//	field: is VALUE: must be RULE
//
// A handler collects every broken rule of a request before it answers, so that
// its caller sees all of them at once, each as a google.rpc.BadRequest violation.
package request

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Faults are the rules that a request breaks. The zero value has none.
type Faults struct{ rpcstatus.Violations }

// Need notes a fault unless ok: field is value, must be rule.
func (f *Faults) Need(ok bool, field string, value any, rule string, args ...any) {
	if !ok {
		if s, is := value.(string); is {
			value = shortened(s)
		}
		f.Add(field, "is %s: must be %s", valid.Text(value), fmt.Sprintf(rule, args...))
	}
}

// shortened keeps a refusal from repeating an endless text.
func shortened(s string) string {
	const most = 200 // bytes
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// Require notes a fault unless ok: field is missing, must be rule.
func (f *Faults) Require(ok bool, field, rule string, args ...any) {
	if !ok {
		f.Add(field, "is missing: must be %s", fmt.Sprintf(rule, args...))
	}
}

// Count notes a fault unless lo <= n <= hi entries are in a list.
func (f *Faults) Count(field string, n, lo, hi int) bool {
	ok := n >= lo && n <= hi
	if !ok {
		f.Add(field, "has %d entries: must be between %d and %d", n, lo, hi)
	}
	return ok
}

// Vehicle returns the id in a vehicle's resource name.
func (f *Faults) Vehicle(field, name string) string {
	id, ok := strings.CutPrefix(name, limits.VehicleNamePrefix)
	f.Need(ok && limits.ValidVehicleID(id), field, name, "vehicles/{vehicle_id}, with a vehicle id of %s", limits.VehicleIDRule)
	return id
}

// Position checks two coordinates in degrees, whose fields are prefix followed by
// latitude and longitude. NaN is refused.
func (f *Faults) Position(prefix string, latDeg, lonDeg float64) {
	f.Need(latDeg >= -90 && latDeg <= 90, prefix+"latitude", latDeg, "between -90 and 90")
	f.Need(lonDeg >= -180 && lonDeg <= 180, prefix+"longitude", lonDeg, "between -180 and 180")
}

// Text checks that a text has lo to hi characters, none of them a control
// character.
func (f *Faults) Text(field, s string, lo, hi int) {
	n := utf8.RuneCountInString(s)
	ok := n >= lo && n <= hi && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
	f.Need(ok, field, s, "%d to %d characters, none of them a control character", lo, hi)
}

// Size returns how many results of at most hi a caller wants, standard for 0.
func (f *Faults) Size(field string, n int32, standard, hi int) int {
	f.Need(n >= 0 && int(n) <= hi, field, n, "0 (for %d) or between 1 and %d", standard, hi)
	if n == 0 {
		return standard
	}
	return int(n)
}
