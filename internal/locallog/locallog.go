// Package locallog is the embedded log: eventlog.Log on Pebble, in one
// directory of one machine, for one process.
//
// One committer gathers the appends of all topics and partitions, stamps them,
// writes one chunk of records for each partition and syncs once for the whole
// group. While a group is synced the next one forms. Only then are its records
// published: readers take the newest from memory and older ones from disk.
//
// Two Pebble stores share the directory. The record store ("records") holds
// chunks and is only ever appended to; the state store ("state") holds
// checkpoints and the log's own small facts. They are apart because a table
// that held both would overlap every older one and be rewritten over and over.
//
// # What a crash leaves behind
//
//   - Before a group's sync has returned: any prefix of the groups under way.
//     No append was completed and no reader has seen them; appenders send again.
//   - After it, before the account (package ends) is synced: the whole group. It
//     was not acknowledged; the next start takes it in.
//   - After that: the whole group, whether or not its appends were completed.
//   - In a checkpoint: all of it or nothing, since it is one batch of the state
//     store. Loading a claim writes its new generation first, so an owner from
//     before the crash stays fenced.
//   - In retention: the oldest offset kept is stored before records are
//     deleted. Records below it that are still there are hidden, and deleted by
//     a later round.
//
// Without Config.Sync the records that the operating system or Pebble still
// held are lost too, although they were acknowledged and read. The log notices
// at the next start, when it finds that it was not closed, and raises its
// epoch.
//
// # When the disk fails
//
// A failed write or sync of the log leaves open what is on disk. The log then
// fails as a whole: every append under way or later is completed with an error,
// nothing is acknowledged any more, Failed is closed, and the process is to
// exit and start again, which recovers everything acknowledged. The directory
// stays locked until the process ends. Damage that a read meets does the same.
//
// # When the disk has lost something
//
// The stores do not notice every damage of their own newest files. So the end of
// what was acknowledged is also kept in the account, a file beside them, and an
// open compares: it reads both stores, without changing anything, and refuses with
// a *layout.DamageError that names what is missing unless everything is there.
package locallog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/owners"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Log is an open log. It is safe for concurrent use.
type Log struct {
	cfg     Config
	env     environment
	logger  *slog.Logger
	metrics *metrics
	topics  map[string]*topic // never changed after Open
	ordered []*topic          // the same, by id
	epoch   int64
	lock    *pebble.Lock
	wire    *tripwire
	records *pebble.DB
	state   *pebble.DB
	ends    *ends.File
	opened  bool // by Open: everything acknowledged was found

	clock    logClock
	newestMS atomic.Int64 // newest published stamp
	commits  commits
	gaps     gaps
	places   []ends.Place // where the partitions end; accountLoop's
	capacity capacity
	dirty    dirtyList
	segments segments
	tail     tailCache
	space    space

	// stopped is closed when the log takes no more calls: closed or failed.
	stopped  chan struct{}
	stopOnce sync.Once
	failed   chan struct{}
	failure  atomic.Pointer[error]

	// flight lists the groups that are gathered and not yet completed, oldest first.
	flight struct {
		sync.Mutex
		groups []*group
		ended  bool // by the failure; the committer gathers no more
	}
	completing sync.Mutex // held while completions are called, so that they stay in order

	lastTimeMS int64       // append time of the newest group; the committer's
	finish     chan *group // from the committer to syncLoop
	synced     chan *group // from syncLoop to accountLoop
	workers    sync.WaitGroup
	closeOnce  sync.Once
	closeErr   error

	backingUp sync.Mutex // before retaining
	retaining sync.Mutex // held by truncate and sweep, and while stores are copied

	claims claims
	calls  calls
}

var _ eventlog.Log = (*Log)(nil)

// topic is one topic's partitions.
type topic struct {
	decl       topics.Topic
	id         uint16
	index      int // of its first partition among all partitions
	partitions []partition
	keepBytes  int64       // about so many are kept; zero means no such limit
	refuse     atomic.Bool // the disk is too full for this topic
}

// environment is what tests replace.
type environment struct {
	fs  vfs.FS
	now func() time.Time
	// elapsed is the monotonic clock; nil means that of now.
	elapsed func() time.Duration
	// readTick is a tenth of the patience with a read of a store; 0 means a second.
	readTick time.Duration
}

// ErrInUse reports that the directory's lock was not to be had.
var ErrInUse = errors.New("the directory is in use by another process, or cannot be locked")

// errStopped is turned into the reason why the log has stopped.
var errStopped = errors.New("stopped")

// Open opens or creates the log in cfg.Directory with the given topics, and
// starts its goroutines; Close joins them. It fails if another process uses
// the directory, or if it was created with another number of partitions.
func Open(cfg Config, decls []topics.Topic, reg prometheus.Registerer, logger *slog.Logger) (*Log, error) {
	return open(cfg, decls, reg, logger, environment{fs: vfs.Default, now: time.Now})
}

