package testcache

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Start starts a server that the kernel kills when this process ends, however it
// does. exited is closed when the server has ended; how is in its output.
func Start(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	ended, started := make(chan struct{}), make(chan error)
	go func() {
		// The parent-death signal is tied to the thread that forks, so this one stays
		// until the server has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(ended)
		}
	}()
	return ended, <-started
}

// AwaitTCP returns when a server takes connections at an address. It fails when the
// server has ended, or when the time is over.
func AwaitTCP(addr string, exited <-chan struct{}, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-exited:
			return errors.New("it ended before it served")
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not serve: %w", err)
		}
	}
}
