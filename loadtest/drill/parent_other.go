//go:build !linux

package drill

import "os/exec"

// dieWithParent is Linux's; elsewhere a drill that is killed leaves its
// processes behind.
func dieWithParent(*exec.Cmd) {}
