package process

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/freeport"
)

// The test binary is its own child: the environment selects what it does.
func TestMain(m *testing.M) {
	switch os.Getenv("STARLING_TEST_CHILD") {
	case "serve":
		serve()
	case "fail":
		_, _ = os.Stderr.WriteString("out of luck\n")
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// serve answers until it is stopped.
func serve() {
	http.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("a_total{x=\"1\"} 1\na_total{x=\"2\"} 2\n"))
	})
	_ = http.ListenAndServe(os.Getenv("STARLING_TEST_ADMIN"), nil)
	os.Exit(1)
}

func child(t *testing.T, mode string, output *bytes.Buffer) *Process {
	t.Helper()
	addrs, err := freeport.Addrs(1)
	require.NoError(t, err)
	t.Setenv("STARLING_TEST_CHILD", mode)
	t.Setenv("STARLING_TEST_ADMIN", addrs[0])
	spec := Spec{Name: "the child", Command: []string{os.Args[0]}, Admin: addrs[0]}
	if output != nil {
		spec.Output = output
	}
	p := New(spec)
	t.Cleanup(p.Kill)
	return p
}

func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestAServingChildIsKilledAndStartedAgain(t *testing.T) {
	p := child(t, "serve", nil)
	require.False(t, p.Started())
	p.Kill() // nothing to do
	for range 2 {
		require.NoError(t, p.Start())
		took, err := p.WaitReady(patience(t))
		require.NoError(t, err)
		require.Positive(t, took)
		m, err := p.Metrics(patience(t))
		require.NoError(t, err)
		require.Equal(t, map[string]float64{"a_total": 3}, m)
		_, err = p.Get(patience(t), "/nowhere")
		require.ErrorIs(t, err, ErrNotOK)
		require.False(t, p.EndedByItself())
		p.Kill()
		<-p.Ended()
		require.False(t, p.EndedByItself(), "the test killed it")
		require.False(t, p.Ready(patience(t)))
	}
	require.NoError(t, p.Start())
	require.Error(t, p.Stop(patience(t)), "SIGTERM ends it, which is no success")
}

func TestAChildThatFailsIsNoticed(t *testing.T) {
	var output bytes.Buffer
	p := child(t, "fail", &output)
	require.NoError(t, p.Start())
	_, err := p.WaitReady(patience(t))
	require.ErrorContains(t, err, "ended before it served: out of luck")
	require.True(t, p.EndedByItself())
	require.Equal(t, "out of luck", p.LastOutput())
	require.Equal(t, "out of luck\n", output.String())
	require.Error(t, p.Signal(syscall.SIGTERM, true))
	missing := New(Spec{Name: "nothing", Command: []string{"/nonexistent/binary"}})
	require.ErrorContains(t, missing.Start(), "start nothing")
}

func TestAChildsUsage(t *testing.T) {
	p := child(t, "serve", nil)
	require.NoError(t, p.Start())
	_, err := p.WaitReady(patience(t))
	require.NoError(t, err)
	if runtime.GOOS != "linux" {
		t.Skip("it is read from /proc")
	}
	require.Positive(t, p.Memory("VmRSS"))
	require.EqualValues(t, -1, p.Memory("VmNonsense"))
	before, err := p.CPU()
	require.NoError(t, err)
	require.Less(t, before, time.Minute)
	after := before
	for ctx := patience(t); after == before; {
		require.NoError(t, ctx.Err(), "a child that answers must use CPU")
		_, err := p.Metrics(ctx)
		require.NoError(t, err)
		after, err = p.CPU()
		require.NoError(t, err)
	}
	require.Greater(t, after, before)
}

func TestParseMetricsSumsOverLabels(t *testing.T) {
	got, err := parseMetrics(strings.NewReader(`# HELP a_total Help with {braces} 1.
# TYPE a_total counter
a_total{result="new"} 3
a_total{result="old, or } odd"} 1.5e3
b 7
`))
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"a_total": 1503, "b": 7}, got)
	for _, bad := range []string{"a_total", "a_total x"} {
		_, err := parseMetrics(strings.NewReader(bad))
		require.ErrorContains(t, err, bad)
	}
}
