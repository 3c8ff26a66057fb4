package auth

import (
	"bytes"
	"testing"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// FuzzSealedTokens: a page or resume token is taken only from whom it was given to,
// and as it was given.
func FuzzSealedTokens(f *testing.F) {
	s := newSealer(bytes.Repeat([]byte{7}, minSecretBytes))
	alice, bob := &Caller{Issuer: "us", Subject: "alice"}, &Caller{Issuer: "us", Subject: "bob"}
	given := s.seal(alice, "MTphLTE")
	for _, token := range []string{given, s.seal(bob, "MTphLTE"), "MTphLTE", "MTphLTE.", ".", "", given + "=", given + "\n"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		for _, req := range []any{
			&starlingv1.ListVehiclesRequest{PageToken: token}, &starlingv1.CountVehiclesRequest{PageToken: token},
			&starlingv1.WatchVehicleRequest{ResumeToken: token}, &starlingv1.WatchAreaRequest{ResumeToken: token},
		} {
			if r := s.openRequest(alice, req); r == nil && token != "" && token != given {
				t.Fatalf("%q was taken from alice in a %T", token, req)
			}
			if r := s.openRequest(bob, req); r == nil && token != "" && token != s.seal(bob, "MTphLTE") {
				t.Fatalf("%q was taken from bob in a %T", token, req)
			}
		}
	})
}
