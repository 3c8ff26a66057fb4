// Package config fills a typed configuration struct from its defaults, a YAML
// file, environment variables and flags (each overriding the one before), and
// describes it for help texts and for the reference in docs/configuration.md.
//
// A setting is a struct field with the tags `koanf:"name"` and `help:"..."`;
// nested structs are sections. The field log.local.sync_writes is then the
// flag --log-local-sync-writes, the variable STARLING_LOG_LOCAL_SYNC_WRITES
// and the key log: {local: {sync_writes: ...}} of the file.
package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// EnvPrefix starts the name of every environment variable that is a setting.
const EnvPrefix = "STARLING_"

// Setting describes one field of a configuration struct.
type Setting struct {
	// Key is its path in the file, with dots: "ingest.append_wait".
	Key string
	// Help is one sentence.
	Help string
	// Default is its value in the struct that was walked.
	Default any
	// Secret settings are not printed: their type is Secret.
	Secret bool
}

// Flag is the setting's flag without the dashes.
func (s Setting) Flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.Key)
}

// Env is the setting's environment variable.
func (s Setting) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.Key, ".", "_"))
}

// Type names the setting's type for people.
func (s Setting) Type() string {
	switch s.Default.(type) {
	case time.Duration:
		return "duration"
	case []string:
		return "list"
	default:
		return reflect.TypeOf(s.Default).String()
	}
}

var durationType = reflect.TypeFor[time.Duration]()

// Settings lists the settings of a configuration struct (or a pointer to one)
// in the order of its fields, with its present values as defaults. It panics
// on a field that it can't represent, which is a programmer's error.
func Settings(cfg any) []Setting {
	v := reflect.Indirect(reflect.ValueOf(cfg))
	var all []Setting
	walk(v, "", &all)
	return all
}

func walk(v reflect.Value, prefix string, all *[]Setting) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := field.Tag.Get("koanf")
		if name == "-" || !field.IsExported() {
			continue
		}
		if name == "" {
			panic(fmt.Sprintf("config: field %s.%s has no koanf tag", v.Type(), field.Name))
		}
		if field.Type.Kind() == reflect.Struct {
			walk(v.Field(i), prefix+name+".", all)
			continue
		}
		help := field.Tag.Get("help")
		if help == "" {
			panic(fmt.Sprintf("config: setting %s%s has no help tag", prefix, name))
		}
		*all = append(*all, Setting{
			Key:     prefix + name,
			Help:    help,
			Default: plain(v.Field(i), prefix+name),
			Secret:  field.Type == secretType,
		})
	}
}

// plain returns a field's value as one of the types that flags can carry.
func plain(v reflect.Value, key string) any {
	switch {
	case v.Type() == durationType:
		return v.Interface()
	case v.Kind() == reflect.String:
		return v.String()
	case v.Kind() == reflect.Bool:
		return v.Bool()
	case v.Kind() == reflect.Int:
		return int(v.Int())
	case v.Kind() == reflect.Int32, v.Kind() == reflect.Int64:
		return v.Int()
	case v.Kind() == reflect.Float64:
		return v.Float()
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
		out := make([]string, v.Len())
		for i := range out {
			out[i] = v.Index(i).String()
		}
		return out
	}
	panic(fmt.Sprintf("config: setting %s has the unsupported type %s", key, v.Type()))
}
