package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/starling-fleet/starling/cmd/starling/app"
)

// patience is far more than anything here takes on a loaded machine.
const patience = time.Minute

// process is a whole Starling, as `starling up` runs it.
type process struct {
	*app.App
	t    *testing.T
	base string
	stop func()
}

func start(t *testing.T, change ...func(*app.Config)) *process {
	t.Helper()
	cfg := app.DefaultConfig()
	cfg.Dev = true
	cfg.Partitions = 2
	cfg.Local.Directory = t.TempDir()
	cfg.Server.IngestListen, cfg.Server.MatcherListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Server.JSONListen, cfg.Server.AdminListen = "127.0.0.1:0", ""
	for _, c := range change {
		c(&cfg)
	}
	a, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- a.Run(ctx)
		close(ended)
	}()
	p := &process{App: a, t: t, stop: func() {
		cancel()
		if err, open := <-ended; open {
			require.NoError(t, err)
		}
	}}
	t.Cleanup(p.stop)
	select {
	case <-a.Ready():
	case err := <-ended:
		t.Fatalf("the process ended before it was ready: %v", err)
	case <-time.After(patience):
		t.Fatal("the process was not ready in time")
	}
	p.base = "http://" + a.JSONAddr()
	return p
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request. A body makes it a POST of JSON.
func (p *process) do(path, body string, change ...func(*http.Request)) answer {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.base+path, nil)
	require.NoError(p.t, err)
	if body != "" {
		req, err = http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.base+path, strings.NewReader(body))
		require.NoError(p.t, err)
		req.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(req)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	return answer{resp.StatusCode, resp.Header, got}
}

// object is the answer's body as JSON.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal(a.body, &v), "%s", a.body)
	return v
}

// at follows keys and indexes into decoded JSON.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, ok := v.(map[string]any)
			require.True(t, ok, "%v is no object", v)
			v = m[s]
		case int:
			l, ok := v.([]any)
			require.True(t, ok && s < len(l), "%v has no element %d", v, s)
			v = l[s]
		}
	}
	return v
}

// statusOf reads an error, which must be a google.rpc.Status with nothing else.
func statusOf(t *testing.T, body []byte) *spb.Status {
	t.Helper()
	st := &spb.Status{}
	require.NoError(t, protojson.Unmarshal(bytes.TrimSpace(body), st), "%s", body)
	return st
}
