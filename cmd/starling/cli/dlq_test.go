package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
	"github.com/starling-fleet/starling/tracker/step"
)

// logBench is a log that commands and trackers take turns at.
type logBench struct {
	t     *testing.T
	cfg   app.Config
	flags []string
}

// onBothLogs runs a test on the local log and on an imitation of Kafka.
func onBothLogs(t *testing.T, test func(t *testing.T, b *logBench)) {
	const partitions = 2
	t.Run("local", func(t *testing.T) {
		b := &logBench{t: t, cfg: app.DefaultConfig()}
		b.cfg.Partitions, b.cfg.Local.Directory = partitions, filepath.Join(t.TempDir(), "log")
		b.flags = []string{"--local-directory", b.cfg.Local.Directory}
		test(t, b)
	})
	t.Run("kafka", func(t *testing.T) {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second))
		require.NoError(t, err)
		t.Cleanup(cluster.Close)
		b := &logBench{t: t, cfg: app.DefaultConfig()}
		b.cfg.Partitions, b.cfg.Kafka.Brokers = partitions, cluster.ListenAddrs()
		b.flags = []string{"--kafka-brokers", strings.Join(cluster.ListenAddrs(), ",")}
		test(t, b)
	})
}

// run runs a command on the log.
func (b *logBench) run(code int, args ...string) outcome {
	b.t.Helper()
	got := runCLI(b.t, b.t.Context(), "", append(append(args, b.flags...), "--partitions", fmt.Sprint(b.cfg.Partitions))...)
	require.Equal(b.t, code, got.code, "%v: %s%s", args, got.out, got.err)
	return got
}

// open opens the log for as long as use runs.
func (b *logBench) open(use func(log *openLog)) {
	b.t.Helper()
	log, err := app.OpenLog(b.t.Context(), b.cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, log.Close()) }()
	use(&openLog{Log: log, cfg: b.cfg, patience: time.Minute})
}

// append appends a record and returns its offset.
func (b *logBench) append(log *openLog, topic string, partition int32, key string, value []byte) int64 {
	b.t.Helper()
	offset, err := log.await(b.t.Context(), log.queue(b.t.Context(), topic, partition, eventlog.Record{Key: []byte(key), Value: value}))
	require.NoError(b.t, err)
	return offset
}

// track runs a tracker until it has published everything that was there.
func (b *logBench) track() {
	b.t.Helper()
	b.open(func(log *openLog) {
		t, err := tracker.New(b.cfg.Tracker, tracker.Deps{Log: log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(b.t, err)
		ctx, cancel := context.WithCancel(b.t.Context())
		ended := make(chan error, 1)
		go func() { ended <- t.Run(ctx) }()
		sent, err := log.Bounds(ctx, topics.Locations)
		require.NoError(b.t, err)
		for p := range sent {
			require.Eventually(b.t, func() bool {
				tracks, err := log.Bounds(ctx, topics.Tracks)
				return err == nil && tracks[p].End >= sent[p].End
			}, time.Minute, 10*time.Millisecond)
		}
		cancel()
		require.NoError(b.t, <-ended)
	})
}

func reportOf(session uint64, sequence, deviceTimeMS int64) []byte {
	l := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: session, Sequence: sequence, Fixes: []wire.Fix{
		{DeviceTimeMS: deviceTimeMS, LatDeg: 30.27, LonDeg: -97.74},
	}}}
	return l.Append(nil)
}

// writeLetter writes a dead letter as a tracker does.
func (b *logBench) writeLetter(log *openLog, d tracker.DeadLetter) {
	value, err := json.Marshal(d)
	require.NoError(b.t, err)
	b.append(log, topics.DeadLetters, d.Partition, fmt.Sprintf("%s/%d/%d", d.Topic, d.Partition, d.Offset), value)
}

func jsonLines[T any](t *testing.T, text string) []T {
	t.Helper()
	var out []T
	for line := range strings.Lines(text) {
		var v T
		readJSON(t, line, &v)
		out = append(out, v)
	}
	return out
}

