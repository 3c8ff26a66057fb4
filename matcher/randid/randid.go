// Package randid draws numbers that stand for something and that nobody can
// guess, such as the session of a watch that may be resumed.
package randid

import (
	"crypto/rand"
	"encoding/binary"
)

// New returns a random number.
func New() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
