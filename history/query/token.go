package query

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/limits"
)

// A resume token is a byte for its form, the request's digest, and where the part that
// it came with ends.
const (
	trackToken  = 't'
	statsToken  = 'c'
	visitsToken = 'v'

	digestBytes = 8
)

// digest distinguishes requests: a token is good for the one that it was given for.
func digest[M proto.Message](req M, clearToken func(M)) [digestBytes]byte {
	bare := proto.Clone(req).(M)
	clearToken(bare)
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(bare) // a message that was decoded encodes
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails
	return [digestBytes]byte(h.Sum(nil))
}

func makeToken(form byte, of [digestBytes]byte, at []byte) string {
	return base64.RawURLEncoding.EncodeToString(slices.Concat([]byte{form}, of[:], at))
}

// place returns where a token stands, or false if it is not one of this form and
// request.
func place(token string, form byte, of [digestBytes]byte) ([]byte, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 1+digestBytes || b[0] != form || [digestBytes]byte(b[1:1+digestBytes]) != of {
		return nil, false
	}
	return b[1+digestBytes:], true
}

// numbersPlace is a place of two numbers.
func numbersPlace(a, b int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(a)), uint64(b))
}

func parseNumbers(b []byte) (int64, int64, bool) {
	if len(b) != 16 {
		return 0, 0, false
	}
	return int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:])), true
}

// resume reads the token of a request. It notes a fault unless the token is empty or
// read takes its place.
func (f *faults) resume(token string, form byte, of [digestBytes]byte, read func([]byte) bool) {
	if token == "" {
		return
	}
	at, ok := place(token, form, of)
	f.Need(ok && read(at), "resume_token", token, "the token of a part of the answer to the same request")
}

// vehiclePlace reads the place of a token of visits.
func vehiclePlace(b []byte) (string, bool) { return string(b), limits.ValidVehicleID(string(b)) }