func TestDeadLettersAreListedShownAndReplayed(t *testing.T) {
	onBothLogs(t, func(t *testing.T, b *logBench) {
		now := time.Now().UnixMilli()
		b.open(func(log *openLog) {
			require.Equal(t, int64(0), b.append(log, topics.Locations, 0, "v-1", reportOf(1, 1, now)))
			require.Equal(t, int64(1), b.append(log, topics.Locations, 0, "v-1", []byte("\xffgarbage\x1b[31m")))
			require.Equal(t, int64(0), b.append(log, topics.Locations, 1, "v-2", []byte("\xffmore")))
		})
		b.track()

		list := b.run(exitOK, "dlq", "list").out
		require.Contains(t, list, "locations/0/1 ")
		require.Contains(t, list, "locations/1/0 ")
		require.Contains(t, list, "2 dead letters")
		require.NotContains(t, b.run(exitOK, "dlq", "list", "--partition", "0").out, "locations/1/0")
		require.Equal(t, "0 dead letters\n", b.run(exitOK, "dlq", "list", "--until", "1h").out)
		lines := jsonLines[deadLetterLine](t, b.run(exitOK, "dlq", "list", "--since", "1h", "--json").out)
		require.Len(t, lines, 2)
		require.Equal(t, "v-1", lines[0].RecordKey)
		require.Contains(t, lines[0].Error, "LocationRecord")
		require.WithinDuration(t, time.UnixMilli(now), lines[0].AppendTime, time.Hour)

		shown := b.run(exitOK, "dlq", "show", "locations/0/1").out
		require.Contains(t, shown, "not as a whole")
		require.Contains(t, shown, "ff 67 61 72 62 61 67 65", "the bytes")
		require.NotContains(t, shown, "\x1b", "nothing of a record reaches the terminal as it is")
		var full deadLetterInFull
		readJSON(t, b.run(exitOK, "dlq", "show", "locations/0/1", "--json").out, &full)
		require.Equal(t, "ff676172626167651b5b33316d", full.RecordHex)
		require.NotEmpty(t, full.DecodeError)
		require.Contains(t, b.run(exitNo, "dlq", "show", "locations/0/7").err, "there is no dead letter locations/0/7")
		b.run(exitUsage, "dlq", "show", "locations/2/0")

		// What is still poisonous makes a new letter.
		dry := b.run(exitOK, "dlq", "replay", "locations/0/1", "--dry-run").out
		require.Contains(t, dry, "would append: this build can't decode it")
		require.Contains(t, b.run(exitNo, "dlq", "replay", "locations/0/1", "locations/0/7").err, "nothing was replayed")
		done := jsonLines[replayed](t, b.run(exitOK, "dlq", "replay", "locations/0/1", "--json").out)
		require.Len(t, done, 1)
		b.track()
		lines = jsonLines[deadLetterLine](t, b.run(exitOK, "dlq", "list", "--partition", "0", "--json").out)
		require.Len(t, lines, 2)
		require.Equal(t, fmt.Sprintf("locations/0/%d", *done[0].Offset), lines[1].Key)
	})
}

