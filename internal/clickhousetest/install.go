// Package clickhousetest runs a real ClickHouse for tests: the engine of the npm
// package @chdb/lib-linux-x64-gnu, which serves the native protocol and HTTP on free
// loopback ports and keeps its data in a directory, so that a test may kill it and
// start it again. It needs npm the first time (node 20 or newer brings it) and a C
// compiler; the engine, 570 MB, goes into a cache outside the repository:
// $STARLING_CACHE/clickhouse-26.7.3-stable.1, or the same below starling in the user's
// cache directory.
//
// A server ends with the process that started it, whatever ends that: its standard
// input is a pipe that closes then (and on Linux PR_SET_PDEATHSIG).
package clickhousetest

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/starling-fleet/starling/internal/testcache"
)

// What is installed: the package, and its checksum as npm states it.
const (
	Version  = "26.7.3-stable.1"
	pack     = "@chdb/lib-linux-x64-gnu@" + Version
	checksum = "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=="
)

//go:embed engine.c.txt
var engineSource string

// ErrNotInstalled means that the machine lacks what the engine needs.
var ErrNotInstalled = errors.New("clickhousetest: ClickHouse can't run here")

// Need ends the test unless ClickHouse can run here: it skips on a machine that
// lacks npm or a C compiler, and fails there in CI, where these tests must run.
func Need(tb testing.TB) {
	tb.Helper()
	if _, err := Install(context.Background()); errors.Is(err, ErrNotInstalled) && os.Getenv("CI") != "true" {
		tb.Skip(err)
	} else if err != nil {
		tb.Fatal(err)
	}
}

// Install makes sure that the engine is in the cache and returns its directory.
// Processes that install at once wait for each other.
func Install(ctx context.Context) (dir string, err error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("%w: there is no package for %s/%s", ErrNotInstalled, runtime.GOOS, runtime.GOARCH)
	}
	return testcache.Install("clickhouse", Version, "engine", func(work string) (string, error) { return assemble(ctx, work) })
}

// assemble puts the engine together in a directory within work, which it returns.
func assemble(ctx context.Context, work string) (string, error) {
	for tool, debian := range map[string]string{"npm": "npm", "cc": "gcc libc6-dev"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%w: %s is not installed; on Debian: apt-get install %s", ErrNotInstalled, tool, debian)
		}
	}
	npm := exec.CommandContext(ctx, "npm", "pack", "--silent", pack)
	npm.Dir = work
	out, err := npm.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("clickhousetest: npm pack %s: %w\n%s", pack, err, out)
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.tgz"))
	if err != nil {
		return "", err
	}
	if len(archives) != 1 {
		return "", fmt.Errorf("clickhousetest: npm pack %s left %d archives, not one", pack, len(archives))
	}
	engine := filepath.Join(work, "engine")
	if err := os.Mkdir(engine, 0o755); err != nil {
		return "", err
	}
	if err := unpack(archives[0], filepath.Join(engine, "libchdb.so")); err != nil {
		return "", fmt.Errorf("clickhousetest: unpack %s: %w", pack, err)
	}
	cc := exec.CommandContext(ctx, "cc", "-O1", "-o", filepath.Join(engine, "engine"), "-x", "c", "-", "-ldl")
	cc.Stdin = strings.NewReader(engineSource)
	if out, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("clickhousetest: compile the engine's process: %w\n%s", err, out)
	}
	return engine, nil
}

// unpack writes the library within an archive to a file, after it has compared the
// archive's checksum.
func unpack(archive, to string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != checksum {
		return fmt.Errorf("its SHA-512 is %s, not %s", got, checksum)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for files := tar.NewReader(zipped); ; {
		header, err := files.Next()
		if err != nil {
			return fmt.Errorf("libchdb.so: %w", err)
		}
		if header.Name != "package/libchdb.so" {
			continue
		}
		library, err := os.Create(to)
		if err != nil {
			return err
		}
		_, err = io.Copy(library, files)
		return errors.Join(err, library.Close())
	}
}
