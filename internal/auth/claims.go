package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// claims are those of a token.
type claims struct {
	jwt.RegisteredClaims
	Scope   scopeClaim
	Vehicle string
}

// claimError is the fault of a claim that stands in a token otherwise than it must.
type claimError struct{ claim, rule string }

// Error implements error.
func (e *claimError) Error() string { return e.claim + ": " + e.rule }

// UnmarshalJSON implements json.Unmarshaler. The standard decoder takes "EXP" for
// "exp" and the last of two that are the same; whoever issued the token, or checks
// it elsewhere, may read it otherwise. So names count only as they are written, and
// a claim of ours that stands there twice, or in other letters, is refused.
func (c *claims) UnmarshalJSON(b []byte) error {
	ours := map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "exp": &c.ExpiresAt, "nbf": &c.NotBefore,
		"iat": &c.IssuedAt, "jti": &c.ID, "scope": &c.Scope, "vehicle": &c.Vehicle,
	}
	seen := map[string]bool{}
	return eachMember(b, func(name string, value json.RawMessage) error {
		field, exact := ours[name]
		if !exact {
			for known := range ours {
				if strings.EqualFold(known, name) {
					return &claimError{known, "must be written in small letters"}
				}
			}
			return nil
		}
		if seen[name] {
			return &claimError{name, "must not be there twice"}
		}
		seen[name] = true
		return json.Unmarshal(value, field)
	})
}

// eachMember calls fn with each member of a JSON object, in order.
func eachMember(b []byte, fn func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return errors.Join(errors.New("not an object"), err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		text, ok := name.(string)
		if !ok {
			return fmt.Errorf("the name of a member is a %T", name)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := fn(text, value); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// scopeClaim is a string with spaces (RFC 8693) or a list.
type scopeClaim []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *scopeClaim) UnmarshalJSON(b []byte) error {
	var list []string
	if len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		*s = list
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	*s = strings.Fields(text)
	return nil
}
