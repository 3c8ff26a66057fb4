package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/starling-fleet/starling/internal/freeport"
)

// startPatience is how long `starling up` may take to serve on an empty log.
const startPatience = time.Minute

// Doors are the addresses of one of Starling's processes, as host:port.
type Doors struct {
	Ingest, Matcher, Admin string
}

// FreeDoors returns doors on free loopback ports.
func FreeDoors() (Doors, error) {
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return Doors{}, err
	}
	return Doors{Ingest: addrs[0], Matcher: addrs[1], Admin: addrs[2]}, nil
}

// Args are the flags that make a process listen there, and nowhere else.
func (d Doors) Args() []string {
	return []string{
		"--server-ingest-listen", d.Ingest, "--server-matcher-listen", d.Matcher,
		"--server-json-listen", "", "--server-admin-listen", d.Admin,
	}
}

// Up is a `starling up` of its own on a new local log.
type Up struct {
	*Process
	Doors
	dir string
}

// StartUp starts one and waits until it serves. Command is the binary and what
// comes before its arguments; the log is put into a new folder in workDir, the
// system's temporary one if that is empty.
func StartUp(ctx context.Context, command []string, workDir string, args ...string) (*Up, error) {
	doors, err := FreeDoors()
	if err != nil {
		return nil, err
	}
	u := &Up{Doors: doors}
	if u.dir, err = os.MkdirTemp(workDir, "starling-up-"); err != nil {
		return nil, fmt.Errorf("make a folder for the log: %w", err)
	}
	u.Process = New(Spec{Name: "starling", Admin: doors.Admin, Command: slices.Concat(
		command, []string{"up", "--log-level", "warn", "--local-directory", filepath.Join(u.dir, "log")}, doors.Args(), args)})
	if err := u.Start(); err != nil {
		_ = os.RemoveAll(u.dir)
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if _, err := u.WaitReady(ready); err != nil {
		_ = u.End(startPatience)
		return nil, err
	}
	return u, nil
}

// End stops the process within the patience and removes its log. Its error says
// that the process ended otherwise than cleanly.
func (u *Up) End(patience time.Duration) error {
	err := u.StopWithin(patience)
	_ = os.RemoveAll(u.dir)
	return err
}
