// Package past has the commands that ask history: track, visits and heatmap.
package past

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// defaultServer is where `starling up` serves history.
const defaultServer = "127.0.0.1:7606"

// defaultSpan is how much a server is asked for when no beginning is named: it
// bounds how much one call may ask about.
const defaultSpan = 24 * time.Hour

// World is what the commands have in common with the binary's others.
type World struct {
	Out, Err io.Writer
	// Connect opens a connection to a server of Starling.
	Connect func(cmd *cobra.Command, addr string) (*grpc.ClientConn, error)
	// Usage gives an error the exit code of wrong usage, Args does so for a rule of
	// arguments.
	Usage func(error) error
	Args  func(cobra.PositionalArgs) cobra.PositionalArgs
	// Asked words what a server answered to a question.
	Asked func(err error, format string, args ...any) error
	// No is the answer of a command that ran and found nothing.
	No func(format string, args ...any) error
	// Place reads a flag's latitude and longitude.
	Place func(flag, text string) (*starlingv1.Place, error)
	// Print prints a value as --json has it.
	Print func(w io.Writer, v any) error
}

// Commands are the commands.
func Commands(w World) []*cobra.Command {
	return []*cobra.Command{newTrack(w), newVisits(w), newHeatmap(w)}
}

// asker is what all of the commands take: whom to ask, and about which times.
type asker struct {
	World
	cmd      *cobra.Command
	lake     *string
	addr     *string
	timeout  *time.Duration
	from, to *string
}

func (w World) asker(cmd *cobra.Command) *asker {
	f := cmd.Flags()
	return &asker{
		World: w, cmd: cmd,
		lake:    f.String("lake", "", "Read the lake in this directory (history.lake_dir) in place of asking a server."),
		addr:    f.String("history", defaultServer, "Address of the server for history (gRPC)."),
		timeout: f.Duration("timeout", 10*time.Minute, "How long to wait for the whole answer."),
		from:    f.String("from", "", "First device time, RFC 3339; if empty a day before --to or, with --lake, the first there is."),
		to:      f.String("to", "", "Device time behind the last, RFC 3339; if empty now or, with --lake, behind the last there is."),
	}
}

// times returns the range of time that is asked about.
func (a *asker) times(now time.Time) (fromMS, toMS int64, err error) {
	first, last := time.UnixMilli(0), time.UnixMilli(1<<48)
	if *a.lake == "" {
		last = now
	}
	end, err := a.time("to", *a.to, last)
	if err != nil {
		return 0, 0, err
	}
	if *a.lake == "" {
		first = end.Add(-defaultSpan)
	}
	start, err := a.time("from", *a.from, first)
	if err != nil {
		return 0, 0, err
	}
	if !start.Before(end) {
		return 0, 0, a.Usage(fmt.Errorf("--from is %q: must be before --to, which is %q", *a.from, *a.to))
	}
	return start.UnixMilli(), end.UnixMilli(), nil
}

func (a *asker) time(flag, text string, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, a.Usage(fmt.Errorf("--%s is %q: must be a time such as 2026-03-01T07:00:00Z", flag, text))
	}
	return t, nil
}

// answers is what the commands ask: a part of store.Store.
type answers interface {
	Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error]
	CellStats(ctx context.Context, q store.CellQuery) iter.Seq2[store.CellStat, error]
	Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error]
}

// ask calls a command with what it asks, and words how that fails.
func (a *asker) ask(thinning Thinning, run func(context.Context, answers) error) error {
	if *a.timeout <= 0 {
		return a.Usage(fmt.Errorf("--timeout is %v: must be positive", *a.timeout))
	}
	ctx, cancel := context.WithTimeout(a.cmd.Context(), *a.timeout)
	defer cancel()
	if *a.lake != "" {
		if thinning != (Thinning{}) {
			return a.Usage(errors.New("--min-interval and --tolerance-m are for a server: leave them out with --lake"))
		}
		reader, err := lake.NewReader(*a.lake)
		if err != nil {
			return a.Usage(err)
		}
		return errors.Join(run(ctx, reader), reader.Close())
	}
	conn, err := a.Connect(a.cmd, *a.addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	remote := NewRemote(starlingv1.NewHistoryServiceClient(conn))
	remote.Thinning = thinning
	err = run(ctx, remote)
	if _, answered := status.FromError(err); err != nil && answered {
		return a.Asked(err, "ask history at %s", *a.addr)
	}
	return err
}

// cells parses a flag's cells.
func (a *asker) cells(flag string, texts []string) (cells []h3.Cell, err error) {
	for _, text := range texts {
		c, err := h3.Parse(text)
		if err != nil {
			return nil, a.Usage(fmt.Errorf("--%s is %q: must be an H3 cell", flag, text))
		}
		cells = append(cells, c)
	}
	return cells, nil
}

// progress reports on standard error how far a long answer has come.
type progress struct {
	w    io.Writer
	last time.Time
}

// progressInterval is the least time between two of its lines.
const progressInterval = 2 * time.Second

func newProgress(w io.Writer) *progress { return &progress{w: w, last: time.Now()} }

// at reports how many of something have come, of times up to one.
func (p *progress) at(n int, what string, ms int64) {
	if n%1000 != 0 || time.Since(p.last) < progressInterval {
		return
	}
	p.last = time.Now()
	upTo := ""
	if ms != 0 {
		upTo = ", up to " + time.UnixMilli(ms).UTC().Format(time.RFC3339)
	}
	_, _ = fmt.Fprintf(p.w, "%d %s%s\n", n, what, upTo)
}
