// Package name makes and checks the names of rides. A name is stateless: it
// carries the partition in which its ride lives, so that a map of regions may
// change, and when it was made, so that its owner can refuse one that is too old
// without remembering it. A MAC over both and the rider keeps strangers from
// picking a partition and from squatting on the name of somebody else's ride.
package name

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	version   = 1
	bodyBytes = 1 + 2 + 6 + 8 // version, partition, milliseconds, random
	macBytes  = 8
)

// Length is how many characters a name has.
const Length = (bodyBytes + macBytes) * 8 / 5

// MinKeyBytes is how long a key must be.
const MinKeyBytes = 32

var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

var (
	// ErrMalformed reports what is no name at all.
	ErrMalformed = errors.New("not the name of a ride: NewRide makes them")
	// ErrForged reports a name that was not made here for this rider.
	ErrForged = errors.New("the name was not made for this rider")
)

// Parts are what a name carries.
type Parts struct {
	Partition int32
	Made      time.Time
}

// Maker makes and checks names. It is safe for concurrent use.
type Maker struct {
	keys [][]byte
}

// NewMaker returns a maker with keys of at least MinKeyBytes bytes. The first
// makes names; all are accepted, so that a key can be replaced.
func NewMaker(keys ...[]byte) (*Maker, error) {
	if len(keys) == 0 {
		return nil, errors.New("keys for the names of rides: none, at least one is needed")
	}
	for i, k := range keys {
		if len(k) < MinKeyBytes {
			return nil, fmt.Errorf("key %d for the names of rides: %d bytes, at least %d are needed", i, len(k), MinKeyBytes)
		}
	}
	return &Maker{keys: keys}, nil
}

// New makes a name for a rider's ride in a partition.
func (m *Maker) New(partition int32, rider string, now time.Time) string {
	b := make([]byte, 0, bodyBytes+sha256.Size)
	b = append(b, version)
	b = binary.BigEndian.AppendUint16(b, uint16(partition))
	ms := now.UnixMilli()
	b = append(b, byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms))
	b = b[:bodyBytes]
	_, _ = rand.Read(b[bodyBytes-8:]) // never fails
	return encoding.EncodeToString(append(b, mac(m.keys[0], b, rider)...))
}

// Check returns nil if the name was made here for this rider, otherwise an error
// that wraps ErrMalformed or ErrForged.
func (m *Maker) Check(name, rider string) error {
	b, err := decode(name)
	if err != nil {
		return err
	}
	for _, key := range m.keys {
		if hmac.Equal(b[bodyBytes:], mac(key, b[:bodyBytes], rider)) {
			return nil
		}
	}
	return ErrForged
}

// Parse returns what a name carries, whoever made it. It fails with
// ErrMalformed.
func Parse(name string) (Parts, error) {
	b, err := decode(name)
	if err != nil {
		return Parts{}, err
	}
	ms := int64(binary.BigEndian.Uint64(b[1:9]) & (1<<48 - 1))
	return Parts{Partition: int32(binary.BigEndian.Uint16(b[1:3])), Made: time.UnixMilli(ms)}, nil
}

func decode(name string) ([]byte, error) {
	if len(name) != Length || strings.ToLower(name) != name {
		return nil, ErrMalformed
	}
	b, err := encoding.DecodeString(name)
	if err != nil || len(b) != bodyBytes+macBytes || b[0] != version {
		return nil, ErrMalformed
	}
	return b, nil
}

func mac(key, body []byte, rider string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(body)
	h.Write([]byte(rider))
	return h.Sum(nil)[:macBytes]
}
