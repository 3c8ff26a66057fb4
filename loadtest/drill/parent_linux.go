package drill

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the process when the drill dies.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
