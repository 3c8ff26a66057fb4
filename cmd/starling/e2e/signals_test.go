package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// signalled is a real `starling up` with TLS and a log file.
type signalled struct {
	dir                    string
	ingest, matcher, admin string
	authority              *mint.Authority
	pool                   *x509.CertPool
	cmd                    *exec.Cmd
	out                    *output
	ended                  chan struct{}
}

func newSignalled(t *testing.T) *signalled {
	t.Helper()
	addrs, err := freeport.Addrs(3)
	require.NoError(t, err)
	s := &signalled{dir: t.TempDir(), ingest: addrs[0], matcher: addrs[1], admin: addrs[2], pool: x509.NewCertPool()}
	s.authority, err = mint.NewAuthority("test", time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.True(t, s.pool.AppendCertsFromPEM(s.authority.PEM))
	s.certify(t, "first")
	return s
}

func (s *signalled) path(name string) string { return filepath.Join(s.dir, name) }

// certify puts a certificate with this name where the process reads it.
func (s *signalled) certify(t *testing.T, name string) {
	t.Helper()
	cert, key, err := s.authority.Certificate(name, []string{"127.0.0.1"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.path("cert.pem"), cert, 0o600))
	require.NoError(t, os.WriteFile(s.path("key.pem"), key, 0o600))
}

func (s *signalled) start(t *testing.T) {
	t.Helper()
	s.out, s.ended = &output{}, make(chan struct{})
	s.cmd = exec.Command(binary(t), "up", "--dev", "--partitions", "2", "--local-directory", s.path("log"), "--server-drain-timeout", "2m",
		"--log-format", "json", "--log-file", s.path("starling.log"),
		// Only SIGHUP has the files read again.
		"--tls-cert-file", s.path("cert.pem"), "--tls-key-file", s.path("key.pem"), "--tls-reload-interval", "24h",
		"--server-ingest-listen", s.ingest, "--server-matcher-listen", s.matcher, "--server-admin-listen", s.admin, "--server-json-listen", "")
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	require.NoError(t, s.cmd.Start())
	ended := s.ended
	go func() { _ = s.cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); <-ended })
	require.Eventually(t, func() bool { return s.get(t, "/readyz").code == http.StatusOK }, time.Minute, 20*time.Millisecond, "not ready: %s", s.out)
}

// signal sends a signal to the process, which must still run.
func (s *signalled) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(sig), "the process has ended: %s", s.out)
}

// answered is an answer of the admin server, over a connection of its own; its code
// is 0 if there was none.
type answered struct {
	code   int
	body   string
	server string // the name in the server's certificate
}

func (s *signalled) get(t *testing.T, path string) answered {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.pool}}}
	answer, err := client.Get("https://" + s.admin + path)
	if err != nil {
		return answered{body: err.Error()}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answered{answer.StatusCode, string(body), answer.TLS.PeerCertificates[0].Subject.CommonName}
}

func (s *signalled) dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.pool})))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// logged are the lines of a log file, each of which must be JSON.
func logged(t *testing.T, path string) (lines []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	whole := text[:bytes.LastIndexByte(text, '\n')+1] // the last line may be under way
	for line := range strings.Lines(string(whole)) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m), "%s", line)
		lines = append(lines, m)
	}
	return lines
}

// TestSignalsOfARealProcess sends SIGHUP to a process that serves: it must go on in a
// new log file and with new certificates, keep the former ones when the new can't be
// read, and end of none. Of two SIGINTs the first begins a stop, which an open call
// holds up, and the second must end it at once, without a loss of what was
// acknowledged.
func TestSignalsOfARealProcess(t *testing.T) {
	t.Parallel()
	s := newSignalled(t)
	s.start(t)
	file := s.path("starling.log")
	built, err := exec.Command(binary(t), "--version").Output()
	require.NoError(t, err)
	first := logged(t, file)[0]
	require.Equal(t, "starting", first["msg"])
	require.NotEmpty(t, first["version"])
	require.Contains(t, string(built), first["version"])
	require.Equal(t, "first", s.get(t, "/healthz").server)

	hangUp := func(result string) {
		t.Helper()
		s.signal(t, syscall.SIGHUP)
		want := `starling_reloads_total{part="certificates",result="` + result + `"} 1`
		require.Eventually(t, func() bool { return strings.Contains(s.get(t, "/metrics").body, want) }, time.Minute, 10*time.Millisecond, want)
	}
	require.NoError(t, os.Rename(file, file+".1"))
	s.certify(t, "second")
	hangUp("ok")
	require.Equal(t, "second", s.get(t, "/healthz").server)
	part := func(name string) func(map[string]any) bool {
		return func(line map[string]any) bool { return line["part"] == name && line["msg"] == "read again" }
	}
	require.Eventually(t, func() bool { return slices.ContainsFunc(logged(t, file), part("certificates")) }, time.Minute, 10*time.Millisecond, "the new file is not written to")
	before := len(logged(t, file+".1"))

	require.NoError(t, os.WriteFile(s.path("cert.pem"), []byte("no certificate"), 0o600))
	hangUp("failed")
	require.Equal(t, "second", s.get(t, "/healthz").server, "what was in force stays")
	for range 20 {
		s.signal(t, syscall.SIGHUP)
	}
	s.certify(t, "third")
	require.Eventually(t, func() bool {
		s.signal(t, syscall.SIGHUP)
		return s.get(t, "/readyz").server == "third"
	}, time.Minute, 10*time.Millisecond, "SIGHUP ends the process, or is lost: %s", s.out)
	require.Equal(t, http.StatusOK, s.get(t, "/readyz").code)
	require.Len(t, logged(t, file+".1"), before, "the former file must not be written to")

	_, err = starlingv1.NewIngestServiceClient(s.dial(t, s.ingest)).SendReport(t.Context(), &starlingv1.SendReportRequest{Report: reportOf("acknowledged")})
	require.NoError(t, err)
	s.interruptTwice(t)

	s.start(t)
	require.Eventually(t, func() bool {
		_, err := starlingv1.NewFleetServiceClient(s.dial(t, s.matcher)).GetVehicle(t.Context(), &starlingv1.GetVehicleRequest{Name: "vehicles/acknowledged"})
		return err == nil
	}, time.Minute, 20*time.Millisecond, "an acknowledged report is lost")
	s.signal(t, syscall.SIGTERM)
	<-s.ended
	require.Zero(t, s.cmd.ProcessState.ExitCode(), "%s", s.out)
}

// interruptTwice sends SIGINT while a call is open that its client never ends, waits
// until the process stops, and sends another.
func (s *signalled) interruptTwice(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	call, err := reflection.NewServerReflectionClient(s.dial(t, s.ingest)).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	require.NoError(t, call.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}))
	_, err = call.Recv()
	require.NoError(t, err)

	s.signal(t, syscall.SIGINT)
	require.Eventually(t, func() bool {
		answer := s.get(t, "/readyz")
		return answer.code == http.StatusServiceUnavailable && strings.Contains(answer.body, "stopping")
	}, 30*time.Second, 10*time.Millisecond, "the first SIGINT begins no stop")
	require.Equal(t, http.StatusOK, s.get(t, "/healthz").code, "the open call holds the stop up for a minute")
	again := time.Now()
	s.signal(t, syscall.SIGINT)
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		require.FailNow(t, "the second SIGINT does not end the process")
	}
	require.Less(t, time.Since(again), 20*time.Second, "the stop would have taken a minute")
	status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	require.True(t, status.Signaled() && status.Signal() == syscall.SIGINT, "it ended with %v: %s", s.cmd.ProcessState, s.out)
}
