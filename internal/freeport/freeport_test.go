package freeport_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/freeport"
)

// Servers that have not started yet, or are starting again, do not listen, and
// still no one else may get their ports.
func TestNoPortIsGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 500 {
		addrs, err := freeport.Addrs(3)
		require.NoError(t, err)
		for _, addr := range addrs {
			require.False(t, seen[addr], addr)
			seen[addr] = true
		}
	}
}
