package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// convert reads a value as the setting's type. A value comes as text, from the
// environment or a flag, or as what YAML makes of it. The error states the rule,
// not what some library calls it.
func convert(s Setting, value any) (any, error) {
	if value == nil {
		value = "" // a key without a value
	}
	text := strings.TrimSpace(fmt.Sprint(value))
	switch s.Default.(type) {
	case time.Duration:
		if d, err := time.ParseDuration(text); err == nil && (isText(value) || text != "0") {
			return d, nil
		}
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return nil, fmt.Errorf("is %s, which has no unit: must be a duration such as 1500ms or 30s", text)
		}
		return nil, fmt.Errorf("is %q: must be a duration such as 1500ms or 30s", text)
	case bool:
		switch strings.ToLower(text) {
		case "true", "1", "t":
			return true, nil
		case "false", "0", "f":
			return false, nil
		}
		return nil, fmt.Errorf("is %q: must be true or false", text)
	case int, int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("is %q: must be a whole number", text)
		}
		return n, nil
	case float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("is %q: must be a number", text)
		}
		return f, nil
	case []string:
		switch value := value.(type) {
		case string:
			if value == "" {
				return []string{}, nil
			}
			return strings.Split(value, ","), nil
		case []string, []any:
			return value, nil
		}
		return nil, fmt.Errorf("is %q: must be a list", text)
	}
	switch value.(type) {
	case map[string]any, []any:
		return nil, fmt.Errorf("must be a text")
	}
	return text, nil
}

func isText(value any) bool {
	_, is := value.(string)
	return is
}

// TypeRule is what a flag's value must be, by the name of its type; empty for a
// type that takes any text.
func TypeRule(flagType string) string {
	switch flagType {
	case "duration":
		return "must be a duration such as 1500ms or 30s"
	case "bool":
		return "must be true or false"
	case "int", "int32", "int64":
		return "must be a whole number"
	case "float64":
		return "must be a number"
	}
	return ""
}
