package locallog

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// commitsUnderWay bounds the batches of the state store that are not yet in the
// account. It is less than layout.CommitRing, so that the store always knows the
// commit that the account names.
const commitsUnderWay = layout.CommitRing / 2

// commits numbers the batches of the state store.
type commits struct {
	sync.Mutex             // held while a batch is handed to the store: numbers follow its order
	newest     ends.Commit // handed over last
	places     chan struct{}
}

// apply commits a batch of the state store. A store that has failed may never
// answer, so the log's failure ends the wait.
func (l *Log) apply(b *pebble.Batch, synced bool) error {
	select {
	case l.commits.places <- struct{}{}:
	case <-l.failed:
		return l.Err()
	}
	answer := make(chan error, 1)
	go func() {
		defer l.recoverStore()
		answer <- l.commitState(b, synced)
	}()
	select {
	case err := <-answer:
		<-l.commits.places
		if err != nil {
			err = fmt.Errorf("write to the state store: %w", err)
			l.fail(err)
			return err
		}
		return b.Close()
	case <-l.failed:
		return l.Err()
	}
}

// commitState numbers a batch, hands it to the store, waits until it is durable
// and enters it in the account. A crash before it is durable leaves it out or in;
// after that, before the account is, it leaves it in: its caller was not
// answered, and the next start takes it in.
func (l *Log) commitState(b *pebble.Batch, synced bool) error {
	commit, err := l.handOver(b, synced)
	if err != nil || !synced {
		return err
	}
	if err := b.SyncWait(); err != nil {
		return err
	}
	if !l.cfg.Sync {
		return nil // the account stays that of the start
	}
	// The store's log is one sequence: what was handed over earlier is durable too.
	l.ends.Update(func(a *ends.Account) {
		if commit.Count > a.State.Count {
			a.State = commit
		}
	})
	return l.ends.Flush()
}

func (l *Log) handOver(b *pebble.Batch, synced bool) (ends.Commit, error) {
	l.commits.Lock()
	defer l.commits.Unlock()
	next := layout.NextCommit(l.commits.newest, b.Repr())
	if err := b.Set(layout.CommitKey(next.Count), layout.EncodeCommit(next), nil); err != nil {
		return next, err
	}
	l.commits.newest = next
	if !synced {
		return next, l.state.Apply(b, pebble.NoSync)
	}
	return next, l.state.ApplyNoSyncWait(b, pebble.Sync)
}

// closeStates closes the stores and then the account, which states last that
// nothing was lost: a crash before that counts as unclean.
func (l *Log) closeStates() error {
	var errs []error
	for _, db := range []*pebble.DB{l.records, l.state} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if l.ends != nil {
		if l.opened && errors.Join(errs...) == nil {
			errs = append(errs, l.markClosed())
		}
		errs = append(errs, l.ends.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}
