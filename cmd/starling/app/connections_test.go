package app

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
)

func TestShareDescriptors(t *testing.T) {
	for name, c := range map[string]struct {
		limit int
		local bool
		most  int
		want  descriptors
		err   string
	}{
		"small":      {300, true, 0, descriptors{storeFiles: 160, connections: 84}, ""},
		"usual":      {1024, true, 0, descriptors{storeFiles: 341, connections: 627}, ""},
		"large":      {1 << 20, true, 0, descriptors{storeFiles: 1500, connections: 1<<20 - 1556}, ""},
		"configured": {1024, true, 100, descriptors{storeFiles: 341, connections: 100}, ""},
		"kafka":      {256, false, 0, descriptors{connections: 136}, ""},
		"too small":  {200, true, 0, descriptors{}, "the process may open 200 files (ulimit -n): it needs at least 248"},
	} {
		got, err := shareDescriptors(c.limit, c.local, c.most)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
		require.LessOrEqual(t, got.storeFiles+got.connections+ownDescriptors+adminConnections, c.limit, name)
	}
}

// echo serves what it accepts until the listener closes.
func echo(t *testing.T, l net.Listener) {
	t.Helper()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(onlyWriter{conn}, onlyReader{conn}); _ = conn.Close() }()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
}

func counted(t *testing.T, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// talk reports whether a connection is served.
func talk(conn net.Conn) bool {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err == nil
}

// Who talks keeps its connection, who comes when all talk is refused, and one
// that has been silent gives way; two listeners share the limit.
func TestConnectionsAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	var logged bytes.Buffer
	all := newConnections(3, newConnectionMetrics(reg), slog.New(slog.NewTextHandler(&logged, nil)))
	listeners := make([]net.Listener, 2)
	for i, name := range []string{"ingest", "matcher"} {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listeners[i] = all.on(name, inner)
		echo(t, listeners[i])
	}
	open := func(want int) {
		t.Helper()
		require.Eventually(t, func() bool { all.mu.Lock(); defer all.mu.Unlock(); return all.open == want }, 10*time.Second, time.Millisecond)
	}
	a, b := dial(t, listeners[0]), dial(t, listeners[1])
	require.True(t, talk(a))
	require.True(t, talk(b))
	silent := dial(t, listeners[0])
	open(3)
	require.False(t, talk(dial(t, listeners[1])), "nobody has been silent for long")

	all.mu.Lock()
	all.silent.Front().Value.(*connection).accepted = time.Now().Add(-2 * silentGrace)
	all.mu.Unlock()
	c := dial(t, listeners[1])
	require.True(t, talk(c), "the silent one gives way")
	require.False(t, talk(silent))
	for range 20 {
		require.False(t, talk(dial(t, listeners[0])), "all talk")
	}
	require.True(t, talk(a))
	require.True(t, talk(b))
	open(3)
	require.NoError(t, a.Close())
	open(2)
	require.True(t, talk(dial(t, listeners[0])))
	require.Equal(t, 1, strings.Count(logged.String(), "\n"), "one line in a while: %s", logged.String())
	require.Equal(t, 21.0, counted(t, all.metrics.refused.WithLabelValues("ingest", refusedFull))+counted(t, all.metrics.refused.WithLabelValues("matcher", refusedFull)))
	require.Equal(t, 1.0, counted(t, all.metrics.refused.WithLabelValues("ingest", refusedSilent)))
	alarmtest.Raised(t, reg, "starling_server_refused_connections_total")
}
