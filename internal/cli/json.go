package cli

import (
	"bytes"
	"encoding/json"
)

// rawJSON is JSON that is printed as it is, apart from its indentation.
type rawJSON []byte

// MarshalJSON returns the JSON itself.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// compactJSON removes white space between tokens.
func compactJSON(in []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, in) != nil {
		return in
	}
	return out.Bytes()
}
