package step_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

var update = flag.Bool("update", false, "rewrite the golden texts with what comes out now")

// TestGolden reads testdata/*.txt. A line that starts in the first column is a
// record; the indented lines after it are what came out. testdata/README.md
// explains the notation.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			script, got := runScript(t, string(want))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			} else {
				require.Equal(t, string(want), got)
			}
			requireSameWithRestarts(t, script)
		})
	}
}

// script is the records of a golden text and the settings they are stepped by.
type script struct {
	settings step.Settings
	records  []step.Record
}

func runScript(t *testing.T, text string) (script, string) {
	s := script{settings: defaultSettings(t)}
	var p *step.Partition
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "  "):
			continue // what came out when the text was written
		case line == "", strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
			continue
		case strings.HasPrefix(line, "set "):
			set(t, &s.settings, strings.Fields(line)[1:])
			fmt.Fprintln(&out, line)
			continue
		}
		if p == nil {
			var err error
			p, err = step.NewPartition(s.settings, 1)
			require.NoError(t, err)
		}
		if at, silence := strings.CutSuffix(line, " ticks"); silence {
			s.records = append(s.records, ticks(s.records, parseTime(t, at))...)
		} else {
			s.records = append(s.records, parseRecords(t, line, int64(len(s.records)))...)
		}
		fmt.Fprintln(&out, line)
		for _, rec := range s.records[p.Offset()+1:] {
			r, err := p.Step(rec)
			require.NoError(t, err)
			if rec.Offset == int64(len(s.records)-1) {
				describe(&out, r) // of many alike, the last
			}
		}
	}
	return s, out.String()
}

// requireSameWithRestarts steps the script again with a restart after every
// record, and with one after every third.
func requireSameWithRestarts(t *testing.T, s script) {
	undisturbed := stepAll(t, s, func(int) bool { return false })
	require.Equal(t, undisturbed, stepAll(t, s, func(int) bool { return true }))
	require.Equal(t, undisturbed, stepAll(t, s, func(i int) bool { return i%3 == 2 }))
}

// stepAll returns the encoded tracks of the script, with restarts where they
// are asked for.
func stepAll(t require.TestingT, s script, restart func(i int) bool) []string {
	p, err := step.NewPartition(s.settings, 1)
	require.NoError(t, err)
	kept := map[string][]byte{}
	var tracks []string
	for i, rec := range s.records {
		r, err := p.Step(rec)
		require.NoError(t, err)
		tracks = append(tracks, string(r.Track.Append(nil)))
		if restart(i) {
			p = restartPartition(t, p, kept)
		}
	}
	return tracks
}

// restartPartition checkpoints p into kept, as a log would, and loads it.
func restartPartition(t require.TestingT, p *step.Partition, kept map[string][]byte) *step.Partition {
	c := p.Snapshot(nil, nil)
	for _, change := range c.Changes {
		if change.Value == nil {
			delete(kept, string(change.Key))
		} else {
			kept[string(change.Key)] = bytes.Clone(change.Value)
		}
	}
	// A restored partition takes its settings from its state.
	loader, err := step.NewLoader(step.DefaultSettings(), 1)
	require.NoError(t, err)
	for key, value := range kept {
		require.NoError(t, loader.Add([]byte(key), value))
	}
	restored, err := loader.Partition(c.Resume, step.Bounds{End: c.Resume})
	require.NoError(t, err)
	return restored
}

func set(t *testing.T, s *step.Settings, assignments []string) {
	for _, a := range assignments {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "window_max_fixes":
			n, err := strconv.Atoi(value)
			require.NoError(t, err)
			s.WindowMaxFixes = n
		case "max_vehicles":
			n, err := strconv.Atoi(value)
			require.NoError(t, err)
			s.MaxVehicles = n
		case "forget_after", "forget_single_after", "repeat_max_interval":
			d, err := time.ParseDuration(value)
			require.NoError(t, err)
			*map[string]*int64{
				"forget_after": &s.ForgetAfterMS, "forget_single_after": &s.ForgetSingleAfterMS, "repeat_max_interval": &s.RepeatMaxIntervalMS,
			}[name] = d.Milliseconds()
		default:
			require.Fail(t, "unknown setting", a)
		}
	}
}

// ticks are a partition's silence: one a minute after the last record, until a
// time.
func ticks(before []step.Record, untilMS int64) []step.Record {
	var records []step.Record
	last := before[len(before)-1]
	for last.AppendTimeMS < untilMS {
		last = step.Record{
			Offset: last.Offset + 1, AppendTimeMS: min(untilMS, last.AppendTimeMS+60_000),
			Value: (&wire.Location{Kind: wire.KindTick}).Append(nil),
		}
		records = append(records, last)
	}
	return records
}

