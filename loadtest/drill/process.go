package drill

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/starling-fleet/starling/loadtest/process"
)

// role is one of Starling's processes, which is killed and started again with
// the same command line.
type role struct {
	*process.Process
	name, role      string
	ingest, matcher string
	output          *os.File
	resting         bool // it is not meant to run
}

// newRole prepares a process with ports of its own.
func newRole(o *Options, name, kind string, args ...string) (*role, error) {
	r := &role{name: name, role: kind}
	addrs, err := process.FreeAddresses()
	if err != nil {
		return nil, err
	}
	r.ingest, r.matcher = addrs.Ingest, addrs.Matcher
	if r.output, err = os.Create(filepath.Join(o.Dir, name+".log")); err != nil {
		return nil, fmt.Errorf("create the file for the output of %s: %w", name, err)
	}
	command := slices.Concat([]string{o.Binary, kind, "--partitions", fmt.Sprint(o.Partitions)}, addrs.Args(), args, o.Args)
	r.Process = process.New(process.Spec{Name: name, Command: command, Admin: addrs.Admin, Output: r.output})
	return r, nil
}
