// Package kafkatest runs a real Apache Kafka for tests: one broker or three,
// in KRaft mode, on free loopback ports and in a directory of its own. Maven
// brings the jars, pinned by pom.xml, into a cache outside the repository:
// $STARLING_CACHE/kafka-4.1.1, or starling/kafka-4.1.1 below the user's cache
// directory. It needs java (17 or newer) and, the first time, mvn.
//
// The brokers die with the process that started them, whatever ends it
// (Linux: PR_SET_PDEATHSIG), so a panic or a kill leaves none behind.
package kafkatest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Version is the version of Apache Kafka that pom.xml pins.
const Version = "4.1.1"

//go:embed pom.xml
var pomXML []byte

// ErrNotInstalled means that the machine lacks what Kafka needs.
var ErrNotInstalled = errors.New("kafkatest: Kafka can't run here")

// Need ends the test unless Kafka can run here: it skips on a machine that lacks
// Java or Maven, and fails there in CI, where these tests must run.
func Need(tb testing.TB) {
	tb.Helper()
	if _, err := Install(context.Background()); errors.Is(err, ErrNotInstalled) && os.Getenv("CI") != "true" {
		tb.Skip(err)
	} else if err != nil {
		tb.Fatal(err)
	}
}

// Install makes sure that the jars are in the cache and returns their
// directory. Processes that install at once wait for each other.
func Install(ctx context.Context) (libDir string, err error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("%w: java is not installed; on Debian: apt-get install openjdk-17-jre-headless maven", ErrNotInstalled)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("kafkatest: create cache: %w", err)
	}
	unlock, err := lockFile(filepath.Join(cache, "install.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	libDir = filepath.Join(cache, "lib")
	if _, err := os.Stat(libDir); err == nil {
		return libDir, nil
	}
	return libDir, copyJars(ctx, cache, libDir)
}

// copyJars has Maven copy the jars beside libDir and then renames the whole
// directory, so that an interrupted installation is never taken for a full one.
func copyJars(ctx context.Context, cache, libDir string) error {
	if _, err := exec.LookPath("mvn"); err != nil {
		return fmt.Errorf("%w: mvn is not installed; on Debian: apt-get install maven", ErrNotInstalled)
	}
	work, err := os.MkdirTemp(cache, "install-")
	if err != nil {
		return fmt.Errorf("kafkatest: create work directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), pomXML, 0o644); err != nil {
		return fmt.Errorf("kafkatest: write pom: %w", err)
	}
	jars := filepath.Join(work, "lib")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory="+jars)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kafkatest: mvn dependency:copy-dependencies: %w\n%s", err, out)
	}
	if err := os.Rename(jars, libDir); err != nil {
		return fmt.Errorf("kafkatest: keep jars: %w", err)
	}
	return nil
}

func cacheDir() (string, error) {
	name := "kafka-" + Version
	if dir := os.Getenv("STARLING_CACHE"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("kafkatest: no cache directory, set STARLING_CACHE: %w", err)
	}
	return filepath.Join(dir, "starling", name), nil
}

// lockFile takes an advisory lock that the kernel releases when the process
// dies.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("kafkatest: open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("kafkatest: lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
