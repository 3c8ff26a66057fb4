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
	"testing"

	"github.com/starling-fleet/starling/internal/testcache"
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
	return testcache.Install("kafka", Version, "lib", func(work string) (string, error) { return copyJars(ctx, work) })
}

// copyJars has Maven copy the jars into a directory within work, which it returns.
func copyJars(ctx context.Context, work string) (string, error) {
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", fmt.Errorf("%w: mvn is not installed; on Debian: apt-get install maven", ErrNotInstalled)
	}
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), pomXML, 0o644); err != nil {
		return "", fmt.Errorf("kafkatest: write pom: %w", err)
	}
	jars := filepath.Join(work, "lib")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory="+jars)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("kafkatest: mvn dependency:copy-dependencies: %w\n%s", err, out)
	}
	return jars, nil
}
