package gpsfilter_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The compiler may fuse x*y + z into one instruction with one rounding, on
// some architectures only (Go specification, "Floating-point operators").
// The assembly of one of them shows that nothing was left to fuse.
func TestNothingIsFused(t *testing.T) {
	cmd := exec.Command("go", "build", "-gcflags=-S", ".")
	cmd.Env = append(os.Environ(), "GOARCH=arm64", "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "FMULD", "the assembly is there to be searched")
	fused := regexp.MustCompile(`\bFN?M(ADD|SUB)[DS]\b`)
	for _, line := range strings.Split(string(out), "\n") {
		require.False(t, fused.MatchString(line), "wrap the product in float64(): %s", line)
	}
}

// The digest changes with whatever the step computes. When that is meant,
// raise gpsfilter.StateVersion and run the test with -update.
func TestGoldenDigest(t *testing.T) {
	const path = "testdata/golden.digest"
	digest := newFilter(t).GoldenDigest()
	got := fmt.Sprintf("%d %s\n", gpsfilter.StateVersion, hex.EncodeToString(digest[:]))
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)

	cfg := gpsfilter.DefaultConfig()
	cfg.DefaultAccuracyM++
	other, err := gpsfilter.New(cfg)
	require.NoError(t, err)
	require.NotEqual(t, digest, other.GoldenDigest(), "another configuration computes something else")
}

// The golden text shows what the filter does, fix by fix, for a reader.
func TestGoldenText(t *testing.T) {
	const path = "testdata/golden.txt"
	got := goldenText(newFilter(t))
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func goldenText(f *gpsfilter.Filter) string {
	const velocity = gpsfilter.FieldSpeed | gpsfilter.FieldHeading
	type point struct {
		s, north, east, speed float64
	}
	cases := []struct {
		name   string
		has    gpsfilter.Fields
		points []point
	}{
		{"a bad first fix", 0, []point{{0, 900, 0, 0}, {1, 0, 0, 0}, {2, 10, 0, 0}, {3, 20, 0, 0}, {4, 30, 0, 0}}},
		{"one jump while driving north at 10 m/s", velocity, []point{{0, 0, 0, 10}, {1, 10, 0, 10}, {2, 20, 0, 10}, {3, 30, 0, 10}, {4, 40, 400, 10}, {5, 50, 0, 10}}},
		{"standing, then a jump of the bias, then leaving", 0, []point{{0, 0, 0, 0}, {1, 0.2, 0, 0}, {2, 0, 0.2, 0}, {3, 0.1, 0, 0}, {4, 0, 0, 0}, {5, 0, 0.1, 0}, {6, 0, 0, 0}, {7, 9, 0, 0}, {8, 9, 0, 0}, {9, 9, 0, 0}, {10, 9, 0, 0}, {11, 10, 0, 0}, {12, 12, 0, 0}, {13, 15, 0, 0}, {14, 19, 0, 0}, {15, 24, 0, 0}}},
		{"a frozen position while the speed goes on", velocity, []point{{0, 0, 0, 10}, {1, 10, 0, 10}, {2, 20, 0, 10}, {3, 20, 0, 10.1}, {4, 20, 0, 10}, {5, 50, 0, 10}}},
		{"a tunnel of a minute", velocity, []point{{0, 0, 0, 20}, {1, 20, 0, 20}, {2, 40, 0, 20}, {62, 1230, 30, 20}, {63, 1250, 30, 20}}},
		{"time that does not advance", 0, []point{{0, 0, 0, 0}, {1, 10, 0, 0}, {1, 20, 0, 0}, {0.5, 5, 0, 0}, {2, 20, 0, 0}}},
	}
	var b strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&b, "%s\n   s   north    east  ->   north    east    sd  speed  verdict\n", c.name)
		var s gpsfilter.State
		for _, p := range c.points {
			e := f.Step(&s, gpsfilter.Fix{
				TimeMS: 1000 + int64(p.s*1000), LatDeg: p.north / 111195, LonDeg: p.east / 111195,
				SpeedMPS: float32(p.speed), Has: c.has,
			})
			speed := "    -"
			if e.HasSpeed {
				speed = fmt.Sprintf("%5.1f", e.SpeedMPS)
			}
			fmt.Fprintf(&b, "%4.1f %7.1f %7.1f  -> %7.1f %7.1f %5.1f  %s  %s\n", p.s, p.north, p.east,
				e.LatDeg*111195, e.LonDeg*111195, math.Sqrt(e.VarNorthM2), speed, e.Verdict)
		}
		b.WriteString("\n")
	}
	return b.String()
}
