package ingest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// A log that fails a report's append makes the server unready until an append
// succeeds, or until the failure is too old to count where none is made. What says
// nothing of the log does not.
func TestReadinessFollowsTheOutcomesOfAppends(t *testing.T) {
	broken := errors.New("the disk is gone")
	for name, at := range map[string]func(*fakeLog, error){
		"refused at once":      func(l *fakeLog, err error) { l.sync = func(string) error { return err } },
		"failed before":        func(l *fakeLog, err error) { l.before = func(string) error { return err } },
		"failed after storing": func(l *fakeLog, err error) { l.after = func(string) error { return err } },
	} {
		for _, unary := range []bool{false, true} {
			log := &fakeLog{}
			fail := func(err error) {
				log.mu.Lock()
				defer log.mu.Unlock()
				log.sync, log.before, log.after = nil, nil, nil
				if err != nil {
					at(log, err)
				}
			}
			d := open(t, log)
			send := func(sequence int64) (err error) {
				if unary {
					_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: report(sequence, 1)})
				} else {
					_, err = d.report(t, report(sequence, 1))
				}
				return err
			}
			require.NoError(t, send(1))
			require.Empty(t, d.server.Unready())

			fail(eventlog.ErrTooLarge)
			require.Error(t, send(2))
			require.Empty(t, d.server.Unready(), "%s: the report was at fault", name)

			fail(broken)
			require.Error(t, send(3))
			require.Equal(t, "the log takes no appends: the disk is gone", d.server.Unready(), name)
			require.False(t, d.server.Ready())
			alarmtest.Raised(t, d.registry, "starling_ingest_append_failures_total")
			fail(nil)
			require.NoError(t, send(3))
			require.Empty(t, d.server.Unready(), name)

			fail(broken)
			require.Error(t, send(4))
			d.elapsed.Add(int64(30 * time.Second))
			require.False(t, d.server.Ready(), name)
			d.elapsed.Add(int64(time.Second))
			require.True(t, d.server.Ready(), "%s: a server that is sent nothing must be tried again", name)
		}
	}
}

// refusingLog is a fakeLog that knows beforehand whether it refuses.
type refusingLog struct {
	fakeLog
	full atomic.Bool
}

func (l *refusingLog) Refuses(topic string) error {
	if topic == topics.Locations && l.full.Load() {
		return eventlog.ErrFull
	}
	return nil
}

// A log that refuses appends makes the server unready before any report has met it,
// and ready again by itself.
func TestALogThatRefusesMakesTheServerUnready(t *testing.T) {
	log := &refusingLog{}
	d := open(t, log)
	_, err := d.report(t, report(1, 1))
	require.NoError(t, err)
	require.True(t, d.server.Ready())
	log.full.Store(true)
	require.Equal(t, "the log takes no appends: log is full", d.server.Unready())
	log.full.Store(false)
	require.True(t, d.server.Ready())
}

// unreachableLog is a log that can't be asked.
type unreachableLog struct {
	*stampingLog
	down atomic.Bool
}

func (l *unreachableLog) Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error) {
	if l.down.Load() {
		return nil, errors.New("no broker answers")
	}
	return l.stampingLog.Bounds(ctx, topic)
}

// Nobody reports, and the log can't be reached: the server is not ready until
// somebody's record is seen in the log.
func TestALogThatCannotBeReachedMakesTheServerUnready(t *testing.T) {
	log := &unreachableLog{stampingLog: newStampingLog(0)}
	log.down.Store(true)
	d := open(t, log)
	_, err := d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: &starlingv1.Report{}})
	require.Error(t, err, "it serves, and a report that breaks a rule is none of the log's")
	require.Eventually(t, func() bool { return d.server.Unready() == "the log takes no appends: no broker answers" }, patience, time.Millisecond)
	log.down.Store(false)
	require.Eventually(t, d.server.Ready, patience, time.Millisecond)
}