// parseRecords reads one record, or several alike: "van-[1-70]" are seventy
// vehicles.
func parseRecords(t *testing.T, line string, offset int64) []step.Record {
	fields := strings.Fields(line)
	appendTime := parseTime(t, fields[0])
	key, what := fields[1], fields[2:]
	if key == "tick" {
		return []step.Record{{Offset: offset, AppendTimeMS: appendTime, Value: (&wire.Location{Kind: wire.KindTick}).Append(nil)}}
	}
	if what[0] == "garbage" {
		return []step.Record{{Offset: offset, AppendTimeMS: appendTime, Key: []byte(key), Value: []byte{0xff}}}
	}
	value := (&wire.Location{Kind: wire.KindReport, Report: parseReport(t, what)}).Append(nil)
	var records []step.Record
	for _, id := range vehicleIDs(t, key) {
		records = append(records, step.Record{Offset: offset + int64(len(records)), AppendTimeMS: appendTime, Key: []byte(id), Value: value})
	}
	return records
}

func vehicleIDs(t *testing.T, key string) []string {
	prefix, span, many := strings.Cut(key, "[")
	if !many {
		return []string{key}
	}
	var first, last int
	_, err := fmt.Sscanf(span, "%d-%d]", &first, &last)
	require.NoError(t, err)
	var ids []string
	for i := first; i <= last; i++ {
		ids = append(ids, fmt.Sprintf("%s%02d", prefix, i))
	}
	return ids
}

func parseReport(t *testing.T, words []string) wire.Report {
	var r wire.Report
	_, err := fmt.Sscanf(words[0], "%d/%d", &r.SessionID, &r.Sequence)
	require.NoError(t, err)
	for _, w := range words[1:] {
		name, value, assigned := strings.Cut(w, "=")
		switch {
		case name == "type":
			r.HasAttributes, r.Attributes.Type = true, value
		case assigned:
			require.Fail(t, "unknown attribute", w)
		case w[0] >= '0' && w[0] <= '9', w[0] == '+':
			r.Fixes = append(r.Fixes, parseFixes(t, w)...)
		default:
			a, known := starlingv1.Availability_value["AVAILABILITY_"+strings.ToUpper(w)]
			require.True(t, known, w)
			r.Availability = starlingv1.Availability(a)
		}
	}
	return r
}

// parseFixes reads 12:00:05, 12:00:05x (another place), 12:00:05-12:00:20 (one
// every second).
func parseFixes(t *testing.T, word string) []wire.Fix {
	from, to, span := strings.Cut(word, "-")
	moved := strings.HasSuffix(from, "x")
	first := parseTime(t, strings.TrimSuffix(from, "x"))
	last := first
	if span {
		last = parseTime(t, to)
	}
	var fixes []wire.Fix
	for ms := first; ms <= last; ms += 1000 {
		f := wire.Fix{DeviceTimeMS: ms, LatDeg: 30.27 + float64(ms-noonMS)*1e-7, LonDeg: -97.74}
		if moved {
			f.LonDeg += 0.0001
		}
		fixes = append(fixes, f)
	}
	return fixes
}

const clockLayout = "15:04:05.999"

func parseTime(t *testing.T, s string) int64 {
	noon := time.UnixMilli(noonMS).UTC()
	days := 0
	for strings.HasPrefix(s, "+") {
		days, s = days+1, s[1:]
	}
	d, err := time.Parse(clockLayout, s)
	require.NoError(t, err)
	return time.Date(noon.Year(), noon.Month(), noon.Day()+days, d.Hour(), d.Minute(), d.Second(), d.Nanosecond(), time.UTC).UnixMilli()
}

func formatTime(ms int64) string {
	noon := time.UnixMilli(noonMS).UTC()
	at := time.UnixMilli(ms).UTC()
	return strings.Repeat("+", max(0, at.YearDay()-noon.YearDay())) + at.Format(clockLayout)
}

