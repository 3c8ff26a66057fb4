// Package logtest is the conformance suite of eventlog.Log: every adapter, and
// the log in memory, passes the same tests.
//
//	func TestConformance(t *testing.T) { logtest.Run(t, open) }
package logtest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Partitions is the number of partitions that a Harness must have.
const Partitions = 4

// Harness is one fresh, empty log with Partitions partitions of each of
// Starling's topics (topics.All), and what the suite does to it from outside.
// Whatever it opens it also closes at the end of the test (t.Cleanup). Fields
// that an adapter leaves nil switch the tests off that need them; Run fails if
// the adapter does not name them in Without.
type Harness struct {
	// Log is the log under test, as the first process sees it.
	Log eventlog.Log
	// Without names the optional fields that are nil on purpose.
	Without []string

	// Another opens the log as a further process would, at the same time. An
	// adapter that serves one process only returns Log.
	Another func(t *testing.T) eventlog.Log
	// Reopen closes the newest log in good order and opens it again.
	Reopen func(t *testing.T) eventlog.Log
	// Crash ends the newest log as a power cut would and opens what is left.
	// Calls under way in the old log may fail or never return.
	Crash func(t *testing.T) eventlog.Log
	// Truncate makes the records of a partition below an offset go away, as
	// retention does.
	Truncate func(t *testing.T, topic string, partition int32, before int64)
	// Depose makes the group forget the owners in Log, as if their process had
	// been stopped for longer than its session timeout; its partitions are
	// given out again, to Another or to Log itself.
	Depose func(t *testing.T, spec eventlog.OwnSpec)
	// Fail makes the newest log fail as a whole, by damage or a failed write.
	Fail func(t *testing.T)
	// Hold delays durability: appends are taken and nothing becomes durable
	// until release is called.
	Hold func(t *testing.T) (release func())
	// BufferBytes is how many bytes of keys and values the log takes at most
	// while Hold is in force, before Append blocks.
	BufferBytes int

	// Patience is how long a change of owners may take; zero means 10 s.
	Patience time.Duration
}

func (h *Harness) without() map[string]bool {
	nils := map[string]bool{
		"Another": h.Another == nil, "Reopen": h.Reopen == nil, "Crash": h.Crash == nil, "Truncate": h.Truncate == nil,
		"Fail":   h.Fail == nil,
		"Depose": h.Depose == nil, "Hold": h.Hold == nil, "BufferBytes": h.BufferBytes == 0,
	}
	missing := make(map[string]bool)
	for name, isNil := range nils {
		if isNil {
			missing[name] = true
		}
	}
	return missing
}

type testCase struct {
	name  string
	needs []string
	run   func(t *testing.T, h *Harness)
}

// Run holds a log to the contract. It calls open once for each of its tests.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	var cases []testCase
	cases = append(cases, appendCases...)
	cases = append(cases, readCases...)
	cases = append(cases, ownCases...)
	cases = append(cases, crashCases...)
	cases = append(cases, failCases...)

	probe := open(t)
	missing := probe.without()
	expected := make(map[string]bool)
	for _, name := range probe.Without {
		expected[name] = true
	}
	require.Equal(t, expected, missing, "the optional fields that are nil must be those that Without names")
	require.Equal(t, int32(Partitions), probe.Log.Partitions())

	for _, c := range cases {
		off := false
		for _, need := range c.needs {
			off = off || missing[need]
		}
		if off {
			t.Logf("%s is switched off by Without", c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			h := open(t)
			if h.Patience == 0 {
				h.Patience = 10 * time.Second
			}
			c.run(t, &h)
		})
	}
}

// timeout bounds every single wait of the suite. It is long because it is
// only ever waited out by a test that fails.
const timeout = 30 * time.Second

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func maxRecord(t *testing.T, topic string) int {
	decl, ok := topics.ByName(topic)
	require.True(t, ok)
	return decl.MaxRecordBytes
}
