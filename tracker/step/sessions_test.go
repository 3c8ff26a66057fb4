package step

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The bitmap remembers what a set of all sequences would.
func TestSessionRemembersItsSequences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sessions
		seen := map[int64]bool{}
		highest := int64(0)
		for _, step := range rapid.SliceOf(rapid.Int64Range(-70, 70)).Draw(t, "steps") {
			sequence := max(1, highest+step)
			p := s.observe(7, sequence, 0)
			require.Equal(t, seen[sequence] || sequence < highest-recallDepth, p.recognised, "sequence %d", sequence)
			require.Equal(t, sequence > highest, p.advances)
			seen[sequence] = true
			highest = max(highest, sequence)
		}
	})
}
