package bench

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends the child when this process ends, however it does.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
