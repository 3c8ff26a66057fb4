package archtest

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var quotedPackage = regexp.MustCompile("`([a-z0-9/]+)`")

// packagesIn returns the packages that a cell of the table names.
func packagesIn(cell string) []string {
	var names []string
	for _, m := range quotedPackage.FindAllStringSubmatch(cell, -1) {
		names = append(names, m[1])
	}
	return names
}

// The table of packages in ARCHITECTURE.md has a row for every component, and what
// it may import there is what it may import here.
func TestArchitectureHasTheTable(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	require.NoError(t, err)
	rows := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(cells[0], "| `") {
			continue
		}
		components := packagesIn(cells[0])
		want := []string{}
		for _, component := range components {
			rows[component] = true
			for _, target := range mayImport[component] {
				if !slices.Contains(components, target) {
					want = append(want, target)
				}
			}
		}
		if isTestSupport(components[0]) || components[0] == "loadtest" || components[0] == "cmd/starling/e2e" {
			continue
		}
		slices.Sort(want)
		got := packagesIn(cells[2])
		slices.Sort(got)
		require.Equal(t, slices.Compact(want), append([]string{}, got...), "what %v may import", components)
	}
	for component := range mayImport {
		require.True(t, rows[component] || within(component, "loadtest"), "no row for %s", component)
	}
}
