package gpsfilter

import "reflect"

// Constant is one of the tuning's constants of f, by its name.
func (f *Filter) Constant(name string) *float64 {
	return reflect.ValueOf(&f.tune).Elem().FieldByName(name).Addr().Interface().(*float64)
}
