package cli

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// hangups takes SIGHUP, which would end the process otherwise. Several that come
// together cause one reload.
type hangups struct {
	signals chan os.Signal
	quit    chan struct{}
	wg      sync.WaitGroup
}

// takeHangups takes them from now on; stop gives them back.
func takeHangups() *hangups {
	h := &hangups{signals: make(chan os.Signal, 1), quit: make(chan struct{})}
	signal.Notify(h.signals, syscall.SIGHUP)
	return h
}

// reload calls a function, which logs its own faults, at every hangup.
func (h *hangups) reload(run func() error) {
	h.wg.Go(func() {
		for {
			select {
			case <-h.signals:
				_ = run()
			case <-h.quit:
				return
			}
		}
	})
}

// stop joins the reload that may be running.
func (h *hangups) stop() {
	signal.Stop(h.signals)
	close(h.quit)
	h.wg.Wait()
}
