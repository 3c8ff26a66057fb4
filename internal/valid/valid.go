// Package valid is the one form in which a configuration is refused:
//
//	field is VALUE: must be RULE
//
// Every Validate method collects all that is wrong and joins it, so that one run
// shows every fault. The package is pure; every component may import it.
package valid

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Faults are the rules that a configuration breaks. The zero value has none.
type Faults struct {
	all []error
}

// Need notes a fault unless ok is true: field is value, must be rule.
func (f *Faults) Need(ok bool, field string, value any, rule string) {
	if !ok {
		f.all = append(f.all, fmt.Errorf("%s is %s: must be %s", field, Text(value), rule))
	}
}

// Add notes faults that were found elsewhere; nil is none.
func (f *Faults) Add(err error) {
	if err != nil {
		f.all = append(f.all, err)
	}
}

// In notes the faults of a section, which stand behind its name; nil is none.
func (f *Faults) In(section string, err error) {
	if err != nil {
		f.all = append(f.all, fmt.Errorf("%s: %w", section, err))
	}
}

// Err returns all faults joined, nil if there are none.
func (f *Faults) Err() error { return errors.Join(f.all...) }

// Between notes a fault unless lo <= v <= hi, which NaN never is.
func Between[T cmp.Ordered](f *Faults, field string, v, lo, hi T) {
	f.Need(v >= lo && v <= hi, field, v, "between "+Text(lo)+" and "+Text(hi))
}

// AtLeast notes a fault unless v >= lo, which NaN never is.
func AtLeast[T cmp.Ordered](f *Faults, field string, v, lo T) {
	f.Need(v >= lo, field, v, "at least "+Text(lo))
}

// Positive notes a fault unless v is above zero.
func Positive[T cmp.Ordered](f *Faults, field string, v T) {
	var zero T
	f.Need(v > zero, field, v, "positive")
}

// Text writes a value as a configuration file has it: strings quoted, 1h and not
// 1h0m0s.
func Text(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case time.Duration:
		s := v.String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		return s
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}
