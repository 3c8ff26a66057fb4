// Package cli holds the commands of the starling binary: what they take, what
// they print, and how they exit.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/conform"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/cmd/starling/cli/past"
	"github.com/starling-fleet/starling/internal/version"
)

// Exit codes. They are part of the interface and listed in the root help.
const (
	exitOK     = 0
	exitFailed = 1 // something went wrong while running
	exitUsage  = 2 // wrong usage or configuration
	exitNo     = 3 // the command ran, and its answer is no
)

// IO is a command's world.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	Environ  []string
}

// codedError carries an exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// usage marks an error as the caller's.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &codedError{exitUsage, err}
}

// answerNo reports that the command did its work and the answer is no.
func answerNo(format string, args ...any) error {
	return &codedError{exitNo, fmt.Errorf(format, args...)}
}

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, args []string, world IO) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	written := &output{to: world.Out, stop: cancel}
	out, errs := &quoting{to: written}, &quoting{to: world.Err}
	defer out.flush()
	defer errs.flush()
	world.Out, world.Err = out, errs
	root := newRoot(world)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if written.closed.Load() && (errors.Is(err, syscall.EPIPE) || errors.Is(err, context.Canceled)) {
		err = nil
	}
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(world.Err, "starling: %v\n", err)
	var coded *codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailed
}

// output is standard output. When whoever reads it has gone, as after
// `starling demo | head`, the command is stopped as by Ctrl-C.
type output struct {
	to     io.Writer
	stop   context.CancelFunc
	closed atomic.Bool
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		o.closed.Store(true)
		o.stop()
	}
	return n, err
}

func newRoot(world IO) *cobra.Command {
	root := &cobra.Command{
		Use:   "starling",
		Short: "The whole way of a fleet's GPS fixes: from the driver's phone to the nearest vehicle",
		Long: `Starling takes the GPS fixes of a whole fleet, keeps every one it has
acknowledged, turns them into clean positions and answers which vehicles are
nearest.

Start here:
  starling demo          everything in one process, with a simulated fleet
  starling up --dev      everything in one process, for your own drivers
  starling nearest --help

Exit codes:
  0  success
  1  something failed: no connection, no answer in time, a disk, a server
  2  wrong usage or configuration: a flag, an argument, a setting or a request
     that can't be right, a file or log that is not there
  3  the command ran and its answer is no: a vehicle that is not known, an account
     that does not close, a check that found something`,
		Version:       version.Read().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(world.In)
	root.SetOut(world.Out)
	root.SetErr(world.Err)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand(root))
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run Starling:"},
		&cobra.Group{ID: "drive", Title: "Drive it:"},
		&cobra.Group{ID: "ask", Title: "Ask it:"},
	)
	accessFlags(root, world.Environ)
	root.AddCommand(roleCommands(world)...)
	for _, role := range root.Commands() {
		if role.Name() == "rides" {
			role.AddCommand(newRidesRelease(world), newRidesAbandon(world))
		}
	}
	root.AddCommand(
		newDemo(world), newTopics(world), newLog(world), newDLQ(world), newConfig(world), newToken(world),
		newSimulate(world), newSend(world), newReplay(world), newFilter(world), newReprocess(world),
		conform.New(conform.World{Out: world.Out, Err: world.Err, Environ: world.Environ, Usage: usage, No: answerNo, Print: dialect.Print}),
		newStatus(world), newGet(world), newList(world), newArea(world), newNearest(world), newSupply(world), newWatch(world), newExplain(world), newRide(world), newDevices(world),
		newVersion(world),
	)
	root.AddCommand(past.Commands(past.World{
		Out: world.Out, Err: world.Err, Connect: connect, Usage: usage, Args: usageArgs, Asked: asked, No: answerNo, Place: parsePlace, Print: dialect.Print,
	})...)
	return root
}

// usageArgs gives a wrong number of arguments the exit code of wrong usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage(fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath()))
		}
		return nil
	}
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "Print the result as JSON: protobuf's mapping, one object a line.")
}

func newVersion(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print which build this is",
		Args:  usageArgs(cobra.NoArgs),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *asJSON {
			return dialect.Print(world.Out, version.Read())
		}
		_, err := fmt.Fprintln(world.Out, version.Read())
		return err
	}
	return cmd
}

// quoting writes what commands print with everything escaped that a terminal may
// take for a command, or hide: ids, tags and messages of servers are what others
// sent. In JSON the escapes are JSON's own. Only line ends and tabs pass.
type quoting struct {
	to   io.Writer
	rest []byte // the beginning of a character whose end has not been written yet
}

// Write implements io.Writer.
func (q *quoting) Write(p []byte) (int, error) {
	text := p
	if len(q.rest) > 0 {
		text = append(q.rest, p...)
		q.rest = nil
	}
	plain := 0
	for plain < len(text) && isPlain(text[plain]) {
		plain++
	}
	out := text[:plain:plain]
	for rest := text[plain:]; len(rest) > 0; {
		if !utf8.FullRune(rest) {
			q.rest = append([]byte{}, rest...)
			break
		}
		r, size := utf8.DecodeRune(rest)
		out = appendQuoted(out, r, rest[:size])
		rest = rest[size:]
	}
	if _, err := q.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what is no whole character.
func (q *quoting) flush() {
	for _, b := range q.rest {
		_, _ = fmt.Fprintf(q.to, `\x%02x`, b)
	}
	q.rest = nil
}

func isPlain(b byte) bool { return b >= ' ' && b < 0x7f || b == '\n' || b == '\t' }

// appendQuoted appends a character, which has been read from some bytes.
func appendQuoted(out []byte, r rune, from []byte) []byte {
	switch {
	case r < utf8.RuneSelf && isPlain(byte(r)), r >= utf8.RuneSelf && unicode.IsGraphic(r) && (r != utf8.RuneError || len(from) > 1):
		return append(out, from...)
	case r == utf8.RuneError:
		return fmt.Appendf(out, `\x%02x`, from[0])
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return fmt.Appendf(out, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}
