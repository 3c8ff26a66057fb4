// Package dialect prints what --json prints: protobuf's JSON, as the gateway's is
// (docs/json.md). One object a line, names in lowerCamelCase, 64-bit numbers as
// strings, times as RFC 3339, durations as "1.5s"; what can be absent and is, is
// left out, and a zero is written. Values that are no messages are printed by the
// same rules.
package dialect

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Print writes one value as a line of JSON.
func Print(w io.Writer, v any) error {
	line, err := appendJSON(nil, reflect.ValueOf(v))
	if err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

var messageJSON = protojson.MarshalOptions{EmitDefaultValues: true}

// appendJSON appends a value.
func appendJSON(b []byte, v reflect.Value) ([]byte, error) {
	if v.Kind() == reflect.Invalid {
		return append(b, "null"...), nil
	}
	if special, out, err := appendSpecial(b, v.Interface()); special {
		return out, err
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return appendJSON(b, v.Elem())
	case reflect.Struct:
		b, _, err := appendFields(append(b, '{'), v, true)
		return append(b, '}'), err
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Slice, reflect.Array:
		return appendList(b, v)
	case reflect.Int64:
		return append(strconv.AppendInt(append(b, '"'), v.Int(), 10), '"'), nil
	case reflect.Uint64:
		return append(strconv.AppendUint(append(b, '"'), v.Uint(), 10), '"'), nil
	case reflect.Float32, reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			text := strings.NewReplacer("+Inf", "Infinity", "-Inf", "-Infinity").Replace(fmt.Sprintf("%+v", f))
			return append(b, `"`+text+`"`...), nil
		}
	default:
	}
	text, err := json.Marshal(v.Interface())
	return append(b, text...), err
}

// appendSpecial appends a value whose type has a form of its own.
func appendSpecial(b []byte, v any) (special bool, _ []byte, _ error) {
	switch v := v.(type) {
	case proto.Message:
		text, err := messageJSON.Marshal(v)
		return true, append(b, Compact(text)...), err
	case time.Duration:
		text, err := protojson.Marshal(durationpb.New(v))
		return true, append(b, text...), err
	case time.Time:
		return true, v.UTC().AppendFormat(append(b, '"'), `2006-01-02T15:04:05.999999999Z07:00"`), nil
	case Raw:
		return true, append(b, Compact(v)...), nil
	case json.RawMessage:
		decoder := json.NewDecoder(bytes.NewReader(v))
		decoder.UseNumber()
		var decoded any
		if err := decoder.Decode(&decoded); err != nil {
			return true, b, err
		}
		out, err := appendJSON(b, reflect.ValueOf(renamed(decoded)))
		return true, out, err
	case json.Number:
		return true, append(b, v...), nil
	case []byte:
		return true, append(b, `"`+base64.StdEncoding.EncodeToString(v)+`"`...), nil
	}
	return false, b, nil
}

// appendFields appends the fields of a struct; those of an embedded one count as
// its own.
func appendFields(b []byte, v reflect.Value, first bool) ([]byte, bool, error) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		if field.Anonymous && value.Kind() == reflect.Struct {
			var err error
			if b, first, err = appendFields(b, value, first); err != nil {
				return b, first, err
			}
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = strings.ToLower(field.Name[:1]) + field.Name[1:]
		}
		if name == "-" || !field.IsExported() || absent(value) {
			continue
		}
		if field.Type == reflect.TypeFor[time.Duration]() {
			name = strings.TrimSuffix(name, "_ns") // it has its unit in its value
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		var err error
		if b, err = appendJSON(append(strconv.AppendQuote(b, LowerCamel(name)), ':'), value); err != nil {
			return b, first, err
		}
	}
	return b, first, nil
}

// absent reports whether a field that can be absent is.
func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return v.IsNil()
	case reflect.Slice:
		switch v.Interface().(type) {
		case Raw, json.RawMessage:
			return v.Len() == 0
		}
	default:
	}
	return false
}

// appendMap appends a map by the order of its keys, which are data.
func appendMap(b []byte, v reflect.Value) ([]byte, error) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(key.String())
		if err != nil {
			return b, err
		}
		if b, err = appendJSON(append(append(b, name...), ':'), v.MapIndex(key)); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendList(b []byte, v reflect.Value) ([]byte, error) {
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendJSON(b, v.Index(i)); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

// renamed is decoded JSON with its names in lowerCamelCase.
func renamed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, value := range v {
			out[LowerCamel(name)] = renamed(value)
		}
		return out
	case []any:
		for i := range v {
			v[i] = renamed(v[i])
		}
	}
	return v
}

// LowerCamel is a name of lower_snake_case in lowerCamelCase.
func LowerCamel(name string) string {
	parts := strings.Split(name, "_")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}

// Raw is JSON that is printed as it is.
type Raw []byte

// Compact removes white space between tokens, which protojson varies on
// purpose.
func Compact(in []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, in) != nil {
		return in
	}
	return out.Bytes()
}
