// Package ends keeps what the embedded log has acknowledged in a second place,
// beside its stores: for every partition the end of what is durable and the
// running checksum of the chunks up to there, how far the state store has come,
// how much of each store's MANIFEST is durable, and which write-ahead logs a store
// has.
//
// The store's own logs cannot show what they have lost: a damaged tail looks like
// one that a crash has left unfinished. Held against this account it does not.
//
// The account is one file of two slots, written alternately; each has a
// generation, a length and a checksum. The valid slot with the higher generation
// counts. A crash while a slot is written leaves the other one, which is the
// account before it; what the torn one would have stated has not been acknowledged.
package ends

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// Format is the version of the log's directory, the account included.
const Format = 2

// FileName is the account's name in the log's directory.
const FileName = "synced-ends"

// Place is a point of a partition's sequence of chunks.
type Place struct {
	// Next is the offset behind the last record.
	Next int64
	// Chain is the checksum of the last chunk, which holds that of the chunk
	// before it; zero before the first chunk.
	Chain uint64
}

// Gap is a stretch of acknowledged offsets that a repair has declared lost.
type Gap struct {
	Topic     uint16 `json:"topic"`
	Partition int32  `json:"partition"`
	// From is the first lost offset, To the one behind the last.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Chain is the running checksum from which the chunk at To goes on.
	Chain uint64 `json:"chain"`
}

// Facts are what seldom changes about the log.
type Facts struct {
	Format     int               `json:"format"`
	LogID      uint64            `json:"log_id"` // drawn when the directory was made
	Partitions int               `json:"partitions"`
	TopicIDs   map[string]uint16 `json:"topic_ids"`
	Epoch      int64             `json:"epoch"`
	// New reports that the stores may not exist yet: nothing was acknowledged.
	New bool `json:"new,omitempty"`
	// OpenUnsynced is set while a process uses the log without fsync; the places
	// are then those of its start. Found at the start it reports that this process
	// did not close the log.
	OpenUnsynced bool `json:"open_unsynced,omitempty"`
	// Backup marks a copy that was made of a log in use: it is no log until it is
	// restored in a raised epoch.
	Backup bool `json:"backup,omitempty"`
	// Gaps are what repairs have declared lost and retention has not passed.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Store names one of the two stores.
type Store byte

// The stores.
const (
	Records Store = iota
	State
)

func (s Store) String() string { return [...]string{"records", "state"}[s] }

// Manifest is the durable part of a store's MANIFEST.
type Manifest struct {
	Store  Store
	Number uint64 // of the file
	Bytes  int64
	Sum    uint64 // of these bytes
}

// Commit is how far the state store has come.
type Commit struct {
	Count uint64 // number of batches
	Chain uint64 // checksum of the last, which covers that of the one before it
}

// Log is one of a store's write-ahead logs, which it has until what stands in it
// is in tables.
type Log struct {
	Store  Store
	Number uint64 // of the file
}

// Account is all that is kept.
type Account struct {
	Facts
	State     Commit
	Manifests []Manifest
	Logs      []Log
	// Places are by (topic id - 1) * partitions + partition.
	Places []Place
}

// slot: magic, format, payload length, bytes of a slot, generation, checksum of
// these and of the payload.
const (
	magic      = "STARLOGE"
	headBytes  = 8 + 4 + 4 + 8 + 8 + 4
	placeBytes = 16
	// maxPayload bounds what a damaged length makes a reader allocate.
	maxPayload = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged reports that a slot is not what was written.
var ErrDamaged = errors.New("slot is damaged")

// appendPayload encodes an account. The encoded facts are passed in, since they
// seldom change.
func appendPayload(b []byte, facts []byte, a *Account) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(facts)))
	b = append(b, facts...)
	b = binary.LittleEndian.AppendUint64(b, a.State.Count)
	b = binary.LittleEndian.AppendUint64(b, a.State.Chain)
	b = append(b, byte(len(a.Manifests)))
	for _, m := range a.Manifests {
		b = append(b, byte(m.Store))
		b = binary.LittleEndian.AppendUint64(b, m.Number)
		b = binary.LittleEndian.AppendUint64(b, uint64(m.Bytes))
		b = binary.LittleEndian.AppendUint64(b, m.Sum)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(a.Logs)))
	for _, l := range a.Logs {
		b = append(b, byte(l.Store))
		b = binary.LittleEndian.AppendUint64(b, l.Number)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(a.Places)))
	for _, p := range a.Places {
		b = binary.LittleEndian.AppendUint64(b, uint64(p.Next))
		b = binary.LittleEndian.AppendUint64(b, p.Chain)
	}
	return b
}

// encodeSlot encodes a whole slot into b's capacity.
func encodeSlot(b []byte, facts []byte, a *Account, generation uint64, slotBytes int64) []byte {
	b = append(b[:0], magic...)
	b = binary.LittleEndian.AppendUint32(b, Format)
	b = append(b, 0, 0, 0, 0) // length
	b = binary.LittleEndian.AppendUint64(b, uint64(slotBytes))
	b = binary.LittleEndian.AppendUint64(b, generation)
	b = append(b, 0, 0, 0, 0) // checksum
	b = appendPayload(b, facts, a)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-headBytes))
	binary.LittleEndian.PutUint32(b[headBytes-4:], slotSum(b))
	return b
}

func slotSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:headBytes-4], castagnoli), castagnoli, b[headBytes:])
}

