// Package archtest holds the packages to the dependency rule of ARCHITECTURE.md.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/starling-fleet/starling/"

// mayImport lists, for each component, which others its production code may
// import. A package belongs to the component with the longest prefix of its
// folder; packages of one component may import each other.
var mayImport = map[string][]string{
	"cmd/starling":     {"cmd/starling/cli"},
	"cmd/starling/cli": {"cmd/starling/app", "history/clickhouse", "history/lake", "history/reprocess", "history/row", "history/store", "internal/auth", "internal/config", "internal/version", "internal/filtercsv", "internal/filtereval", "gpsfilter", "client", "internal/conformance", "internal/fleetsim", "internal/freshness", "internal/h3", "internal/latency", "internal/replay", "internal/ridesim", "schemas", "tracker", "internal/eventlog", "internal/kafkalog", "internal/locallog", "internal/retry", "internal/throttle"},
	"cmd/starling/app": {"internal/certs", "internal/auth", "internal/config", "internal/version", "internal/gateway", "ingest", "tracker", "matcher", "fanout", "rides", "history", "history/query", "internal/eventlog", "internal/kafkalog", "internal/locallog", "internal/throttle", "internal/redisconn", "rides/events", "internal/rpcserver", "internal/httpserver", "gpsfilter", "schemas"},
	"ingest":           {"internal/throttle", "internal/auth", "internal/budget", "internal/eventlog", "internal/retry", "internal/rpcserver", "internal/rpcstatus", "schemas"},
	"tracker":          {"internal/deadletter", "internal/eventlog", "internal/h3", "internal/geo", "gpsfilter", "schemas", "internal/retry"},
	// The state machine: no log, no publishing.
	"tracker/step": {"internal/h3", "internal/geo", "gpsfilter", "schemas", "tracker/reserve"},
	// Decides reservations.
	"tracker/reserve": {"schemas"},
	// The fold of a partition of rides, and what its owner decides.
	"rides":      {"internal/auth", "internal/budget", "internal/config", "internal/deadletter", "internal/h3", "internal/request", "matcher/eta", "matcher/liveindex", "rides/events", "rides/life", "rides/match", "rides/owner", "rides/name", "rides/zone", "internal/eventlog", "internal/retry", "internal/rpcstatus", "schemas"},
	"rides/name": {},
	"rides/zone": {"internal/h3"},
	// Rows of history, and the Parquet files that keep them.
	"history":            {"internal/eventlog", "internal/retry", "history/row", "history/clickhouse", "history/lake", "history/query", "history/store", "schemas"},
	"history/row":        {"schemas"},
	"history/lake":       {"history/row", "history/store", "internal/h3", "schemas"},
	"history/clickhouse": {"history/row", "history/store", "internal/config", "internal/h3", "schemas"},
	// Steps a range of locations again.
	"history/reprocess": {"history/lake", "history/row", "internal/eventlog", "schemas", "tracker/step"},
	// Serves what a store of history answers.
	"history/query": {"history/row", "history/store", "internal/auth", "internal/budget", "internal/geo", "internal/h3", "internal/request", "internal/rpcstatus", "schemas"},
	// What history answers from.
	"history/store": {"history/row", "internal/h3"},
	// Carries events of rides between nodes.
	"rides/events": {},
	"rides/life":   {"schemas"},
	"rides/owner":  {"internal/geo", "rides/life", "schemas"},
	// Which vehicle is proposed to which ride: the role and the simulator use it.
	"rides/match": {},
	// Answers from matchers of regions, whose pages and ranking it shares.
	"fanout":        {"matcher", "internal/geo", "internal/rpcstatus", "schemas"},
	"fanout/region": {"internal/geo", "internal/h3"},
	// Writes what the follower publishes to Redis.
	"matcher/redispositions":  {"internal/retry", "schemas"},
	"matcher":                 {"internal/request", "internal/throttle", "fanout/region", "internal/rpcstatus", "internal/eventlog", "internal/h3", "internal/geo", "gpsfilter", "schemas"},
	"internal/locallog":       {"internal/eventlog", "internal/throttle", "schemas/topics"},
	"internal/throttle":       {},
	"internal/kafkalog":       {"internal/config", "internal/eventlog", "schemas/topics", "internal/retry"},
	"internal/kafkatest":      {},
	"internal/deadletter":     {"internal/eventlog"},
	"internal/redisconn":      {"internal/config"},
	"internal/redistest":      {"internal/freeport"},
	"internal/clickhousetest": {"internal/freeport"},
	"internal/s3test":         {"internal/freeport"},
	"internal/eventlog":       {"schemas/topics"},
	"internal/certs":          {},
	"internal/auth":           {"internal/rpcstatus", "schemas"},
	"internal/gateway":        {"internal/auth", "internal/budget", "internal/httpserver", "internal/retry", "internal/rpcstatus", "schemas"},
	"internal/conformance":    {"internal/gateway", "internal/rpcstatus", "schemas"},
	"internal/rpcserver":      {"internal/auth", "internal/budget", "internal/rpcstatus"},
	"internal/budget":         {},
	"internal/rpcstatus":      {},
	"internal/request":        {"internal/rpcstatus", "schemas"},
	"internal/httpserver":     {},
	"internal/config":         {},
	"internal/fleetsim":       {"client", "internal/latency", "schemas"},
	"internal/ridesim":        {"rides/match"},
	"internal/freeport":       {},
	"internal/freshness":      {"internal/latency", "schemas", "internal/retry"},
	"internal/latency":        {},
	"internal/replay":         {"client", "schemas", "internal/retry", "internal/fixcsv"},
	"internal/valid":          {},
	"internal/version":        {},
	"internal/filtercsv":      {"gpsfilter", "internal/fixcsv", "schemas/limits"},
	"internal/filtereval":     {"gpsfilter"},
	"internal/fixcsv":         {},
	"internal/retry":          {},
	"client":                  {"schemas"},
	"loadtest":                {"client", "schemas", "internal/auth", "internal/fleetsim", "internal/freshness", "internal/latency", "internal/replay", "internal/eventlog", "internal/locallog", "internal/kafkalog", "internal/geo", "internal/kafkatest", "internal/freeport", "internal/retry"},
	// Runs an undisturbed tracker to compare with; its checker judges by itself.
	"loadtest/drill":       {"client", "schemas", "internal/eventlog", "internal/locallog", "internal/kafkalog", "tracker", "loadtest/conns", "loadtest/drill/check", "loadtest/process", "internal/retry"},
	"loadtest/drill/check": {"schemas/starlingv1", "internal/eventlog"},
	// Judges rides by the log alone: no code of the roles.
	"loadtest/ridedrill/check": {"schemas/starlingv1", "loadtest/drill/check"},
	// Measures the sinks of history by themselves.
	"loadtest/recorded": {"schemas/wire"},
	"loadtest/history":  {"history", "loadtest/recorded", "internal/eventlog", "internal/locallog", "history/clickhouse", "history/lake", "history/query", "history/row", "history/store", "internal/auth", "internal/clickhousetest", "internal/config", "tracker/step", "schemas"},
	// Sends recordings into history; its judge judges by itself.
	"loadtest/historydrill":       {"client", "loadtest/recorded", "history/clickhouse", "internal/clickhousetest", "internal/config", "internal/retry", "loadtest/process", "loadtest/historydrill/judge", "schemas"},
	"loadtest/historydrill/judge": {},
	// Measures the step by itself.
	"loadtest/silence": {"tracker/step", "schemas"},
	// Puts the servers together that are measured, as cmd/starling/app does.
	"loadtest/cmd": {"internal/auth", "client", "loadtest", "ingest", "schemas", "internal/eventlog", "internal/locallog", "internal/kafkalog", "internal/kafkatest"},
	"gpsfilter":    {},
	"internal/geo": {},
	"internal/h3":  {"internal/geo"},
	"schemas":      {},
}