func open(cfg Config, decls []topics.Topic, reg prometheus.Registerer, logger *slog.Logger, env environment) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration of the log: %w", err)
	}
	if env.readTick == 0 {
		env.readTick = time.Second
	}
	if env.elapsed == nil {
		began := env.now()
		env.elapsed = func() time.Duration { return env.now().Sub(began) }
	}
	l := &Log{
		cfg: cfg, env: env, logger: logger, metrics: newMetrics(reg),
		stopped: make(chan struct{}), failed: make(chan struct{}),
		finish: make(chan *group, pipelineDepth), synced: make(chan *group, accountDepth),
	}
	l.wire = &tripwire{FS: env.fs, fail: l.fail, dir: env.fs.PathDir(env.fs.PathJoin(cfg.Directory, ends.Records.String()))}
	l.capacity.limit = cfg.MaxBufferBytes
	l.tail.limit = cfg.TailCacheBytes
	l.dirty.wake = make(chan struct{}, 1)
	l.space.look = make(chan struct{}, 1)
	l.commits.places = make(chan struct{}, commitsUnderWay)
	err := l.recoverOrFail(decls)
	if err == nil {
		err = l.metrics.register(l)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log in %s: %w", cfg.Directory, err), l.closeStores())
	}
	l.opened = true
	l.wire.armed.Store(true)
	l.workers.Go(l.commitLoop)
	l.workers.Go(l.syncLoop)
	l.workers.Go(l.accountLoop)
	l.workers.Go(l.watchSpace)
	l.workers.Go(l.retain)
	return l, nil
}

// Partitions implements eventlog.Log.
func (l *Log) Partitions() int32 { return int32(l.cfg.Partitions) }

// Epoch implements eventlog.Log. It is fixed while the log is open.
func (l *Log) Epoch() int64 { return l.epoch }

// Failed implements eventlog.Log; see the package comment.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err implements eventlog.Log.
func (l *Log) Err() error {
	if err := l.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// stopErr reports why the log takes no more calls.
func (l *Log) stopErr() error {
	if err := l.Err(); err != nil {
		return err
	}
	return eventlog.ErrClosed
}

func (l *Log) isStopped() bool {
	select {
	case <-l.stopped:
		return true
	default:
		return false
	}
}

// find returns a topic, and checks the partition.
func (l *Log) find(name string, partition int32) (*topic, error) {
	t := l.topics[name]
	if t == nil || uint32(partition) >= uint32(len(t.partitions)) {
		return nil, fmt.Errorf("%w: %s partition %d of %d", eventlog.ErrUnknownTopic, name, partition, l.cfg.Partitions)
	}
	return t, nil
}

// Bounds implements eventlog.Log.
func (l *Log) Bounds(_ context.Context, topic string) ([]eventlog.Bounds, error) {
	t, err := l.find(topic, 0)
	if err != nil {
		return nil, err
	}
	if l.isStopped() {
		return nil, l.stopErr()
	}
	out := make([]eventlog.Bounds, len(t.partitions))
	for i := range t.partitions {
		out[i] = t.partitions[i].bounds()
	}
	return out, nil
}

// Close implements eventlog.Log. The groups that are being committed are
// finished and completed; appends behind them fail with ErrClosed. Of a log that has
// failed it returns the failure.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Log) close() error {
	l.stopOnce.Do(func() { close(l.stopped) })
	// The workers may be stuck in a store that has failed: then nobody waits.
	idle := make(chan struct{})
	left := l.calls.end()
	go func() { l.workers.Wait(); <-left; close(idle) }()
	select {
	case <-idle:
	case <-l.failed:
	}
	if err := l.Err(); err != nil {
		return err
	}
	l.failQueued(eventlog.ErrClosed)
	return errors.Join(l.closeStores(), l.Err())
}

// closeStores closes what recover has opened. A store that fails over it may
// never answer.
func (l *Log) closeStores() error {
	l.metrics.unregister()
	closed := make(chan error, 1)
	go func() { closed <- l.closeEach() }()
	select {
	case err := <-closed:
		return err
	case <-l.failed:
		return nil // the lock stays until the process ends
	}
}

func (l *Log) closeEach() error {
	if l.Err() != nil {
		return nil
	}
	return l.closeStates()
}

// recoverOrFail is recover, in a goroutine that is left behind when Pebble stops
// it for good.
func (l *Log) recoverOrFail(decls []topics.Topic) error {
	done := make(chan error, 1)
	go func() { done <- l.recover(decls) }()
	select {
	case err := <-done:
		return err
	case <-l.failed:
		return l.Err()
	}
}

// ownersOf returns the group's members within this process.
func (l *Log) ownersOf(spec eventlog.OwnSpec) *owners.Group {
	l.claims.Lock()
	defer l.claims.Unlock()
	g := l.claims.groups[spec.Owned()]
	if g == nil {
		g = owners.New(l.Partitions(), l.cfg.HandoverTimeout)
		l.claims.groups[spec.Owned()] = g
	}
	return g
}
