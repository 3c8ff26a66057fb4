// Package memlog is the log in memory, for tests: the complete contract of
// eventlog, with hooks that delay or fail a step before or after it has taken
// effect. It keeps everything until the process ends and is not for production.
//
// A Store is what would be on disks: it outlives the Logs that are opened on
// it. Several Logs open at once are like processes of one cluster: they see the
// same records, and share the partitions of a group out among them.
package memlog

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/owners"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Store holds the durable content of a log. It is safe for concurrent use.
type Store struct {
	partitions int32
	handover   time.Duration

	mu     sync.Mutex
	topics map[string]*topicData
	groups map[eventlog.OwnSpec]*groupData
	epoch  int64
}

type topicData struct {
	decl       topics.Topic
	partitions []partitionData
	// grown is closed and replaced when any partition has got a record.
	grown chan struct{}
}

type partitionData struct {
	first   int64 // offset of records[0]
	records []eventlog.Stored
}

func (p *partitionData) end() int64 { return p.first + int64(len(p.records)) }

type groupData struct {
	*owners.Group
	states []stateData // by partition
}

// stateData is what the checkpoints of one partition have left behind.
type stateData struct {
	generation int64 // of the claim that loaded last
	resume     int64 // -1 before the first checkpoint
	values     map[string][]byte
}

// NewStore returns an empty store with the given number of partitions for each
// of the topics. A holder of a partition that does not hand it over within the
// given time loses it; zero means owners.DefaultHandover.
func NewStore(partitions int32, decls []topics.Topic, handover time.Duration) *Store {
	s := &Store{partitions: partitions, topics: make(map[string]*topicData), groups: make(map[eventlog.OwnSpec]*groupData), handover: handover}
	if handover == 0 {
		s.handover = owners.DefaultHandover
	}
	for _, d := range decls {
		s.topics[d.Name] = &topicData{decl: d, partitions: make([]partitionData, partitions), grown: make(chan struct{})}
	}
	return s
}

// SetEpoch changes the number that Epoch answers.
func (s *Store) SetEpoch(epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = epoch
}

// Truncate deletes the records of a partition below an offset, as retention
// does.
func (s *Store) Truncate(topic string, partition int32, before int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.topics[topic].partitions[partition]
	n := min(max(before-p.first, 0), int64(len(p.records)))
	p.records = p.records[n:]
	p.first += n
}

// Shorten drops the records from an offset on, as a log does that loses them: the
// next record has that offset again. It is used while no log of the store is open.
func (s *Store) Shorten(topic string, partition int32, end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.topics[topic].partitions[partition]
	p.records = p.records[:min(max(end-p.first, 0), int64(len(p.records)))]
}

// Records returns everything that a partition keeps.
func (s *Store) Records(topic string, partition int32) []eventlog.Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.topics[topic].partitions[partition].records)
}

// State returns what the checkpoints of a group's partition have stored: the
// latest value of each key and the resume offset, -1 if there is none.
func (s *Store) State(spec eventlog.OwnSpec, partition int32) (values map[string][]byte, resume int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.group(spec).states[partition]
	return maps.Clone(st.values), st.resume
}

// Depose takes every partition of a group away from its holder at once, as
// Kafka does with a member that it has had no heartbeat of for too long. The holders'
// contexts are cancelled, the partitions given out again.
func (s *Store) Depose(spec eventlog.OwnSpec) {
	s.mu.Lock()
	g := s.group(spec)
	s.mu.Unlock()
	g.Depose()
}

// group returns a group's data; s.mu is held.
func (s *Store) group(spec eventlog.OwnSpec) *groupData {
	g := s.groups[spec]
	if g == nil {
		g = &groupData{Group: owners.New(s.partitions, s.handover), states: make([]stateData, s.partitions)}
		for i := range g.states {
			g.states[i] = stateData{resume: -1, values: make(map[string][]byte)}
		}
		s.groups[spec] = g
	}
	return g
}

// append stores one record durably and makes it visible.
func (s *Store) append(t *topicData, partition int32, rec eventlog.Record, now time.Time, mayStepBack bool) eventlog.Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &t.partitions[partition]
	st := eventlog.Stored{Offset: p.end(), AppendTimeMS: now.UnixMilli(), Key: bytes.Clone(rec.Key), Value: bytes.Clone(rec.Value)}
	if n := len(p.records); n > 0 && !mayStepBack {
		st.AppendTimeMS = max(st.AppendTimeMS, p.records[n-1].AppendTimeMS)
	}
	p.records = append(p.records, st)
	close(t.grown)
	t.grown = make(chan struct{})
	return st
}

// Epoch returns what Log.Epoch answers.
func (s *Store) Epoch() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}
