package modeltest

import (
	"os"
	"runtime/debug"
	"testing"
)

// The tests make many small worlds and logs, none of which lives long: collected less
// often, they cost less.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