// describe writes what came out of one step.
func describe(out *strings.Builder, r step.Result) {
	t := r.Track
	line := func(format string, args ...any) { fmt.Fprintf(out, "  "+format+"\n", args...) }
	if r.Poison != nil {
		line("dead letter: %v", r.Poison)
	}
	if c := formatCounts(t.Counts); c != "" {
		line("fixes: %s", c)
	}
	if t.Refusal != 0 {
		line("refused: %s", strings.ToLower(strings.TrimPrefix(t.Refusal.String(), "REFUSAL_")))
	}
	if r.JumpPending {
		line("the stamp is not believed yet: stream time stays at %s", formatTime(t.ClockMS))
	}
	if r.BelievedMS != 0 {
		line("stream time jumps to %s", formatTime(t.ClockMS))
	}
	if r.Rebased {
		line("rebased")
	}
	if len(t.LateFixes) > 0 {
		line("late: %s (%s)", formatTimes(t.LateFixes, func(f wire.Fix) int64 { return f.DeviceTimeMS }), formatRules(t.LateRules))
	}
	if len(t.SetAsideFixes) > 0 {
		line("set aside: %s (%s)", formatTimes(t.SetAsideFixes, func(f wire.Fix) int64 { return f.DeviceTimeMS }), formatRules(t.SetAsideRules))
	}
	if len(t.Outcomes) > 0 {
		rules := []starlingv1.OutcomeRule{}
		for _, o := range t.Outcomes {
			rules = append(rules, o.Rule)
		}
		line("not taken: %s (%s)", formatTimes(t.Outcomes, func(o wire.FixOutcome) int64 { return o.Fix.DeviceTimeMS }), formatRules(rules))
	}
	if len(t.Points) > 0 {
		line("points: %s", formatPoints(t.Points))
	}
	if len(t.FinalPoints) > 0 {
		line("final: %s", formatPoints(t.FinalPoints))
	}
	if t.HasLive {
		line("live: %s", formatView(&t.Live))
	}
	if n := len(t.Fired); n > 5 {
		line("timers: %d vehicles, %s to %s", n, t.Fired[0].VehicleID, t.Fired[n-1].VehicleID)
		return
	}
	for i := range t.Fired {
		d := &t.Fired[i]
		what := []string{}
		if len(d.FinalPoints) > 0 {
			what = append(what, "final "+formatPoints(d.FinalPoints))
		}
		if d.HasLive {
			what = append(what, "refreshed: "+formatView(&d.Live))
		}
		if d.Forgotten {
			what = append(what, "forgotten")
		}
		line("timer: %s %s", d.VehicleID, strings.Join(what, "; "))
	}
}

// formatRules names rules, of a run of equal ones the first.
func formatRules(rules []starlingv1.OutcomeRule) string {
	var names []string
	for _, r := range slices.Compact(slices.Clone(rules)) {
		names = append(names, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "OUTCOME_RULE_")), "_", " "))
	}
	return strings.Join(names, ", ")
}

func formatView(v *wire.View) string {
	words := []string{"no position"}
	if v.DeviceTimeMS != 0 {
		words[0] = formatTime(v.DeviceTimeMS)
	}
	words = append(words, "seen "+formatTime(v.SeenTimeMS))
	if v.Availability != 0 {
		words = append(words, strings.ToLower(strings.TrimPrefix(v.Availability.String(), "AVAILABILITY_")))
	}
	if v.Dispatchable {
		words = append(words, "dispatchable")
	}
	if v.Conflicting {
		words = append(words, "conflicting")
	}
	if v.DeviceClockAheadMS != 0 {
		words = append(words, fmt.Sprintf("clock %+ds", v.DeviceClockAheadMS/1000))
	}
	if v.HasAttributes {
		words = append(words, "type="+v.Attributes.Type)
	}
	if c := formatCounts(v.Counts); c != "" {
		words = append(words, c)
	}
	return strings.Join(words, ", ")
}

func formatCounts(c wire.FixCounts) string {
	var words []string
	for _, w := range []struct {
		n    int64
		name string
	}{{c.Accepted, "accepted"}, {c.Duplicate, "duplicate"}, {c.Conflict, "conflict"}, {c.Late, "late"}, {c.SetAside, "set aside"}, {c.Refused, "refused"}} {
		if w.n > 0 {
			words = append(words, fmt.Sprintf("%d %s", w.n, w.name))
		}
	}
	return strings.Join(words, ", ")
}

func formatPoints(points []wire.TrackPoint) string {
	return formatTimes(points, func(p wire.TrackPoint) int64 { return p.Fix.DeviceTimeMS })
}

// formatTimes joins times, a run of seconds as first-last.
func formatTimes[T any](items []T, ms func(T) int64) string {
	var words []string
	for len(items) > 0 {
		n := 1
		for n < len(items) && ms(items[n]) == ms(items[n-1])+1000 {
			n++
		}
		if n > 2 {
			words = append(words, formatTime(ms(items[0]))+"-"+formatTime(ms(items[n-1])))
		} else {
			n = 1
			words = append(words, formatTime(ms(items[0])))
		}
		items = items[n:]
	}
	return strings.Join(slices.Compact(words), " ")
}
