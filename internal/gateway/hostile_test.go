package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/gateway"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func (f *fleet) ListVehicles(context.Context, *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	out := &starlingv1.ListVehiclesResponse{StalePartitions: f.stale}
	for range f.listBytes >> 10 {
		out.Vehicles = append(out.Vehicles, &starlingv1.Vehicle{Name: strings.Repeat("x", 1<<10)})
	}
	return out, nil
}

// WatchArea sends a message as large as a list, and a small one when again is closed.
func (f *fleet) WatchArea(_ *starlingv1.WatchAreaRequest, out grpc.ServerStreamingServer[starlingv1.WatchAreaResponse]) error {
	list, err := f.ListVehicles(out.Context(), nil)
	if err != nil {
		return err
	}
	if err := out.Send(&starlingv1.WatchAreaResponse{Changed: list.Vehicles}); err != nil {
		return err
	}
	select {
	case <-out.Context().Done():
		return nil
	case <-f.again:
		return out.Send(&starlingv1.WatchAreaResponse{})
	}
}

// peak runs do and returns the most memory in use meanwhile beyond the start's.
// The test's clients count too.
func peak(do func()) int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base, most := m.HeapInuse+m.StackInuse, uint64(0)
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse+m.StackInuse)
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
		}
	})
	do()
	close(stop)
	watching.Wait()
	return int64(most) - int64(base)
}

// attack opens n connections, writes text to each, and keeps them open.
func (p *process) attack(n int, text string) {
	var writing sync.WaitGroup
	bytes := []byte(text) // once: what each client holds is not to be measured
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
		require.NoError(p.t, err)
		p.t.Cleanup(func() { _ = conn.Close() })
		require.NoError(p.t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		writing.Go(func() {
			_ = conn.SetWriteDeadline(time.Now().Add(patience))
			_, _ = conn.Write(bytes) // the server may hang up
		})
	}
	writing.Wait()
}

func TestBodiesOneByteShortAreBounded(t *testing.T) {
	p, _ := stand(t, &fleet{}, func(c *gateway.Config) { c.BodyBytes, c.ReadTimeout = 32<<20, 5*time.Second })
	const size = 1 << 20
	head := fmt.Sprintf("POST /v1/vehicles:searchNearest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", size)
	used := peak(func() {
		p.attack(300, head+strings.Repeat(" ", size-1))
		a := p.do("/v1/vehicles:searchNearest", "{}")
		require.Equal(t, http.StatusNotImplemented, a.status, "an honest body is taken: %s", a.body)
	})
	t.Logf("300 bodies of 1 MiB, one byte short: %d MiB", used>>20)
	require.Less(t, used, int64(200<<20))
}

func TestLargeAnswersThatAreNotReadAreBounded(t *testing.T) {
	p, _ := stand(t, &fleet{listBytes: 3 << 20}, func(c *gateway.Config) { c.AnswerBytes = 96 << 20 })
	used := peak(func() {
		p.attack(100, "GET /v1/vehicles HTTP/1.1\r\nHost: x\r\n\r\n")
		// At most four are at work. Among equals only those older than a second
		// give way, so an honest client may have to come back once.
		require.Eventually(t, func() bool { return p.do("/v1/vehicles", "").status == http.StatusOK }, patience, 100*time.Millisecond)
	})
	t.Logf("100 lists of 3 MiB, not read: %d MiB", used>>20)
	require.Less(t, used, int64(200<<20))
}

// watchArea watches an area and returns the messages, or nil when it is refused for
// want of space.
func (p *process) watchArea() *bufio.Scanner {
	resp, err := http.Get(p.base + "/v1/vehicles:watchArea")
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode == http.StatusTooManyRequests {
		return nil
	}
	require.Equal(p.t, http.StatusOK, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	return lines
}

// Of the watches that do not read what they were sent, as many stay open as the
// budget holds: the others give way to those who come.
func TestWatchesThatAreNotReadGiveWay(t *testing.T) {
	// A message is more than the kernel's buffers take (4 MiB), so that it is not
	// written before it is read.
	const held = 2 // messages that the budget holds
	p, registry := stand(t, &fleet{listBytes: 8 << 20}, func(c *gateway.Config) { c.AnswerBytes, c.WriteTimeout = held*24<<20, time.Hour })
	p.attack(8, "GET /v1/vehicles:watchArea HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Eventually(t, func() bool {
		lines := p.watchArea()
		return lines != nil && lines.Scan()
	}, patience, 100*time.Millisecond)
	require.Eventually(t, func() bool {
		open, err := registry.Gather()
		require.NoError(t, err)
		for _, family := range open {
			if family.GetName() == "starling_json_open_requests" {
				return family.GetMetric()[0].GetGauge().GetValue() <= held+1 // the one that has read
			}
		}
		return false
	}, patience, 10*time.Millisecond)
}

// A watch that has read what it was sent holds nothing while it waits, so that there
// may be any number of them.
func TestWatchesThatWaitHoldNothing(t *testing.T) {
	f := &fleet{listBytes: 3 << 20, again: make(chan struct{})}
	p, _ := stand(t, f, func(c *gateway.Config) { c.AnswerBytes = 24 << 20 })
	var open []*bufio.Scanner
	for range 5 {
		var lines *bufio.Scanner
		require.Eventually(t, func() bool {
			lines = p.watchArea()
			return lines != nil
		}, patience, 10*time.Millisecond)
		require.True(t, lines.Scan(), "%v", lines.Err())
		require.Greater(t, len(lines.Bytes()), 3<<20)
		open = append(open, lines)
	}
	close(f.again)
	for i, lines := range open {
		require.True(t, lines.Scan(), "watch %d: %v", i, lines.Err())
	}
}
