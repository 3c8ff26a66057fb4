package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-fleet/starling/internal/locallog/ends"
)

// EncodeCommit is the value of a CommitKey.
func EncodeCommit(c ends.Commit) []byte {
	b := binary.LittleEndian.AppendUint64(nil, c.Count)
	return binary.LittleEndian.AppendUint64(b, c.Chain)
}

// NextCommit returns the commit of a batch that follows another.
func NextCommit(last ends.Commit, repr []byte) ends.Commit {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(binary.LittleEndian.AppendUint64(nil, last.Chain))
	_, _ = d.Write(repr)
	return ends.Commit{Count: last.Count + 1, Chain: d.Sum64()}
}

// Newest returns the newest commit of a state store, and checks that the store
// holds the acknowledged one.
func Newest(db *pebble.DB, acknowledged ends.Commit, unsynced bool) (newest ends.Commit, findings []Finding, err error) {
	find := func(format string, args ...any) {
		findings = append(findings, Finding{Store: ends.State.String(), What: fmt.Sprintf(format, args...)})
	}
	met := acknowledged == ends.Commit{}
	for i := range uint64(CommitRing) {
		value, closer, err := db.Get(CommitKey(i))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return newest, nil, err
		}
		if len(value) != 16 {
			find("commit of slot %d has %d bytes", i, len(value))
		} else if c := (ends.Commit{Count: binary.LittleEndian.Uint64(value), Chain: binary.LittleEndian.Uint64(value[8:])}); c.Count >= newest.Count {
			newest = c
			met = met || c == acknowledged
		} else {
			met = met || c == acknowledged
		}
		if err := closer.Close(); err != nil {
			return newest, nil, err
		}
	}
	switch {
	case newest.Count < acknowledged.Count:
		find("%d commits (checkpoints, claims, the oldest offsets) were acknowledged and are missing: it ends at %d instead of %d", acknowledged.Count-newest.Count, newest.Count, acknowledged.Count)
	case met, unsynced && newest.Count >= acknowledged.Count+CommitRing:
	default:
		find("it does not pass commit %d, up to which it was acknowledged, with the checksum %016x", acknowledged.Count, acknowledged.Chain)
	}
	return newest, findings, nil
}

// Firsts reads the oldest offsets kept, by place.
func Firsts(db *pebble.DB, facts *ends.Facts) ([]int64, error) {
	out := make([]int64, len(facts.TopicIDs)*facts.Partitions)
	for p := range out {
		topic, number := uint16(p/facts.Partitions+1), p%facts.Partitions
		value, closer, err := db.Get(FirstKey(topic, uint32(number)))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		first, n := binary.Uvarint(value)
		if err := closer.Close(); err != nil {
			return nil, err
		}
		if n <= 0 {
			return nil, fmt.Errorf("oldest offset of %s partition %d is damaged", facts.Topic(topic), number)
		}
		out[p] = int64(first)
	}
	return out, nil
}

// CheckFiles holds the MANIFEST that a store goes by against its durable part in
// the account, and looks for its write-ahead logs. Pebble takes a damaged MANIFEST
// for one that a crash has cut short, and would then delete the tables that it
// does not name; and it does not miss a log.
func CheckFiles(fs vfs.FS, dir string, a *ends.Account, store ends.Store) []Finding {
	find := func(format string, args ...any) []Finding {
		return []Finding{{Store: store.String(), What: fmt.Sprintf(format, args...)}}
	}
	path := fs.PathJoin(dir, store.String())
	if _, err := fs.Stat(path); err != nil {
		return find("the whole store is missing: %v", err)
	}
	desc, err := pebble.Peek(path, fs)
	if err != nil {
		return find("it can't be read: %v", err)
	}
	if !desc.Exists {
		return find("the whole store is missing: nothing in it names a MANIFEST")
	}
	name := fs.PathBase(desc.ManifestFilename)
	number, ok := ManifestNumber(name)
	if !ok {
		return find("its MANIFEST is called %s", name)
	}
	for _, l := range a.Logs {
		if l.Store != store {
			continue
		}
		name := LogName(l.Number)
		if _, err := fs.Stat(fs.PathJoin(path, name)); err != nil {
			return find("its write-ahead log %s is missing: %v", name, err)
		}
	}
	for _, m := range a.Manifests {
		if m.Store != store || m.Number != number {
			continue
		}
		sum, n, err := sumPrefix(fs, fs.PathJoin(path, name), m.Bytes)
		switch {
		case err != nil:
			return find("%s can't be read: %v", name, err)
		case n < m.Bytes:
			return find("%s has %d bytes, %d were durable", name, n, m.Bytes)
		case sum != m.Sum:
			return find("%s is damaged: the checksum of its first %d bytes is %016x instead of %016x", name, m.Bytes, sum, m.Sum)
		}
		return nil
	}
	return find("it goes by %s, which is not in the account", name)
}

// ManifestNumber returns the number of a MANIFEST from its name.
func ManifestNumber(base string) (uint64, bool) {
	digits, ok := strings.CutPrefix(base, "MANIFEST-")
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil
}

// LogNumber returns the number of a write-ahead log from its name.
func LogNumber(base string) (uint64, bool) {
	digits, ok := strings.CutSuffix(base, ".log")
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil
}

// LogName is the inverse of LogNumber.
func LogName(number uint64) string { return fmt.Sprintf("%06d.log", number) }

func sumPrefix(fs vfs.FS, path string, n int64) (sum uint64, read int64, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	d := xxhash.New()
	read, err = io.Copy(d, io.LimitReader(f, n))
	return d.Sum64(), read, err
}

// Describe enters the files of a store that is closed in an account: the MANIFEST
// that it goes by, and its write-ahead logs.
func Describe(fs vfs.FS, dir string, a *ends.Account, store ends.Store) error {
	path := fs.PathJoin(dir, store.String())
	desc, err := pebble.Peek(path, fs)
	if err != nil {
		return err
	}
	name := fs.PathBase(desc.ManifestFilename)
	number, ok := ManifestNumber(name)
	if !desc.Exists || !ok {
		return fmt.Errorf("store %s has no MANIFEST", store)
	}
	sum, n, err := sumPrefix(fs, fs.PathJoin(path, name), math.MaxInt64)
	if err != nil {
		return err
	}
	a.Manifests = append(a.Manifests, ends.Manifest{Store: store, Number: number, Bytes: n, Sum: sum})
	names, err := fs.List(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if number, ok := LogNumber(name); ok {
			a.AddLog(ends.Log{Store: store, Number: number})
		}
	}
	return nil
}
