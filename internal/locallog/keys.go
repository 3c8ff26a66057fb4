package locallog

import (
	"encoding/binary"
	"fmt"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// Keys of the record store. They lead with the segment, so that what is
// written later sorts later: tables written out by one segment never overlap
// those of another, and no record is rewritten by a compaction.
//
//	segment uint64 | 0                                       header of a segment
//	segment uint64 | topic uint16 | partition uint16 | base  a chunk of records
//
// All numbers are big endian; topic ids start at 1.
const recordKeyLen = 8 + 2 + 2 + 8

func segmentKey(segment uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, recordKeyLen), segment)
}

func headerKey(segment uint64) []byte {
	return append(segmentKey(segment), 0, 0)
}

func partitionKey(segment uint64, topic uint16, partition uint32) []byte {
	// One past the last partition still fits: it becomes the next topic.
	k := binary.BigEndian.AppendUint16(segmentKey(segment), topic+uint16(partition>>16))
	return binary.BigEndian.AppendUint16(k, uint16(partition))
}

func appendChunkKey(k []byte, segment uint64, topic uint16, partition uint32, base int64) []byte {
	k = binary.BigEndian.AppendUint64(k, segment)
	k = binary.BigEndian.AppendUint16(k, topic)
	k = binary.BigEndian.AppendUint16(k, uint16(partition))
	return binary.BigEndian.AppendUint64(k, uint64(base))
}

// chunkBase returns the offset of a chunk's first record from its key.
func chunkBase(key []byte) (int64, error) {
	if len(key) != recordKeyLen {
		return 0, fmt.Errorf("key of a chunk has %d bytes, not %d", len(key), recordKeyLen)
	}
	return int64(binary.BigEndian.Uint64(key[recordKeyLen-8:])), nil
}

// Keys of the state store:
//
//	'm'                            what was fixed at creation, and the epoch (JSON)
//	'f' | topic | partition        oldest offset kept
//	'c' | claim                    resume offset and generation
//	's' | claim | key              latest value of one key
//
// where claim is: group length (uvarint), group, source topic, state topic,
// partition. Topic ids and partitions are as in the record store.
func metaKey() []byte { return []byte{'m'} }

func firstKey(topic uint16, partition uint32) []byte {
	k := binary.BigEndian.AppendUint16([]byte{'f'}, topic)
	return binary.BigEndian.AppendUint16(k, uint16(partition))
}

// claimID names one partition of one owners' group.
type claimID struct {
	spec      eventlog.OwnSpec
	partition int32
}

func (l *Log) claimKey(kind byte, id claimID) []byte {
	k := binary.AppendUvarint([]byte{kind}, uint64(len(id.spec.Group)))
	k = append(k, id.spec.Group...)
	k = binary.BigEndian.AppendUint16(k, l.topics[id.spec.Source].id)
	k = binary.BigEndian.AppendUint16(k, l.topics[id.spec.State].id)
	return binary.BigEndian.AppendUint16(k, uint16(id.partition))
}

// parseClaimKey is the inverse of claimKey for keys of kind 'c'.
func (l *Log) parseClaimKey(key []byte) (claimID, error) {
	var id claimID
	n, size := binary.Uvarint(key[1:])
	rest := key[1+max(size, 0):]
	if size <= 0 || uint64(len(rest)) != n+6 {
		return id, fmt.Errorf("key of a claim is damaged: %x", key)
	}
	id.spec.Group = string(rest[:n])
	rest = rest[n:]
	for _, t := range l.topics {
		if t.id == binary.BigEndian.Uint16(rest) {
			id.spec.Source = t.decl.Name
		}
		if t.id == binary.BigEndian.Uint16(rest[2:]) {
			id.spec.State = t.decl.Name
		}
	}
	id.partition = int32(binary.BigEndian.Uint16(rest[4:]))
	return id, nil
}

// after returns the least key above all keys with the given prefix. The last
// byte of our prefixes that count is never 0xff throughout.
func after(prefix []byte) []byte {
	k := append([]byte(nil), prefix...)
	for i := len(k) - 1; i >= 0; i-- {
		k[i]++
		if k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}