type slot struct {
	generation uint64
	bytes      int64 // of a slot
	account    Account
}

// decodeSlot reads the slot that data begins with.
func decodeSlot(data []byte) (slot, error) {
	var s slot
	if len(data) < headBytes || string(data[:len(magic)]) != magic {
		return s, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	n := binary.LittleEndian.Uint32(data[12:])
	if n > maxPayload || int(n) > len(data)-headBytes {
		return s, fmt.Errorf("%w: it is shorter than its header claims", ErrDamaged)
	}
	data = data[:headBytes+int(n)]
	if slotSum(data) != binary.LittleEndian.Uint32(data[headBytes-4:]) {
		return s, fmt.Errorf("%w: its checksum differs", ErrDamaged)
	}
	if f := binary.LittleEndian.Uint32(data[8:]); f != Format {
		return s, fmt.Errorf("the directory has format %d, this version knows format %d", f, Format)
	}
	s.bytes = int64(binary.LittleEndian.Uint64(data[16:]))
	s.generation = binary.LittleEndian.Uint64(data[24:])
	var err error
	s.account, err = decodePayload(data[headBytes:])
	return s, err
}

// decodePayload reads what the checksum has vouched for; it still trusts no
// length.
func decodePayload(b []byte) (Account, error) {
	var a Account
	d := decoder{rest: b}
	facts := d.take(int(d.uint32()))
	if d.failed {
		return a, fmt.Errorf("%w: its facts are cut off", ErrDamaged)
	}
	if err := json.Unmarshal(facts, &a.Facts); err != nil {
		return a, fmt.Errorf("%w: its facts: %w", ErrDamaged, err)
	}
	a.State = Commit{Count: d.uint64(), Chain: d.uint64()}
	if head := d.take(1); !d.failed {
		for range head[0] {
			store := d.take(1)
			m := Manifest{Number: d.uint64(), Bytes: int64(d.uint64()), Sum: d.uint64()}
			if d.failed {
				break
			}
			m.Store = Store(store[0])
			a.Manifests = append(a.Manifests, m)
		}
	}
	logs := d.uint32()
	for i := uint32(0); i < logs && !d.failed; i++ {
		store, number := d.take(1), d.uint64()
		if !d.failed {
			a.Logs = append(a.Logs, Log{Store(store[0]), number})
		}
	}
	n := int64(d.uint32())
	if d.failed || n*placeBytes != int64(len(d.rest)) {
		return a, fmt.Errorf("%w: its places do not fill it", ErrDamaged)
	}
	a.Places = make([]Place, n)
	for i := range a.Places {
		a.Places[i] = Place{Next: int64(d.uint64()), Chain: d.uint64()}
	}
	return a, a.check()
}

// check holds an account to what it must be.
func (a *Account) check() error {
	if a.Partitions < 1 || len(a.Places) != len(a.TopicIDs)*a.Partitions {
		return fmt.Errorf("%w: %d places for %d topics of %d partitions", ErrDamaged, len(a.Places), len(a.TopicIDs), a.Partitions)
	}
	seen := make(map[uint16]bool)
	for name, id := range a.TopicIDs {
		if id < 1 || int(id) > len(a.TopicIDs) || seen[id] {
			return fmt.Errorf("%w: topic %s has id %d of %d", ErrDamaged, name, id, len(a.TopicIDs))
		}
		seen[id] = true
	}
	for _, m := range a.Manifests {
		if m.Store > State || m.Bytes < 0 {
			return fmt.Errorf("%w: a MANIFEST of store %d with %d bytes", ErrDamaged, m.Store, m.Bytes)
		}
	}
	for _, l := range a.Logs {
		if l.Store > State {
			return fmt.Errorf("%w: a log of store %d", ErrDamaged, l.Store)
		}
	}
	for _, p := range a.Places {
		if p.Next < 0 {
			return fmt.Errorf("%w: end %d", ErrDamaged, p.Next)
		}
	}
	return nil
}

// Topic returns the name of a topic by its id, or "" if there is none.
func (f *Facts) Topic(id uint16) string {
	for name, i := range f.TopicIDs {
		if i == id {
			return name
		}
	}
	return ""
}

type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) take(n int) []byte {
	if d.failed || n < 0 || n > len(d.rest) {
		d.failed = true
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return math.MaxUint32
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// SetManifest takes note of a MANIFEST. Of each store the two newest are kept:
// one is in force while the next is made.
func (a *Account) SetManifest(m Manifest) {
	const keep = 2
	same, oldest := -1, -1
	count := 0
	for i, other := range a.Manifests {
		if other.Store != m.Store {
			continue
		}
		count++
		if other.Number == m.Number {
			same = i
		}
		if oldest < 0 || other.Number < a.Manifests[oldest].Number {
			oldest = i
		}
	}
	switch {
	case same >= 0:
		a.Manifests[same] = m
	case count < keep:
		a.Manifests = append(a.Manifests, m)
	default:
		a.Manifests[oldest] = m
	}
}

// AddLog takes note of a write-ahead log that was made.
func (a *Account) AddLog(l Log) {
	if !slices.Contains(a.Logs, l) {
		a.Logs = append(a.Logs, l)
	}
}

// DropLog takes note of a write-ahead log that is about to go.
func (a *Account) DropLog(l Log) {
	a.Logs = slices.DeleteFunc(a.Logs, func(other Log) bool { return other == l })
}