// everywhere are pure components that all others may import.
var everywhere = []string{"internal/valid"}

// Pure components may not import a disk's or a network's world, nor call a clock.
var (
	pure          = []string{"internal/valid", "gpsfilter", "internal/geo", "internal/h3", "tracker/step", "tracker/reserve", "rides/life", "rides/owner", "rides/match", "history/row"}
	impureImports = []string{"os", "io/fs", "net", "log", "runtime", "syscall", "math/rand", "google.golang.org", "github.com/prometheus", "github.com/twmb"}
	clockCalls    = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}
)

func TestImportsPointDownward(t *testing.T) {
	files := 0
	eachSource(t, func(rel, path string) {
		files++
		check(t, rel, path)
	})
	require.Greater(t, files, 50, "the walk must have found the project")
}

// layers order the components: what stands in one may import from its own layer
// and from those before it. What composes roles stands above them, and what they
// stand on is below, most of it in internal. The driver SDK and the filter are
// libraries, not roles, so the simulator and other tools of the binary that use
// them stand in internal too.
var layers = [][]string{
	{"schemas", "gpsfilter", "client", "internal", "fanout/region", "rides/match"},
	{"ingest", "tracker", "matcher", "fanout", "rides", "history"},
	{"cmd/starling"},
	{"loadtest"},
}

