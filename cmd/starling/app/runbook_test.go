package app

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// alarming is what the name of a metric states when somebody has to act on it.
var alarming = regexp.MustCompile(`_(failed|failures|refused|panics|errors|stalls|in_doubt|skew|stale|gaps|full|conflicting|jumps|retries|kept_back|invalid|rejected|disconnected|unfinished|disagreements|held|lag|clock_off)(_|$)`)

// The runbook has an entry for every metric that is an alarm, and names none that
// there is not.
func TestRunbookHasEveryAlarm(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("../../../docs/" + name)
		require.NoError(t, err)
		return string(text)
	}
	metric := regexp.MustCompile("`(starling_[a-z_]+)")
	listed := map[string]bool{}
	for _, m := range metric.FindAllStringSubmatch(read("metrics.md"), -1) {
		listed[m[1]] = true
	}
	named := map[string]bool{}
	for _, m := range metric.FindAllStringSubmatch(read("runbook.md"), -1) {
		named[m[1]] = true
		require.True(t, listed[m[1]], "the runbook names %s, which is no metric", m[1])
	}
	alarms := 0
	for name := range listed {
		if alarming.MatchString(name) {
			alarms++
			require.True(t, named[name], "%s has no entry in docs/runbook.md", name)
		}
	}
	require.Greater(t, alarms, 30)
}

// unraised are the alarms that no test of ours can raise, and why.
var unraised = map[string]string{
	"`up` is 0 for a minute — *page*":         "Prometheus's own metric; deploy/prometheus/alerts_test.yml raises it",
	"the process was killed for memory (OOM)": "the kernel does, and whoever started the process says so; TestMemoryLimitFollowsTheContainer has what prevents it",
}

// seenAs are the words by which a test knows an alarm of the runbook that has no
// metric.
var seenAs = map[string]string{
	"`alike_suppressed` in many lines":                   "alike_suppressed",
	"\"the disk is too small for the log\" at the start": "the disk is too small for the log",
	"`/readyz` is 503 for more than a minute — *page*":   "not ready: ",
}

// Every alarm of the runbook's first column is raised by a test, whose call of
// alarmtest fails unless it is: with the labels that the runbook gives.
func TestEveryAlarmIsRaised(t *testing.T) {
	raised := raisedByTests(t)
	text, err := os.ReadFile("../../../docs/runbook.md")
	require.NoError(t, err)
	metric := regexp.MustCompile("`(starling_[a-z_]+(\\{[^}`]*\\})?)`")
	alarms := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| ") || cells[0] == "| alarm" {
			continue
		}
		alarm := strings.TrimPrefix(cells[0], "| ")
		alarms++
		if unraised[alarm] != "" {
			continue
		}
		var names []string
		for _, m := range metric.FindAllStringSubmatch(alarm, -1) {
			names = append(names, m[1])
		}
		if words, ok := seenAs[alarm]; ok {
			names = append(names, words)
		}
		require.NotEmpty(t, names, "the runbook's alarm %q has neither a metric nor words by which a test knows it", alarm)
		for _, name := range names {
			require.True(t, slices.ContainsFunc(raised, func(r string) bool { return covers(r, name) }), "no test raises %s of the runbook's alarm %q: call alarmtest.Raised in one that does", name, alarm)
		}
	}
	require.Greater(t, alarms, 35)
}

// covers reports whether what a test raises is an alarm of the runbook: the same
// metric, with at least its labels.
func covers(raised, alarm string) bool {
	name, labels, _ := strings.Cut(alarm, "{")
	other, others, _ := strings.Cut(raised, "{")
	return name == other && strings.Contains(others, strings.TrimSuffix(labels, "}"))
}

// raisedByTests returns the alarms of all calls of alarmtest in the project's tests.
func raisedByTests(t *testing.T) (alarms []string) {
	t.Helper()
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || filepath.Base(filepath.Dir(path)) == "alarmtest" {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			test, ok := decl.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(test.Name.Name, "Test") {
				continue
			}
			ast.Inspect(test, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if !isAlarmCall(call) {
					return true
				}
				literal, ok := call.Args[2].(*ast.BasicLit)
				require.True(t, ok, "%s: the alarm must be a literal", path)
				alarm, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				alarms = append(alarms, alarm)
				return true
			})
		}
		return nil
	})
	require.NoError(t, err)
	return alarms
}

func isAlarmCall(call *ast.CallExpr) bool {
	of, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := of.X.(*ast.Ident)
	return ok && pkg.Name == "alarmtest" && slices.Contains([]string{"Raised", "RaisedTo", "Reads"}, of.Sel.Name)
}
