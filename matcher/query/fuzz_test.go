package query_test

import (
	"testing"

	"github.com/starling-fleet/starling/matcher/query"
)

// FuzzPageTokens: what is taken for a page token is one that was given for what it is
// read as.
func FuzzPageTokens(f *testing.F) {
	for _, token := range []string{query.PageToken("car-7"), query.CountPageToken("841e15dffffffff"), "", "MTo", "Mjp4", "MTphCg"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if after, ok := query.PageStart(token); ok {
			if again, same := query.PageStart(query.PageToken(after)); !same || again != after {
				t.Fatalf("%q is read as %q, whose token is read as %q", token, after, again)
			}
		}
		if after, ok := query.CountPageStart(token); ok {
			if again, same := query.CountPageStart(query.CountPageToken(after)); !same || again != after {
				t.Fatalf("%q is read as %q, whose token is read as %q", token, after, again)
			}
		}
	})
}
