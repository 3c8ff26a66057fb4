//go:build !linux

package process

import "os/exec"

// dieWithParent is Linux's; elsewhere a parent that is killed leaves its
// children behind.
func dieWithParent(*exec.Cmd) {}
