package kafkatest

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed clock.c.txt
var clockSource string

// Clock is a wall clock for brokers that can be set wrong while they run: a
// small library between the Java machine and the C library. Monotonic time stays
// right. It needs a C compiler, and is for Linux.
type Clock struct {
	library string
	file    *os.File
}

// NewClock returns a clock that is right; its library and its file are put into
// a folder. Close ends it.
func NewClock(dir string) (*Clock, error) {
	c := &Clock{library: filepath.Join(dir, "clock.so")}
	cc := exec.Command("cc", "-shared", "-fPIC", "-O2", "-o", c.library, "-x", "c", "-", "-ldl")
	cc.Stdin = strings.NewReader(clockSource)
	if out, err := cc.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("kafkatest: compile the clock: %w\n%s", err, out)
	}
	var err error
	if c.file, err = os.Create(filepath.Join(dir, "clock")); err != nil {
		return nil, fmt.Errorf("kafkatest: make the clock: %w", err)
	}
	return c, c.Set(0)
}

// Options are those of a broker that has the clock. It looks for what is to be
// deleted as often as Kafka does by default, not as often as this package's
// others: a clock that is ahead by more than a topic's retention at that moment
// makes a broker delete what it has.
func (c *Clock) Options() Options {
	return Options{Env: c.env(), Properties: map[string]string{"log.retention.check.interval.ms": "300000"}}
}

func (c *Clock) env() []string {
	return []string{"LD_PRELOAD=" + c.library, "STARLING_CLOCK_FILE=" + c.file.Name()}
}

// Set sets the clock off by so much, in whole seconds, from now on.
func (c *Clock) Set(offset time.Duration) error {
	// The brokers have the file mapped, and its eight bytes are written at once.
	if _, err := c.file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(offset/time.Second))), 0); err != nil {
		return fmt.Errorf("kafkatest: set the clock: %w", err)
	}
	return nil
}

// Close closes the clock's file.
func (c *Clock) Close() error { return c.file.Close() }
