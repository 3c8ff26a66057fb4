package locallog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
	"github.com/starling-fleet/starling/schemas/topics"
)

// recover opens the log and restores what is kept in memory. First it reads, and
// changes nothing, until everything that was acknowledged is found; only then
// are the stores opened for writing, which deletes what they hold for obsolete.
func (l *Log) recover(decls []topics.Topic) error {
	fs, dir := l.env.fs, l.cfg.Directory
	err := makeDirectory(fs, dir)
	if err != nil {
		return err
	}
	if l.lock, err = pebble.LockDirectory(dir, fs); err != nil {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	found, err := l.examine()
	if err != nil {
		return err
	}
	if err := l.nextFacts(found, decls); err != nil {
		return err
	}
	// A crash from here on leaves the new account, which states no more than the
	// one before of what the stores must hold.
	if l.ends, err = ends.Create(fs, dir, found.account, found.generation); err != nil {
		return err
	}
	l.wire.ends = l.ends
	l.buildTopics(decls, found.account.Facts)
	if err := l.openStores(found); err != nil {
		return err
	}
	if err := l.adopt(found); err != nil {
		return err
	}
	if err := l.loadClaims(); err != nil {
		return err
	}
	if l.clock.start(l.env, l.lastTimeMS); l.clock.skew() < -skewBound {
		l.logger.Warn("the newest stamp in the log is ahead of the wall clock: stamps go on from there", "ahead_by", -l.clock.skew())
	}
	l.checkSpace()
	l.announceSpace()
	return nil
}

// discovery is what an open has found in the directory.
type discovery struct {
	account    ends.Account
	generation uint64
	walk       layout.Walk
	newest     ends.Commit // of the state store
}

// examine reads the account and holds the stores against it.
func (l *Log) examine() (*discovery, error) {
	fs, dir := l.env.fs, l.cfg.Directory
	if _, err := fs.Stat(fs.PathJoin(dir, ends.RepairName)); err == nil {
		return nil, l.damaged(layout.Finding{Store: ends.RepairName, What: "a repair was interrupted and is to be finished first"})
	}
	loaded, err := ends.Load(fs, dir)
	switch {
	case errors.Is(err, ends.ErrMissing):
		for _, store := range []ends.Store{ends.Records, ends.State} {
			if _, err := fs.Stat(fs.PathJoin(dir, store.String())); err == nil {
				return nil, l.damaged(layout.Finding{Store: ends.FileName, What: fmt.Sprintf("the file is missing, although there is a store %s: what was acknowledged is not known (or the directory is of a version before format %d)", store, ends.Format)})
			}
		}
		facts := ends.Facts{LogID: rand.Uint64(), Partitions: l.cfg.Partitions, TopicIDs: make(map[string]uint16), New: true}
		return &discovery{account: ends.Account{Facts: facts}}, nil
	case errors.Is(err, ends.ErrDamaged):
		return nil, l.damaged(layout.Finding{Store: ends.FileName, What: fmt.Sprintf("what was acknowledged is not known: %v", err)})
	case err != nil:
		return nil, err
	}
	if loaded.Damaged != nil {
		l.logger.Warn("one slot of the account of what was acknowledged can't be read, as after a crash while it was written; the other one counts", "error", loaded.Damaged)
	}
	if loaded.Partitions != l.cfg.Partitions {
		return nil, fmt.Errorf("%w: partitions is %d: must be %d, the number that the log was created with, which cannot be changed", eventlog.ErrConfiguredOtherwise, l.cfg.Partitions, loaded.Partitions)
	}
	if loaded.Backup {
		return nil, errors.New("the directory is a backup: `starling log restore` makes a log of it, in a raised epoch")
	}
	found := &discovery{account: loaded.Account, generation: loaded.Generation}
	if loaded.New { // nothing was acknowledged
		return found, nil
	}
	var findings []layout.Finding
	for _, store := range []ends.Store{ends.State, ends.Records} {
		more, err := l.examineStore(found, store)
		if err != nil {
			return nil, err
		}
		findings = append(findings, more...)
	}
	if len(findings) > 0 {
		return nil, l.damaged(findings...)
	}
	return found, nil
}

func (l *Log) damaged(findings ...layout.Finding) error {
	return &layout.DamageError{Directory: l.cfg.Directory, Findings: findings}
}

// examineStore opens a store for reading alone and finds what is missing.
func (l *Log) examineStore(found *discovery, store ends.Store) ([]layout.Finding, error) {
	fs, dir := l.env.fs, l.cfg.Directory
	findings := layout.CheckFiles(fs, dir, &found.account, store)
	if _, err := fs.Stat(fs.PathJoin(dir, store.String())); err != nil {
		if store == ends.Records {
			findings = append(findings, layout.AllMissing(&found.account)...)
		}
		return findings, nil
	}
	find := func(what string, err error) ([]layout.Finding, error) {
		if notDamage(err) {
			return nil, err
		}
		return append(findings, layout.Finding{Store: store.String(), What: fmt.Sprintf("%s: %v", what, err)}), nil
	}
	db, err := l.openStore(store.String(), &pebble.Options{ReadOnly: true, ErrorIfNotExists: true})
	if err != nil {
		return find("it can't be opened", err)
	}
	if store == ends.State {
		var more []layout.Finding
		found.newest, more, err = layout.Newest(db, found.account.State, found.account.OpenUnsynced)
		findings = append(findings, more...)
		if err == nil {
			found.walk.Firsts, err = layout.Firsts(db, &found.account.Facts)
		}
	} else {
		found.walk.Facts, found.walk.Account, found.walk.Tail = found.account.Facts, &found.account, layout.WalkedSegments
		err = found.walk.Run(context.Background(), db)
		findings = append(findings, found.walk.Findings...)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return find("it can't be read", err)
	}
	return findings, nil
}

// notDamage reports that an error is of the process or the machine.
func notDamage(err error) bool {
	for _, cause := range []error{os.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOSPC, syscall.EROFS, pebble.ErrDBAlreadyExists} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// nextFacts are those of this start.
func (l *Log) nextFacts(found *discovery, decls []topics.Topic) error {
	f := &found.account.Facts
	if f.OpenUnsynced {
		f.Epoch++
		l.logger.Warn("the log was not closed while it ran without fsync: acknowledged records may be lost, the epoch is raised", "epoch", f.Epoch)
	}
	f.OpenUnsynced = !l.cfg.Sync
	for _, d := range decls {
		if _, ok := f.TopicIDs[d.Name]; !ok {
			f.TopicIDs[d.Name] = uint16(len(f.TopicIDs) + 1)
		}
	}
	l.epoch = f.Epoch
	n := len(f.TopicIDs) * f.Partitions
	grow := func(places []ends.Place) []ends.Place { return append(places, make([]ends.Place, n-len(places))...) }
	found.account.Places, found.walk.Places = grow(found.account.Places), grow(found.walk.Places)
	for i := range found.walk.Segments {
		found.walk.Segments[i].Starts = grow(found.walk.Segments[i].Starts)
	}
	found.walk.Firsts = append(found.walk.Firsts, make([]int64, n-len(found.walk.Firsts))...)
	// What retention has passed needs no word any more.
	f.Gaps = slices.DeleteFunc(f.Gaps, func(g ends.Gap) bool {
		return g.To <= found.walk.Firsts[int(g.Topic-1)*f.Partitions+int(g.Partition)]
	})
	return nil
}

// openStores opens both stores for writing. Pebble stores what it has replayed
// from its logs durably before it returns.
func (l *Log) openStores(found *discovery) (err error) {
	exists := !found.account.New
	state, records := l.stateOptions(), l.recordOptions()
	state.ErrorIfNotExists, records.ErrorIfNotExists = exists, exists
	if l.state, err = l.openStore(ends.State.String(), state); err != nil {
		return err
	}
	if l.records, err = l.openStore(ends.Records.String(), records); err != nil {
		return err
	}
	return syncDirectory(l.env.fs, l.cfg.Directory) // the names of the stores
}

// adopt takes what was found into memory and into the account: from here on it
// counts as acknowledged, since readers see it.
func (l *Log) adopt(found *discovery) error {
	walk := &found.walk
	for _, s := range walk.Segments {
		l.segments.all = append(l.segments.all, segment{Segment: s, swept: make([]bool, len(s.Starts))})
	}
	l.lastTimeMS = walk.NewestMS
	l.newestMS.Store(walk.NewestMS)
	if last, ok := l.segments.last(); ok {
		l.segments.startedMS = last.TimeMS
		used, err := l.records.EstimateDiskUsage(layout.SegmentKey(last.Number), layout.SegmentKey(last.Number+1))
		if err != nil {
			return err
		}
		l.segments.written = int64(used)
	}
	l.gaps.load(found.account.Facts)
	for _, t := range l.ordered {
		for i := range t.partitions {
			// Records lost without fsync may lie between the end and first.
			p, at := &t.partitions[i], &walk.Places[t.index+i]
			p.first = walk.Firsts[t.index+i]
			at.Next = max(at.Next, p.first)
			p.end, p.reach, p.next = l.gaps.back(p.index(), at.Next), at.Next, *at
		}
	}
	l.places = slices.Clone(walk.Places)
	l.commits.newest = found.newest
	err := l.ends.UpdateFacts(func(a *ends.Account) {
		a.New, a.State = false, found.newest
		copy(a.Places, walk.Places)
	})
	if err := errors.Join(err, l.ends.Flush()); err != nil {
		return err
	}
	return l.storeFacts()
}

// storeFacts keeps a copy of the facts in the state store, for a repair.
func (l *Log) storeFacts() error {
	value, err := json.Marshal(l.ends.Account().Facts)
	if err != nil {
		return err
	}
	b := l.state.NewBatch()
	if err := b.Set(layout.FactsKey(), value, nil); err != nil {
		return err
	}
	return l.apply(b, true)
}

// markClosed reports that nothing was lost. Both stores are closed by now:
// everything in them is on disk.
func (l *Log) markClosed() error {
	err := l.ends.UpdateFacts(func(a *ends.Account) {
		a.OpenUnsynced, a.State = false, l.commits.newest
		copy(a.Places, l.places)
	})
	return errors.Join(err, l.ends.Flush())
}

// makeDirectory makes a directory that survives a power cut.
func makeDirectory(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDirectory(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDirectory(fs, parent)
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// buildTopics makes the topics, those of the directory that are no longer
// declared included: their ids and records stay theirs.
func (l *Log) buildTopics(decls []topics.Topic, f ends.Facts) {
	l.ordered = make([]*topic, len(f.TopicIDs))
	l.topics = make(map[string]*topic)
	for name, id := range f.TopicIDs {
		t := &topic{decl: topics.Topic{Name: name}, id: id, index: int(id-1) * f.Partitions, partitions: make([]partition, f.Partitions)}
		for i := range t.partitions {
			t.partitions[i].topic, t.partitions[i].number = t, int32(i)
		}
		l.ordered[id-1] = t
	}
	kept, _ := l.cfg.limits() // Validate has seen them
	for _, d := range decls {
		t := l.ordered[f.TopicIDs[d.Name]-1]
		t.decl = d
		t.keepBytes = kept[d.Name].bytes
		if age := kept[d.Name].time; age != nil {
			t.decl.Retention = *age
		}
		l.topics[d.Name] = t
	}
}
