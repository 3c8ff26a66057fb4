package limits_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/schemas/limits"
)

// The rule once more, as a pattern.
var pattern = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)

func keepsRule(id string) bool { return pattern.MatchString(id) && id != "." && id != ".." }

func TestValidVehicleID(t *testing.T) {
	for c := range 256 {
		id := "a" + string([]byte{byte(c)})
		require.Equal(t, keepsRule(id), limits.ValidVehicleID(id), "%q", id)
		require.Equal(t, limits.ValidVehicleID(id), limits.ValidVehicleID([]byte(id)), "%q", id)
	}
	for _, length := range []int{0, 1, 63, 64, 65, 1000} {
		require.Equal(t, length >= 1 && length <= 64, limits.ValidVehicleID(strings.Repeat("x", length)), "%d bytes", length)
	}
	rapid.Check(t, func(rt *rapid.T) {
		id := rapid.String().Draw(rt, "id")
		require.Equal(rt, keepsRule(id), limits.ValidVehicleID(id))
	})
	for _, id := range []string{".", "..", "...", ".a", "a.", "..a", ".-", "-."} {
		require.Equal(t, keepsRule(id), limits.ValidVehicleID(id), "%q", id)
		require.Equal(t, keepsRule(id), limits.ValidVehicleID([]byte(id)), "%q", id)
	}
}

func TestRuleInWordsNamesTheBound(t *testing.T) {
	require.Contains(t, limits.VehicleIDRule, "1 to 64 ")
	require.Equal(t, 64, limits.MaxVehicleIDBytes)
}

func TestVisibleLabel(t *testing.T) {
	for label, want := range map[string]bool{
		"": true, "van": true, "Großraum 7": true, "車": true, "🚕": true, "a\u00a0b": true,
		"\x00": false, "a\n": false, "\x1b[2J": false, "\x7f": false, "\u009b": false, "\u202e": false, "\u200b": false, "\u2028": false, "\U000E0041": false,
	} {
		require.Equal(t, want, limits.VisibleLabel(label), "%q", label)
	}
}

func BenchmarkValidVehicleID(b *testing.B) {
	id := "driver-0a1b2c3d-4e5f"
	b.ReportAllocs()
	for b.Loop() {
		if !limits.ValidVehicleID(id) {
			b.Fatal(id)
		}
	}
}
