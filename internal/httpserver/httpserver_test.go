package httpserver_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/httpserver"
)

const patience = 20 * time.Second

type running struct {
	base  string
	stop  context.CancelFunc
	ended chan error
	reg   *prometheus.Registry
	log   *bytes.Buffer
}

func start(t *testing.T, h http.Handler, drain time.Duration) *running {
	t.Helper()
	r := &running{ended: make(chan error, 1), reg: prometheus.NewRegistry(), log: &bytes.Buffer{}}
	group, err := httpserver.NewGroup(httpserver.Deps{Registerer: r.reg, Logger: slog.New(slog.NewTextHandler(r.log, nil))})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.base = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		r.ended <- group.Serve(ctx, l, h, httpserver.Options{Name: "test", ReadTimeout: patience, IdleTimeout: patience, Drain: drain})
	}()
	t.Cleanup(cancel)
	return r
}

func (r *running) awaitEnd(t *testing.T) {
	t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		require.NoError(t, err)
	case <-time.After(patience):
		require.FailNow(t, "Serve does not end")
	}
}

func TestAPanicIsAnswered500(t *testing.T) {
	r := start(t, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/bad" {
			panic("broken")
		}
	}), time.Second)
	resp, err := http.Get(r.base + "/bad")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
	require.NotContains(t, string(body), "broken")
	resp, err = http.Get(r.base + "/good")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	r.awaitEnd(t)
	require.Equal(t, 1, strings.Count(r.log.String(), "handler panicked"))
	require.NoError(t, testutil.GatherAndCompare(r.reg, strings.NewReader(`
# HELP starling_http_panics_total Requests whose handler panicked, by server. Each is logged with its stack and answered 500.
# TYPE starling_http_panics_total counter
starling_http_panics_total{server="test"} 1
`)))
	alarmtest.Raised(t, r.reg, "starling_http_panics_total")
}

func TestAStopLetsRequestsEndAndCutsOffTheOthers(t *testing.T) {
	for name, drain := range map[string]time.Duration{"ends": patience, "is cut off": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			begun, release := make(chan struct{}), make(chan struct{})
			r := start(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				close(begun)
				select {
				case <-release:
				case <-req.Context().Done():
				}
				_, _ = w.Write([]byte("done"))
			}), drain)
			answered := make(chan error, 1)
			go func() {
				resp, err := http.Get(r.base)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
				answered <- err
			}()
			<-begun
			r.stop()
			if drain == patience {
				close(release)
				require.NoError(t, <-answered)
			} else {
				require.Error(t, <-answered)
			}
			r.awaitEnd(t)
		})
	}
}

// Behind a request that has both a length and chunks nothing is read: a proxy may
// have taken it for the body.
func TestNothingFollowsChunks(t *testing.T) {
	var served atomic.Int32
	r := start(t, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		served.Add(1)
		_, _ = io.Copy(io.Discard, req.Body)
	}), time.Second)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	const next = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
	_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", len("0\r\n\r\n"+next), next)
	require.NoError(t, err)
	answer, err := io.ReadAll(conn) // until the server hangs up
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(answer), "HTTP/1.1 200"), "%s", answer)
	require.Equal(t, int32(1), served.Load())
}
