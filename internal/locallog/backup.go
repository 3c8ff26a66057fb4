package locallog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/backup"
	"github.com/starling-fleet/starling/internal/locallog/ends"
)

// ErrBackupRunning reports that another backup is being made.
var ErrBackupRunning = errors.New("another backup is being made")

// Backup copies the log to a new directory while it is used. Everything that was
// acknowledged before the call is in it; backup.Restore makes a log of it. On the
// log's own file system tables are linked, which takes no space until they are
// deleted here; elsewhere they are copied. Retention waits meanwhile.
//
// The state store is copied first: so no checkpoint goes further than the records.
// A failed backup leaves a directory without a manifest, and the log as it was.
func (l *Log) Backup(ctx context.Context, to string) (*backup.Manifest, error) {
	if l.isStopped() || !l.calls.enter() {
		return nil, l.stopErr()
	}
	defer l.calls.leave()
	if !l.backingUp.TryLock() {
		return nil, ErrBackupRunning
	}
	defer l.backingUp.Unlock()
	if _, err := l.env.fs.Stat(to); !oserror.IsNotExist(err) {
		return nil, errors.Join(fmt.Errorf("%s: %w", to, backup.ErrNotEmpty), err)
	}
	began := l.env.now()
	point := l.acknowledged()
	// Pebble may stop a goroutine for good, after the log has failed.
	copied := make(chan error, 1)
	go func() {
		defer l.recoverStore()
		copied <- l.copyStores(to)
	}()
	select {
	case err := <-copied:
		if err != nil {
			return nil, fmt.Errorf("back up to %s: %w", to, err)
		}
	case <-l.failed:
		return nil, l.Err()
	}
	m, err := backup.Seal(ctx, l.env.fs, to, l.ends.Account().Facts, point, began)
	if err != nil {
		return nil, fmt.Errorf("back up to %s: %w", to, err)
	}
	l.logger.Info("the log is backed up", "to", to, "took", time.Since(began), "epoch", m.Epoch)
	return m, nil
}

// acknowledged is the end of what readers see, by place: appends complete after
// that.
func (l *Log) acknowledged() backup.Point {
	point := make(backup.Point, len(l.ordered)*l.cfg.Partitions)
	for _, t := range l.ordered {
		for i := range t.partitions {
			point[t.index+i] = t.partitions[i].bounds().End
		}
	}
	return point
}

func (l *Log) copyStores(to string) error {
	if err := makeDirectory(l.env.fs, to); err != nil {
		return err
	}
	l.retaining.Lock()
	defer l.retaining.Unlock()
	if err := l.state.Checkpoint(l.env.fs.PathJoin(to, ends.State.String()), pebble.WithFlushedWAL()); err != nil {
		return err
	}
	return l.records.Checkpoint(l.env.fs.PathJoin(to, ends.Records.String()), pebble.WithFlushedWAL())
}
