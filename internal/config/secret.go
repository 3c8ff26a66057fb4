package config

import (
	"fmt"
	"io"
	"log/slog"
	"reflect"
)

// Secret is the type of a setting that must not be shown: a password, a key. It
// loads like a string; whatever prints it, a log or an encoder included, shows
// only whether it is set. Reveal returns it.
type Secret string

// hidden is what stands for a secret that is set, in logs and messages. It is
// never part of a configuration file, where it would be taken for the secret.
const hidden = "(not shown)"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format implements fmt.Formatter, so that no verb shows the secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, which JSON and YAML use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var secretType = reflect.TypeFor[Secret]()