// What a replay does is what a late report does: new within the window, a
// duplicate the second time.
func TestAReplayedReportCountsOnce(t *testing.T) {
	onBothLogs(t, func(t *testing.T, b *logBench) {
		now := time.Now().UnixMilli()
		b.open(func(log *openLog) {
			b.append(log, topics.Locations, 0, "v-1", reportOf(7, 1, now-3000))
			b.append(log, topics.Locations, 0, "v-1", []byte("\xff")) // was report 2 of an older build
			b.append(log, topics.Locations, 0, "v-1", reportOf(7, 3, now-1000))
			b.append(log, topics.Locations, 0, "v-2", reportOf(1, 1, now-3000))
			b.append(log, topics.Locations, 0, "v-2", reportOf(2, 1, now-1000))
			b.append(log, topics.Locations, 0, "v-3", reportOf(1, 66, now-1000))
			letter := func(offset int64, key string, value []byte) {
				b.writeLetter(log, tracker.DeadLetter{Topic: topics.Locations, Offset: offset, AppendTimeMS: now, Key: []byte(key), Value: value, Error: "step panicked\nbadly"})
			}
			settings := tracker.DefaultConfig().StepSettings(topics.DefaultPartitions)
			swap, err := step.NewVersionSwitch(step.Newest, settings)
			require.NoError(t, err)
			letter(1, "v-1", reportOf(7, 2, now-2000))
			letter(3, "v-2", reportOf(1, 1, now-3000))
			letter(3, "v-2", reportOf(1, 1, now-3000)) // published again after a restart
			letter(0, "v-3", reportOf(1, 1, now-2000))
			letter(90, "", swap.Append(nil))
			letter(91, "", (&wire.Location{Kind: wire.KindTick}).Append(nil))
			b.writeLetter(log, tracker.DeadLetter{Topic: "rides", Offset: 5, AppendTimeMS: now})
			b.append(log, topics.DeadLetters, 0, "what?", []byte("{"))
		})
		listed := b.run(exitNo, "dlq", "list", "--json")
		require.Len(t, jsonLines[deadLetterLine](t, listed.out), 6, "a repeated letter is listed once")
		require.Contains(t, listed.err, "1 records of dead-letters are no dead letters")

		require.Contains(t, b.run(exitUsage, "dlq", "replay", "--all").err, "--since")
		results := func(got outcome) map[string]replayed {
			out := map[string]replayed{}
			for _, one := range jsonLines[replayed](t, got.out) {
				out[one.Key] = one
			}
			return out
		}
		dry := results(b.run(exitNo, "dlq", "replay", "--all", "--since", "1h", "--dry-run", "--json"))
		require.Len(t, dry, 6)
		got := results(b.run(exitNo, "dlq", "replay", "--all", "--since", "1h", "--json"))
		for key, reason := range map[string]string{
			"locations/0/3": "another session since (offset 4)", "locations/0/90": "topics activate", "locations/0/91": "tick", "rides/0/5": "only records of locations",
		} {
			require.Equal(t, refused, got[key].Result, key)
			require.Contains(t, got[key].Reason, reason)
			require.Equal(t, refused, dry[key].Result, key)
		}
		for _, key := range []string{"locations/0/1", "locations/0/0"} {
			require.Equal(t, appended, got[key].Result, key)
			require.Equal(t, wouldAppend, dry[key].Result, key)
		}
		require.Empty(t, got["locations/0/1"].Reason)
		require.Contains(t, got["locations/0/0"].Reason, "65 reports further: its fixes count as duplicates")
		b.run(exitOK, "dlq", "replay", "locations/0/1")
		forced := results(b.run(exitOK, "dlq", "replay", "locations/0/3", "--force", "--json"))
		require.Equal(t, appended, forced["locations/0/3"].Result)

		b.track()
		b.open(func(log *openLog) {
			counts := map[int64]wire.FixCounts{}
			bounds, err := log.Bounds(t.Context(), topics.Tracks)
			require.NoError(t, err)
			require.NoError(t, log.read(t.Context(), topics.Tracks, 0, bounds[0].First, bounds[0].End, func(rec eventlog.Stored) error {
				var track wire.Track
				require.NoError(t, track.Unmarshal(rec.Value))
				counts[track.SourceOffset] = track.Counts
				return nil
			}))
			require.Equal(t, wire.FixCounts{Accepted: 1}, counts[*got["locations/0/1"].Offset])
			require.Equal(t, wire.FixCounts{Duplicate: 1}, counts[*got["locations/0/1"].Offset+2], "the second time")
		})
	})
}

func TestCommandsOnALogThatIsNotThereOrInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	for _, command := range [][]string{{"dlq", "list"}, {"dlq", "show", "locations/0/0"}, {"dlq", "replay", "locations/0/0"}, {"topics", "activate", "--yes"}} {
		got := runCLI(t, t.Context(), "", append(command, "--local-directory", dir)...)
		require.Equal(t, exitUsage, got.code, got.err)
		require.Contains(t, got.err, "there is no local log in "+dir)
		require.NoDirExists(t, dir, "looking makes no log")
	}
	b := &logBench{t: t, cfg: app.DefaultConfig(), flags: []string{"--local-directory", dir}}
	b.cfg.Local.Directory = dir
	b.open(func(*openLog) {
		require.Contains(t, b.run(exitFailed, "dlq", "list").err, "stop `starling up`")
		require.Contains(t, b.run(exitFailed, "topics", "activate", "--yes").err, "stop `starling up`")
	})
	b.run(exitOK, "dlq", "list")
}

func TestRecallForgetsOnlyWhatIsOld(t *testing.T) {
	const limit = 100
	r := recall{limit: limit}
	require.False(t, r.seen("first"))
	for i := range limit - 1 {
		require.False(t, r.seen(fmt.Sprint(i)))
	}
	require.True(t, r.seen("first"))
	for i := range 3 * limit {
		r.seen(fmt.Sprint("more ", i))
		require.LessOrEqual(t, len(r.young)+len(r.old), 2*limit)
	}
	require.False(t, r.seen("first"))
}
