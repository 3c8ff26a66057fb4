//go:build !linux

package overload

import "os/exec"

// dieWithParent does nothing here: only Linux offers it.
func dieWithParent(*exec.Cmd) {}
