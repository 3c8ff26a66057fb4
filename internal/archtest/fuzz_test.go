package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fuzzed are the fuzz targets that send any bytes to every method of a service, one
// for each package that serves it.
var fuzzed = map[string][]string{
	"IngestService":    {"ingest/hostile_test.go: FuzzStream", "internal/conformance/fuzz_test.go: FuzzReports"},
	"FleetService":     {"matcher/fuzz_test.go: FuzzFleetCalls", "fanout/fuzz_test.go: FuzzFanoutCalls"},
	"HistoryService":   {"history/query/query_test.go: FuzzHistoryCalls"},
	"RideService":      {"rides/fuzz_test.go: FuzzRideCalls"},
	"RideOwnerService": {"rides/fuzz_test.go: FuzzRideCalls"},
}

var (
	aService  = regexp.MustCompile(`(?m)^service (\w+) \{`)
	registers = regexp.MustCompile(`starlingv1\.Register(\w+)Server\(`)
)

// Whatever serves a service has a fuzz target for what strangers send to it.
func TestServicesAreFuzzed(t *testing.T) {
	const root = "../.."
	protos, err := filepath.Glob(root + "/schemas/proto/starling/v1/*.proto")
	require.NoError(t, err)
	services := 0
	for _, p := range protos {
		text, err := os.ReadFile(p)
		require.NoError(t, err)
		for _, m := range aService.FindAllStringSubmatch(string(text), -1) {
			services++
			require.NotEmpty(t, fuzzed[m[1]], "no fuzz target is named for %s", m[1])
		}
	}
	require.Len(t, fuzzed, services, "services that there are")
	for service, targets := range fuzzed {
		for _, target := range targets {
			file, name, _ := strings.Cut(target, ": ")
			text, err := os.ReadFile(filepath.Join(root, file))
			require.NoError(t, err)
			require.Contains(t, string(text), "func "+name+"(f *testing.F)", "the fuzz target of %s", service)
		}
	}
	eachSource(t, func(rel, path string) {
		if isTestSupport(filepath.Dir(rel)) || within(rel, "loadtest") || within(rel, "schemas") {
			return
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range registers.FindAllStringSubmatch(string(text), -1) {
			named := false
			for _, target := range fuzzed[m[1]] {
				named = named || strings.HasPrefix(target, strings.Split(rel, "/")[0]+"/")
			}
			require.True(t, named, "%s serves %s: name its fuzz target", rel, m[1])
		}
	})
}
