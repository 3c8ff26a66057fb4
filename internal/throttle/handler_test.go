package throttle

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
)

func lines(out *strings.Builder) int { return strings.Count(out.String(), "\n") }

func TestRepeatedWarningsAreSuppressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := slog.New(NewHandler(slog.NewTextHandler(&out, nil)))
		for i := range 100 {
			log.Warn("the disk is slow", "n", i)
		}
		require.Equal(t, 5, lines(&out), "of lines that differ in their own attributes alone")
		log.Error("the disk is slow")
		log.With("component", "other").Warn("the disk is slow")
		log.WithGroup("other").Warn("the disk is slow")
		log.Warn("another message")
		require.Equal(t, 9, lines(&out), "another level, logger or message")
		for range 100 {
			log.Info("the disk is slow")
		}
		require.Equal(t, 109, lines(&out), "info is never suppressed")

		out.Reset()
		time.Sleep(handlerInterval)
		log.Warn("the disk is slow", "error", errors.New("x"))
		require.Equal(t, 1, lines(&out))
		require.Contains(t, out.String(), "alike_suppressed=95")
		alarmtest.Reads(t, out.String(), "alike_suppressed")
		out.Reset()
		log.Warn("the disk is slow")
		require.NotContains(t, out.String(), "alike_suppressed")
	})
}

func TestKindsAreBounded(t *testing.T) {
	log := slog.New(NewHandler(slog.NewTextHandler(&strings.Builder{}, nil)))
	h := log.Handler().(*Handler)
	for i := range 5 * handlerKinds {
		log.Warn(fmt.Sprint("message ", i))
		require.LessOrEqual(t, len(h.kinds.seen), handlerKinds)
	}
}

// What a stranger does again and again is one kind of line, whatever a library
// writes of it.
func TestLinesOfStrangersAreAlike(t *testing.T) {
	for _, line := range []string{
		"http: TLS handshake error from 127.0.0.1:%d: EOF", "http: TLS handshake error from [fe80::%x]:1: EOF",
		"[transport][server-transport 0x%x] invalid header field name", "invalid header field name \"X%d\"",
	} {
		synctest.Test(t, func(t *testing.T) {
			var out strings.Builder
			log := slog.New(NewHandler(slog.NewTextHandler(&out, nil)))
			for i := range 100 {
				log.Warn(fmt.Sprintf(line, i))
			}
			require.Equal(t, 5, lines(&out), line)
			log.Warn("http: Accept error")
			log.Warn("")
			require.Equal(t, 7, lines(&out))
		})
	}
}
