package layout

import (
	"encoding/binary"
	"fmt"
)

// Keys of the record store. They lead with the segment, so that what is
// written later sorts later: tables written out by one segment never overlap
// those of another, and no record is rewritten by a compaction.
//
//	segment uint64 | 0                                       header of a segment
//	segment uint64 | topic uint16 | partition uint16 | base  a chunk of records
//
// All numbers are big endian; topic ids start at 1.
const (
	RecordKeyLen = 8 + 2 + 2 + 8
	headerKeyLen = 8 + 2
)

// SegmentKey is below all keys of a segment.
func SegmentKey(segment uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, RecordKeyLen), segment)
}

// HeaderKey is the key of a segment's header.
func HeaderKey(segment uint64) []byte { return append(SegmentKey(segment), 0, 0) }

// IsHeaderKey reports whether a key of the record store is a header's.
func IsHeaderKey(key []byte) bool { return len(key) == headerKeyLen }

// PartitionKey is below all chunks of a partition in a segment.
func PartitionKey(segment uint64, topic uint16, partition uint32) []byte {
	// One past the last partition still fits: it becomes the next topic.
	k := binary.BigEndian.AppendUint16(SegmentKey(segment), topic+uint16(partition>>16))
	return binary.BigEndian.AppendUint16(k, uint16(partition))
}

// BehindTopic returns the least key behind those of a key's topic in its segment, the
// header being a topic of its own; nil of what is no key of the record store.
func BehindTopic(key []byte) []byte {
	if len(key) < headerKeyLen {
		return nil
	}
	return PartitionKey(SegmentOf(key), binary.BigEndian.Uint16(key[8:])+1, 0)
}

// AppendChunkKey appends the key of a chunk.
func AppendChunkKey(k []byte, segment uint64, topic uint16, partition uint32, base int64) []byte {
	k = binary.BigEndian.AppendUint64(k, segment)
	k = binary.BigEndian.AppendUint16(k, topic)
	k = binary.BigEndian.AppendUint16(k, uint16(partition))
	return binary.BigEndian.AppendUint64(k, uint64(base))
}

// ChunkKey is a chunk's key, taken apart.
type ChunkKey struct {
	Segment   uint64
	Topic     uint16
	Partition uint16
	Base      int64
}

// ParseChunkKey takes a chunk's key apart.
func ParseChunkKey(key []byte) (ChunkKey, error) {
	if len(key) != RecordKeyLen {
		return ChunkKey{}, fmt.Errorf("key of a chunk has %d bytes, not %d", len(key), RecordKeyLen)
	}
	return ChunkKey{
		Segment: binary.BigEndian.Uint64(key), Topic: binary.BigEndian.Uint16(key[8:]),
		Partition: binary.BigEndian.Uint16(key[10:]), Base: int64(binary.BigEndian.Uint64(key[12:])),
	}, nil
}

// SegmentOf returns the segment of any key of the record store, or 0.
func SegmentOf(key []byte) uint64 {
	if len(key) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}

// Keys of the state store:
//
//	'm'                            the facts of package ends, as of the last start (JSON)
//	'n' | count modulo 64          a commit's count and chain: how far the store has come
//	'f' | topic | partition        oldest offset kept
//	'c' | claim                    resume offset and generation
//	's' | claim | key              latest value of one key
//
// where claim is: group length (uvarint), group, source topic, state topic,
// partition. Topic ids and partitions are as in the record store.
const (
	claimKind = 'c'
	// CommitRing is how many of the latest commits the store knows; fewer are
	// under way at any time.
	CommitRing = 64
)

// FactsKey is the key of the facts.
func FactsKey() []byte { return []byte{'m'} }

// CommitKey is the key of a commit.
func CommitKey(count uint64) []byte { return []byte{'n', byte(count % CommitRing)} }

// FirstKey is the key of a partition's oldest offset.
func FirstKey(topic uint16, partition uint32) []byte {
	k := binary.BigEndian.AppendUint16([]byte{'f'}, topic)
	return binary.BigEndian.AppendUint16(k, uint16(partition))
}

// ClaimID names one partition of one owners' group.
type ClaimID struct {
	Group         string
	Source, State uint16 // topics
	Partition     uint16
}

// ClaimKey is the key of a claim: kind 'c', or the prefix of its values: 's'.
func ClaimKey(kind byte, id ClaimID) []byte {
	k := binary.AppendUvarint([]byte{kind}, uint64(len(id.Group)))
	k = append(k, id.Group...)
	k = binary.BigEndian.AppendUint16(k, id.Source)
	k = binary.BigEndian.AppendUint16(k, id.State)
	return binary.BigEndian.AppendUint16(k, id.Partition)
}

// ParseClaimKey is the inverse of ClaimKey for keys of kind 'c'.
func ParseClaimKey(key []byte) (ClaimID, error) {
	var id ClaimID
	if len(key) == 0 || key[0] != claimKind {
		return id, fmt.Errorf("key of a claim is damaged: %x", key)
	}
	n, size := binary.Uvarint(key[1:])
	rest := key[1+max(size, 0):]
	if size <= 0 || uint64(len(rest)) != n+6 {
		return id, fmt.Errorf("key of a claim is damaged: %x", key)
	}
	id.Group = string(rest[:n])
	rest = rest[n:]
	id.Source, id.State = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	id.Partition = binary.BigEndian.Uint16(rest[4:])
	return id, nil
}

// After returns the least key above all keys with the given prefix. The last
// byte of our prefixes that count is never 0xff throughout.
func After(prefix []byte) []byte {
	k := append([]byte(nil), prefix...)
	for i := len(k) - 1; i >= 0; i-- {
		k[i]++
		if k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}
