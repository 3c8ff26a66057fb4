package watch

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/fnv"

	"github.com/starling-fleet/starling/matcher/playout"
	"github.com/starling-fleet/starling/matcher/query"
)

// Kinds of resume tokens.
const (
	vehicleTokens = 1
	areaTokens    = 2
)

// vehicleToken is how far a call of WatchVehicle has come.
type vehicleToken struct {
	seenMS int64 // when the log took the newest report sent
	playout.Position
}

// areaToken names an update of a call of WatchArea.
type areaToken struct {
	session uint64
	update  uint32
}

func (t vehicleToken) encode(vehicle string) string {
	b := binary.LittleEndian.AppendUint32([]byte{vehicleTokens}, checksum(vehicle))
	b = binary.AppendVarint(b, t.seenMS)
	if t.Buffer != 0 {
		b = binary.LittleEndian.AppendUint64(b, t.Buffer)
		b = binary.AppendUvarint(b, t.Rebased)
		b = binary.AppendVarint(b, t.PlayedMS)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (t areaToken) encode() string {
	b := binary.LittleEndian.AppendUint64([]byte{areaTokens}, t.session)
	return base64.RawURLEncoding.EncodeToString(binary.AppendUvarint(b, uint64(t.update)))
}

// checksum lets a token of another vehicle be noticed.
func checksum(vehicle string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(vehicle))
	return h.Sum32()
}

func decodeVehicleToken(token, vehicle string) (t vehicleToken, err error) {
	r := openToken(token, vehicleTokens)
	if sum := r.fixed(4); uint32(sum) != checksum(vehicle) {
		r.bad = true
	}
	t.seenMS = r.varint()
	if len(r.rest) > 0 {
		t.Buffer, t.Rebased, t.PlayedMS = r.fixed(8), r.uvarint(), r.varint()
	}
	return t, r.err()
}

func decodeAreaToken(token string) (t areaToken, err error) {
	r := openToken(token, areaTokens)
	t.session, t.update = r.fixed(8), uint32(r.uvarint())
	return t, r.err()
}

// tokenReader takes a token apart. After a fault it yields zeros.
type tokenReader struct {
	rest []byte
	bad  bool
}

func openToken(token string, kind byte) *tokenReader {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) == 0 || b[0] != kind {
		return &tokenReader{bad: true}
	}
	return &tokenReader{rest: b[1:]}
}

func (r *tokenReader) take(n int) []byte {
	if n <= 0 || n > len(r.rest) {
		r.bad = true
		return make([]byte, 8)
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *tokenReader) fixed(n int) uint64 {
	var b [8]byte
	copy(b[:n], r.take(n))
	return binary.LittleEndian.Uint64(b[:])
}

func (r *tokenReader) uvarint() uint64 {
	x, n := binary.Uvarint(r.rest)
	r.take(n)
	return x
}

func (r *tokenReader) varint() int64 {
	x, n := binary.Varint(r.rest)
	r.take(n)
	return x
}

func (r *tokenReader) err() error {
	if r.bad || len(r.rest) > 0 {
		return errors.New("is not a token that this call returned")
	}
	return nil
}

// resumeVehicle reads the token of a request for a vehicle; ok is false when
// there is none.
func resumeVehicle(f *query.Faults, token, vehicle string) (t vehicleToken, ok bool) {
	if token == "" {
		return t, false
	}
	t, err := decodeVehicleToken(token, vehicle)
	f.Need(err == nil, "resume_token", token, "a token that a watch of this vehicle returned")
	return t, err == nil
}

func resumeArea(f *query.Faults, token string) (t areaToken) {
	if token == "" {
		return t
	}
	t, err := decodeAreaToken(token)
	f.Need(err == nil, "resume_token", token, "a token that a watch of areas returned")
	return t
}