// layerOf returns the layer of a folder by the longest prefix in layers, or -1.
func layerOf(folder string) int {
	layer, longest := -1, 0
	for i, prefixes := range layers {
		for _, prefix := range prefixes {
			if within(folder, prefix) && len(prefix) > longest {
				layer, longest = i, len(prefix)
			}
		}
	}
	return layer
}

// TestNothingRunsBackUp holds imports to the layers, and the table of imports to
// having no cycle.
func TestNothingRunsBackUp(t *testing.T) {
	imports := 0
	eachSource(t, func(rel, path string) {
		folder := rel[:strings.LastIndex(rel, "/")]
		if isTestSupport(folder) {
			return
		}
		from := layerOf(folder)
		if from < 0 {
			t.Errorf("%s is in no layer", rel)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			imported, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			imports++
			if layerOf(imported) > from {
				t.Errorf("%s imports %s, which stands above it", rel, imported)
			}
		}
	})
	require.Greater(t, imports, 100, "the walk must have found the project's imports")
	for component := range mayImport {
		requireNoCycle(t, component, nil)
	}
}

// requireNoCycle follows the table from a component; trail is the way to it.
func requireNoCycle(t *testing.T, component string, trail []string) {
	t.Helper()
	require.NotContains(t, trail, component, "the table has a cycle")
	trail = append(slices.Clip(trail), component)
	for _, target := range mayImport[component] {
		if next := componentOf(target); next != component {
			requireNoCycle(t, next, trail)
		}
	}
}

// eachSource calls fn with every Go file that is no test, by its path from the
// project's root and by one that opens it.
func eachSource(t *testing.T, fn func(rel, path string)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "bin" || d.Name() == "tools") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		fn(filepath.ToSlash(rel), path)
		return nil
	})
	require.NoError(t, err)
}

// What measures the product is not part of it: neither the binary nor a role
// may depend on loadtest.
func TestProductDoesNotImportLoadtest(t *testing.T) {
	importers := 0
	eachSource(t, func(rel, path string) {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			if !within(imported, module+"loadtest") {
				continue
			}
			importers++
			if !within(rel, "loadtest") && !isTestSupport(rel[:strings.LastIndex(rel, "/")]) {
				t.Errorf("%s imports %s", rel, imported)
			}
		}
	})
	require.Positive(t, importers, "the packages of loadtest import each other")
}

// notServing are modules that the binary must not contain: what draws, tests or
// measures only gives those who serve more to patch.
var notServing = []string{
	"gonum.org", "golang.org/x/image", "github.com/golang/freetype", "github.com/stretchr",
	"pgregory.net/rapid", "github.com/twmb/franz-go/pkg/kfake", "testing",
}

