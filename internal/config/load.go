package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// notSettings are variables with our prefix that are read elsewhere.
var notSettings = []string{EnvPrefix + "DATA", EnvPrefix + "CACHE", EnvPrefix + "CONFIG", EnvPrefix + "TOKEN_FILE", EnvPrefix + "SERVER_CA_FILE"}

// RegisterFlags adds a flag for every setting.
func RegisterFlags(flags *pflag.FlagSet, settings []Setting) {
	for _, s := range settings {
		switch def := s.Default.(type) {
		case time.Duration:
			flags.Duration(s.Flag(), def, s.Help)
		case string:
			flags.String(s.Flag(), def, s.Help)
		case bool:
			flags.Bool(s.Flag(), def, s.Help)
		case int:
			flags.Int(s.Flag(), def, s.Help)
		case int64:
			flags.Int64(s.Flag(), def, s.Help)
		case float64:
			flags.Float64(s.Flag(), def, s.Help)
		case []string:
			flags.StringSlice(s.Flag(), def, s.Help)
		}
	}
}

// Sources are where settings come from besides the defaults.
type Sources struct {
	// File is the path of a YAML file; empty for none.
	File string
	// Environ is the environment, as os.Environ returns it.
	Environ []string
	// Flags are the parsed flags; only those that were set count. May be nil.
	Flags *pflag.FlagSet
}

// Load fills cfg, a pointer to a struct that holds the defaults. The error
// names every fault of every source.
func Load(cfg any, src Sources) error {
	settings := Settings(cfg)
	k := koanf.New(".")
	faults := loadFile(k, settings, src.File)
	faults = append(faults, loadEnv(k, settings, src.Environ)...)
	faults = append(faults, loadFlags(k, settings, src.Flags)...)
	faults = append(faults, unmarshal(k, cfg)...)
	return errors.Join(faults...)
}

func loadFile(k *koanf.Koanf, settings []Setting, path string) []error {
	if path == "" {
		return nil
	}
	fromFile := koanf.New(".")
	if err := fromFile.Load(file.Provider(path), yaml.Parser()); err != nil {
		return []error{fmt.Errorf("read configuration file %s: %w", path, err)}
	}
	var faults []error
	keys := fromFile.Keys()
	sort.Strings(keys)
	for _, key := range keys {
		known := slices.ContainsFunc(settings, func(s Setting) bool { return s.Key == key })
		if !known && !emptySection(fromFile, settings, key) {
			faults = append(faults, fmt.Errorf("%s: unknown setting %q%s", path, key, suggestion(settings, key)))
			fromFile.Delete(key)
		}
	}
	faults = append(faults, convertAll(fromFile, settings, path)...)
	if err := k.Merge(fromFile); err != nil {
		faults = append(faults, fmt.Errorf("%s: %w", path, err))
	}
	return faults
}

// convertAll gives the values of one source their settings' types and returns what
// could not be read.
func convertAll(k *koanf.Koanf, settings []Setting, source string) []error {
	var faults []error
	for _, s := range settings {
		if !k.Exists(s.Key) {
			continue
		}
		value, err := convert(s, k.Get(s.Key))
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s %w", source, s.Key, err))
			k.Delete(s.Key)
			continue
		}
		if err := k.Set(s.Key, value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", source, s.Key, err))
		}
	}
	return faults
}

// emptySection returns whether key is a section that the file leaves empty.
func emptySection(k *koanf.Koanf, settings []Setting, key string) bool {
	isSection := slices.ContainsFunc(settings, func(s Setting) bool { return strings.HasPrefix(s.Key, key+".") })
	value := reflect.ValueOf(k.Get(key))
	return isSection && (!value.IsValid() || value.Kind() == reflect.Map && value.Len() == 0)
}

func loadEnv(k *koanf.Koanf, settings []Setting, environ []string) []error {
	byEnv := map[string]Setting{}
	for _, s := range settings {
		byEnv[s.Env()] = s
	}
	values := map[string]any{}
	var faults []error
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, EnvPrefix) || slices.Contains(notSettings, name) {
			continue
		}
		s, ok := byEnv[name]
		if !ok && serviceLink(name, value) {
			continue
		}
		if !ok {
			faults = append(faults, fmt.Errorf("environment: unknown setting %s", name))
			continue
		}
		typed, err := convert(s, value)
		if err != nil {
			faults = append(faults, fmt.Errorf("environment: %s %w", name, err))
			continue
		}
		values[s.Key] = typed
	}
	if err := k.Load(confmap.Provider(values, "."), nil); err != nil {
		faults = append(faults, fmt.Errorf("environment: %w", err))
	}
	return faults
}

func loadFlags(k *koanf.Koanf, settings []Setting, flags *pflag.FlagSet) []error {
	if flags == nil {
		return nil
	}
	values := map[string]any{}
	for _, s := range settings {
		f := flags.Lookup(s.Flag())
		if f == nil || !f.Changed {
			continue
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values[s.Key] = list.GetSlice()
		} else {
			values[s.Key] = f.Value.String()
		}
	}
	if err := k.Load(confmap.Provider(values, "."), nil); err != nil {
		return []error{fmt.Errorf("flags: %w", err)}
	}
	return nil
}

func unmarshal(k *koanf.Koanf, cfg any) []error {
	err := k.UnmarshalWithConf("", cfg, koanf.UnmarshalConf{
		DecoderConfig: &mapstructure.DecoderConfig{
			Result:           cfg,
			TagName:          "koanf",
			WeaklyTypedInput: true,
			DecodeHook: mapstructure.ComposeDecodeHookFunc(
				wholeDuration,
				mapstructure.StringToTimeDurationHookFunc(),
				mapstructure.StringToSliceHookFunc(","),
			),
		},
	})
	if err != nil {
		return []error{err}
	}
	return nil
}

// wholeDuration refuses a bare number where a duration is due, because its unit
// would be a guess.
func wholeDuration(from, to reflect.Type, value any) (any, error) {
	if to == durationType && from.Kind() != reflect.String && from != durationType {
		return nil, fmt.Errorf("%v has no unit: write a duration such as 1500ms or 30s", value)
	}
	return value, nil
}

func suggestion(settings []Setting, key string) string {
	last := key[strings.LastIndex(key, ".")+1:]
	for _, s := range settings {
		if s.Key[strings.LastIndex(s.Key, ".")+1:] == last {
			return fmt.Sprintf(" (did you mean %q?)", s.Key)
		}
	}
	return ""
}
