package cli

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
)

// readJSON reads what printJSON has printed back into a value, by the names and
// forms that its types are documented to have.
func readJSON(t *testing.T, text string, into any) {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	readValue(t, v, reflect.ValueOf(into).Elem())
}

func readValue(t *testing.T, v any, into reflect.Value) {
	t.Helper()
	switch into.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(v.(string))
		require.NoError(t, err)
		into.SetInt(int64(d))
		return
	case time.Time:
		at, err := time.Parse(time.RFC3339Nano, v.(string))
		require.NoError(t, err)
		into.Set(reflect.ValueOf(at))
		return
	case dialect.Raw, json.RawMessage:
		text, err := json.Marshal(v)
		require.NoError(t, err)
		into.SetBytes(text)
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		readValue(t, v, into.Elem())
	case reflect.Struct:
		readFields(t, v.(map[string]any), into)
	case reflect.Slice:
		for _, element := range v.([]any) {
			into.Set(reflect.Append(into, reflect.New(into.Type().Elem()).Elem()))
			readValue(t, element, into.Index(into.Len()-1))
		}
	case reflect.Map:
		into.Set(reflect.MakeMap(into.Type()))
		for key, value := range v.(map[string]any) {
			element := reflect.New(into.Type().Elem()).Elem()
			readValue(t, value, element)
			into.SetMapIndex(reflect.ValueOf(key), element)
		}
	case reflect.Int64:
		n, err := strconv.ParseInt(v.(string), 10, 64)
		require.NoError(t, err)
		into.SetInt(n)
	case reflect.Uint64:
		n, err := strconv.ParseUint(v.(string), 10, 64)
		require.NoError(t, err)
		into.SetUint(n)
	default:
		into.Set(reflect.ValueOf(v).Convert(into.Type()))
	}
}

func readFields(t *testing.T, from map[string]any, into reflect.Value) {
	t.Helper()
	for i := range into.NumField() {
		field := into.Type().Field(i)
		if field.Anonymous {
			readFields(t, from, into.Field(i))
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Type == reflect.TypeFor[time.Duration]() {
			name = strings.TrimSuffix(name, "_ns")
		}
		if v, ok := from[dialect.LowerCamel(name)]; ok && into.Field(i).CanSet() {
			readValue(t, v, into.Field(i))
		}
	}
}