func TestWhatTheBinaryContains(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"cmd/starling").Output()
	require.NoError(t, err)
	packages := strings.Fields(string(out))
	require.Contains(t, packages, module+"ingest", "the list must be the binary's")
	for _, p := range packages {
		for _, banned := range notServing {
			if within(p, banned) {
				t.Errorf("bin/starling contains %s", p)
			}
		}
	}
}

// maxFiles is how many files besides its tests a package may have.
const maxFiles = 20

// oversize are the packages that have more than maxFiles until they are split.
var oversize = []string{}

func TestPackagesAreSmall(t *testing.T) {
	files := map[string]int{}
	eachSource(t, func(rel, _ string) { files[rel[:strings.LastIndex(rel, "/")]]++ })
	for folder, n := range files {
		switch listed := slices.Contains(oversize, folder); {
		case n > maxFiles && !listed:
			t.Errorf("%s has %d files besides its tests, at most %d are allowed", folder, n, maxFiles)
		case n <= maxFiles && listed:
			t.Errorf("%s has only %d files: remove it from oversize", folder, n)
		}
	}
	for _, folder := range oversize {
		if files[folder] == 0 {
			t.Errorf("%s has no files: remove it from oversize", folder)
		}
	}
}

func check(t *testing.T, rel, path string) {
	t.Helper()
	folder := rel[:max(0, strings.LastIndex(rel, "/"))]
	component := componentOf(folder)
	if component == "" {
		t.Errorf("%s is in no component of the table", rel)
		return
	}
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	if slices.Contains(pure, component) {
		checkPure(t, rel, f)
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		if !strings.HasPrefix(imported, module) {
			continue
		}
		imported = strings.TrimPrefix(imported, module)
		if within(imported, component) || isTestSupport(folder) {
			continue
		}
		allowed := false
		for _, target := range append(slices.Clip(mayImport[component]), everywhere...) {
			allowed = allowed || within(imported, target)
		}
		if !allowed {
			t.Errorf("%s (component %s) imports %s", rel, component, imported)
		}
	}
}

func checkPure(t *testing.T, rel string, f *ast.File) {
	t.Helper()
	for _, spec := range f.Imports {
		for _, banned := range impureImports {
			if within(strings.Trim(spec.Path.Value, `"`), banned) {
				t.Errorf("%s is pure and imports %s", rel, spec.Path.Value)
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(clockCalls, sel.Sel.Name) {
				t.Errorf("%s is pure and calls time.%s", rel, sel.Sel.Name)
			}
		}
		return true
	})
}

// isTestSupport names packages that exist for tests only.
func isTestSupport(folder string) bool {
	return within(folder, "internal/alarmtest") || within(folder, "internal/eventlog/logtest") || within(folder, "internal/kafkatest") || within(folder, "internal/redistest") || within(folder, "internal/clickhousetest") || within(folder, "internal/s3test") || within(folder, "internal/testcache") || within(folder, "rides/events/eventstest") || within(folder, "history/store/storetest") || within(folder, "internal/modeltest") || within(folder, "internal/fleettest") || within(folder, "loadtest/starlingtest")
}

func componentOf(folder string) string {
	best := ""
	for component := range mayImport {
		if within(folder, component) && len(component) > len(best) {
			best = component
		}
	}
	if best == "" && isTestSupport(folder) {
		return folder
	}
	return best
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// The top folder shows the architecture: nothing else may be there.
func TestTopFolder(t *testing.T) {
	want := map[string]bool{
		"client": true, "clients": true, "cmd": true, "deploy": true, "docs": true, "fanout": true, "gpsfilter": true, "history": true, "ingest": true, "internal": true,
		"loadtest": true, "matcher": true, "rides": true, "schemas": true, "tools": true, "tracker": true,
	}
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	require.NoError(t, err)
	for _, e := range entries {
		hidden := strings.HasPrefix(e.Name(), ".") || e.Name() == "bin"
		if e.IsDir() && !hidden && !want[e.Name()] {
			t.Errorf("the top folder has an unexpected folder %s", e.Name())
		}
	}
}
