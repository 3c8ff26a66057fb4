package app

import (
	"os"
	"regexp"
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
