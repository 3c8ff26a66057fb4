package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/throttle"
)

// dialFault finds in gRPC's text why a connection could not be made.
var dialFault = regexp.MustCompile(`(?:Error while dialing: |error reading server preface: |authentication handshake failed: )(?:dial \w+ [^ ]+: )?(?:connect: )?([^"]+)`)

// explain writes out an error for a person: of a server's, the rule that was broken,
// or why there is no connection.
func explain(err error) error {
	var from interface{ GRPCStatus() *status.Status }
	text := err.Error()
	if errors.As(err, &from) {
		if inner, ok := from.(error); ok {
			text = strings.Replace(text, inner.Error(), statusText(from.GRPCStatus()), 1)
		}
	}
	text = strings.ReplaceAll(text, context.DeadlineExceeded.Error(), "no answer in time")
	return &explained{text, err}
}

// explained is an error with another text.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

func statusText(s *status.Status) string {
	message := s.Message()
	if found := dialFault.FindStringSubmatch(message); found != nil {
		if withoutTLS(found[1]) {
			return "no connection: " + errServerHasNot.Error()
		}
		return "no connection: " + found[1]
	}
	if s.Code() == codes.InvalidArgument || s.Code() == codes.NotFound || s.Code() == codes.DeadlineExceeded && len(s.Details()) == 0 {
		return message
	}
	reason := s.Code().String()
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason()
		}
	}
	return reason + ": " + message
}

// asked gives a failed question to a server its exit code and its text: what the
// server refuses because of the request is wrong usage, what it does not know is
// an answer.
func asked(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	out := fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), explain(err))
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange:
		return usage(out)
	case codes.NotFound:
		return &codedError{exitNo, out}
	default:
		return out
	}
}

// setupError gives the exit code of wrong configuration to a log that is set
// otherwise than the configuration.
func setupError(err error) error {
	if errors.Is(err, eventlog.ErrConfiguredOtherwise) {
		return usage(err)
	}
	return err
}

// flagError words a flag's fault without the names of Go's functions.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if rule := config.TypeRule(invalid.GetFlag().Value.Type()); rule != "" {
			err = fmt.Errorf("--%s is %q: %s", invalid.GetFlag().Name, invalid.GetValue(), rule)
		}
	}
	return usage(fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath()))
}

// helpCommand is cobra's help, but for one thing: a command that there is not is
// wrong usage.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == nil || len(rest) > 0 {
				return usage(fmt.Errorf("there is no command %q (`starling help` lists them)", strings.Join(args, " ")))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// positive is the rule of a wait.
func positive(flag string, value interface{ Seconds() float64 }) error {
	if value.Seconds() <= 0 {
		return usage(fmt.Errorf("--%s is %v: must be positive", flag, value))
	}
	return nil
}

// troubleInterval is the least time between two lines about the same trouble.
const troubleInterval = 10 * time.Second

// troubles prints what keeps reports from being taken, each kind at once and then
// once in a while. It is safe for concurrent use.
type troubles struct {
	w    io.Writer
	addr string

	mu    sync.Mutex
	known map[string]*throttle.Throttle // by the text without its numbers
}

// digits are what two lines of the same kind may differ in.
var digits = regexp.MustCompile(`[0-9]+`)

// maxTroubles bounds how many kinds are distinguished.
const maxTroubles = 100

func (t *troubles) report(err error) {
	text := explain(err).Error()
	kind := digits.ReplaceAllString(text, "0")
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= maxTroubles {
		t.known = map[string]*throttle.Throttle{}
	}
	if t.known[kind] == nil {
		t.known[kind] = &throttle.Throttle{Interval: troubleInterval}
	}
	more, ok := t.known[kind].Pass()
	if !ok {
		return
	}
	if more > 0 {
		text += fmt.Sprintf(" (and %d times since the last line)", more)
	}
	_, _ = fmt.Fprintf(t.w, "ingest at %s: %s\n", t.addr, text)
}

// What a command reports when it and its server disagree about TLS.
var (
	errServerHasTLS = errors.New("the server speaks TLS, and this command does not: set --server-ca-file")
	errServerHasNot = errors.New("the server does not speak TLS: leave --server-ca-file out")
)

// probeTimeout bounds the question whether a server speaks TLS.
const probeTimeout = 2 * time.Second

// dialPlain connects without TLS. A server that speaks TLS closes such a connection
// without a word, of which gRPC would report nothing but EOF.
func dialPlain(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &plainConn{Conn: conn, addr: addr}, nil
}

// plainConn asks why its server closes it unheard.
type plainConn struct {
	net.Conn
	addr  string
	heard atomic.Bool
}

// Read implements net.Conn.
func (c *plainConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	var fault net.Error
	timedOut := errors.As(err, &fault) && fault.Timeout()
	if err != nil && !c.heard.Load() && !errors.Is(err, net.ErrClosed) && !timedOut && speaksTLS(c.addr) {
		return n, errServerHasTLS
	}
	return n, err
}

// speaksTLS reports whether a server at an address answers a TLS handshake. Whose
// certificate it shows does not matter: nothing is sent to it.
func speaksTLS(addr string) bool {
	dialer := &net.Dialer{Timeout: probeTimeout}
	conn, err := tls.DialWithDialer(dialer, "tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}) //nolint:gosec // a question, not a connection
	if err == nil {
		_ = conn.Close()
		return true
	}
	var alert tls.AlertError
	return errors.As(err, &alert)
}

// withoutTLS reports whether a fault is that of a TLS client at a server without.
func withoutTLS(text string) bool {
	return strings.Contains(text, "first record does not look like a TLS handshake") || strings.Contains(text, "server gave HTTP response to HTTPS client")
}

// plainToTLS reports whether an HTTP server answers that it speaks TLS.
func plainToTLS(answer *http.Response, text []byte) bool {
	return answer.StatusCode == http.StatusBadRequest && strings.Contains(string(text), "HTTP request to an HTTPS server")
}
