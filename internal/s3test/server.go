// Package s3test runs a real S3-compatible server for tests: versitygw, which keeps
// objects as files of a directory, checks signatures and serves on a free loopback
// port. It is built of the module tools/s3server, once, into a cache outside the
// repository: $STARLING_CACHE/versitygw-VERSION, or the same below starling in the
// user's cache directory.
//
// A server ends with the process that started it.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/testcache"
)

// Version is the server's; tools/s3server has the same.
const Version = "v1.8.0"

// Keys and region of the server.
const (
	AccessKey = "starling"
	SecretKey = "not-for-production"
	Region    = "us-east-1"
	// Bucket is there from the start.
	Bucket = "history"
)

const program = "github.com/versity/versitygw/cmd/versitygw"

// install returns the server's program.
func install(ctx context.Context) (string, error) {
	dir, err := testcache.Install("versitygw", Version, "bin", func(work string) (string, error) {
		root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
		if err != nil {
			return "", fmt.Errorf("s3test: find the module's root: %w", err)
		}
		bin := filepath.Join(work, "bin")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(bin, "versitygw"), program)
		build.Dir = filepath.Join(strings.TrimSpace(string(root)), "tools", "s3server")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("s3test: build versitygw: %w\n%s", err, out)
		}
		return bin, nil
	})
	return filepath.Join(dir, "versitygw"), err
}

// Server is a server that may be killed and started again at the same address with
// what it has kept.
type Server struct {
	program, dir, addr string

	cmd    *exec.Cmd
	exited <-chan struct{} // closed when the running process has ended
	output bytes.Buffer
}

// Start runs a server with an empty Bucket until the test ends, and sets the
// environment by which the AWS tools find it.
func Start(t *testing.T) *Server {
	t.Helper()
	program, err := install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := freeport.Addrs(1)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{program: program, dir: t.TempDir(), addr: addrs[0]}
	t.Cleanup(s.Kill)
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	client, err := minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: Region})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.MakeBucket(t.Context(), Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://"+s.addr)
	t.Setenv("AWS_ENDPOINT_URL_S3", "")
	t.Setenv("AWS_REGION", Region)
	t.Setenv("AWS_ACCESS_KEY_ID", AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", SecretKey)
	return s
}

// Dir is where the server keeps objects, each as a file.
func (s *Server) Dir() string { return filepath.Join(s.dir, "objects") }

// Kill ends the server with SIGKILL. What it has kept stays.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// Restart starts the server after Kill and returns when it answers.
func (s *Server) Restart() error {
	meta := filepath.Join(s.dir, "meta") // not every file system has attributes
	for _, dir := range []string{s.Dir(), meta} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("s3test: %w", err)
		}
	}
	cmd := exec.Command(s.program, "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--port", s.addr, "posix", "--sidecar", meta, s.Dir())
	s.output.Reset()
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	exited, err := testcache.Start(cmd)
	if err != nil {
		return fmt.Errorf("s3test: start versitygw: %w", err)
	}
	s.cmd, s.exited = cmd, exited
	if err := testcache.AwaitTCP(s.addr, exited, time.Minute); err != nil {
		s.Kill()
		return fmt.Errorf("s3test: versitygw: %w\n%s", err, s.output.String())
	}
	return nil
}
