package config

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

// Print writes the configuration as a YAML file that Load would read back, but
// for secrets, which are left out: a comment names those that are set.
func Print(w io.Writer, cfg any) error {
	for _, s := range Settings(cfg) {
		if s.Secret && s.Default != "" {
			if _, err := fmt.Fprintf(w, "# %s is set and not shown\n", s.Key); err != nil {
				return err
			}
		}
	}
	k := koanf.New(".")
	if err := k.Load(confmap.Provider(Values(cfg), "."), nil); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	out, err := k.Marshal(yaml.Parser())
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	_, err = w.Write(out)
	return err
}

// Values returns the configuration by key, in the form that Print prints, without
// the secrets.
func Values(cfg any) map[string]any {
	values := map[string]any{}
	for _, s := range Settings(cfg) {
		if !s.Secret {
			values[s.Key] = printable(s)
		}
	}
	return values
}

func printable(s Setting) any {
	if s.Secret {
		return ""
	}
	if d, ok := s.Default.(time.Duration); ok {
		return d.String()
	}
	return s.Default
}

// WriteReference writes the configuration reference in Markdown: a table for
// each section.
func WriteReference(w io.Writer, cfg any) error {
	section := "\x00"
	for _, s := range Settings(cfg) {
		i := strings.LastIndex(s.Key, ".")
		if i < 0 {
			i = 0
		}
		if s.Key[:i] != section {
			section = s.Key[:i]
			title := "General"
			if section != "" {
				title = "`" + section + "`"
			}
			if _, err := fmt.Fprintf(w, "\n## %s\n\n| key | flag | type | default | meaning |\n|---|---|---|---|---|\n", title); err != nil {
				return err
			}
		}
		def := fmt.Sprint(printable(s))
		if list, ok := s.Default.([]string); ok {
			def = strings.Join(list, ",")
		}
		if def != "" {
			def = "`" + def + "`"
		}
		if _, err := fmt.Fprintf(w, "| `%s` | `--%s` | %s | %s | %s |\n", s.Key, s.Flag(), s.Type(), def, s.Help); err != nil {
			return err
		}
	}
	return nil
}
