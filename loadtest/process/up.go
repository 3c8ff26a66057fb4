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

// Addresses are those of one of Starling's processes, as host:port.
type Addresses struct {
	Ingest, Matcher, Admin string
}

// FreeAddresses returns addresses on free loopback ports.
func FreeAddresses() (Addresses, error) {
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return Addresses{}, err
	}
	return Addresses{Ingest: addrs[0], Matcher: addrs[1], Admin: addrs[2]}, nil
}

// Args are the flags that make a process listen there, and nowhere else.
func (a Addresses) Args() []string {
	return []string{
		"--dev", "--server-ingest-listen", a.Ingest, "--server-matcher-listen", a.Matcher,
		"--server-json-listen", "", "--server-admin-listen", a.Admin,
	}
}

// Up is a `starling up` of its own on a new local log.
type Up struct {
	*Process
	Addresses
	dir string
}

// StartUp starts one and waits until it serves. Command is the binary and what
// comes before its arguments; the log is put into a new folder in workDir, the
// system's temporary one if that is empty.
func StartUp(ctx context.Context, command []string, workDir string, args ...string) (*Up, error) {
	addrs, err := FreeAddresses()
	if err != nil {
		return nil, err
	}
	u := &Up{Addresses: addrs}
	if u.dir, err = os.MkdirTemp(workDir, "starling-up-"); err != nil {
		return nil, fmt.Errorf("make a folder for the log: %w", err)
	}
	u.Process = New(Spec{Name: "starling", Admin: addrs.Admin, Command: slices.Concat(
		command, []string{"up", "--log-level", "warn", "--local-directory", filepath.Join(u.dir, "log")}, addrs.Args(), args)})
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

// End stops the process within the patience and removes its log. It returns an
// error if the process did not end with status 0.
func (u *Up) End(patience time.Duration) error {
	err := u.StopWithin(patience)
	_ = os.RemoveAll(u.dir)
	return err
}
