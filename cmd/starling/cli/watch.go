package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func newWatch(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "watch VEHICLE",
		Short:   "Follow one vehicle, a line for each change",
		GroupID: "ask",
		Args:    usageArgs(cobra.ExactArgs(1)),
		Long: `Follow one vehicle, a line for each change. With --playback-delay each fix is
shown so long after it was taken, which makes a vehicle that uploads a minute's
fixes once a minute move smoothly: the delay must be at least the time between
two uploads.`,
		Example: `  starling watch car-00042
  starling watch car-00042 --json --count 10
  starling watch car-00042 --playback-delay 65s --reconnect`,
	}
	addr := cmd.Flags().String("matcher", defaultMatcher, "Address of the matcher's or fan-out's gRPC server.")
	count := cmd.Flags().Int("count", 0, "End after so many changes of the vehicle; 0 means never. Until it is known, the command waits.")
	playback := cmd.Flags().Duration("playback-delay", 0, "Show each fix so long after it was taken, 1s to 15m; 0 shows the newest at once.")
	timeout := cmd.Flags().Duration("timeout", 0, "End after so long, with exit code 3 if fewer lines than --count have come; 0 means never.")
	reconnect := cmd.Flags().Bool("reconnect", false, "When the server goes away, wait for it and go on where the watch broke off.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *count < 0 || *timeout < 0 {
			return usage(errors.New("--count and --timeout must not be negative"))
		}
		ctx, cancel := context.WithCancelCause(cmd.Context())
		defer cancel(nil)
		if *timeout > 0 {
			// Not a deadline: the server would learn of it and end the call itself.
			defer time.AfterFunc(*timeout, func() { cancel(errWatchOver) }).Stop()
		}
		conn, err := connect(cmd, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		w := watching{
			world: world, fleet: starlingv1.NewFleetServiceClient(conn), count: *count, asJSON: *asJSON,
			req: &starlingv1.WatchVehicleRequest{Name: vehicleName(args[0])},
		}
		if *playback != 0 {
			w.req.PlaybackDelay = durationpb.New(*playback)
		}
		for {
			err := w.run(ctx)
			if errors.Is(context.Cause(ctx), errWatchOver) {
				return w.over(args[0], *timeout)
			}
			if *reconnect && status.Code(err) == codes.Unavailable && ctx.Err() == nil {
				_, _ = fmt.Fprintf(world.Err, "%s: %v; waiting\n", *addr, explain(err))
				_ = retry.Sleep(ctx, time.Second)
				continue
			}
			if err == nil || cmd.Context().Err() != nil {
				return nil
			}
			return asked(err, "watch %s at %s", args[0], *addr)
		}
	}
	return cmd
}

// watching follows a vehicle over one call after another.
type watching struct {
	world  IO
	fleet  starlingv1.FleetServiceClient
	req    *starlingv1.WatchVehicleRequest
	count  int // lines to print; 0 means no end
	lines  int // printed; that a vehicle is not known is none
	asJSON bool

	unknown bool // as of the newest message
}

// errWatchOver ends a watch when its time is over.
var errWatchOver = errors.New("the time of the watch is over")

// over is how a watch ends whose time is over.
func (w *watching) over(name string, timeout time.Duration) error {
	switch {
	case w.lines == 0 && w.unknown:
		return answerNo("%s did not become known within %s", name, timeout)
	case w.lines < w.count:
		return answerNo("%s changed %d times within %s", name, w.lines, timeout)
	}
	return nil
}

// run makes one call and prints what it is sent. It returns nil when all lines
// are printed or the server has ended the call.
func (w *watching) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.fleet.WatchVehicle(ctx, w.req)
	if err != nil {
		return err
	}
	for w.count == 0 || w.lines < w.count {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		w.req.ResumeToken = answer.ResumeToken
		if w.unknown = answer.Unknown; w.unknown {
			_, _ = fmt.Fprintf(w.world.Err, "%s is not known; waiting for it to report\n", strings.TrimPrefix(answer.Vehicle.GetName(), limits.VehicleNamePrefix))
			if !w.asJSON {
				continue
			}
		} else {
			w.lines++
		}
		if err := printWatched(w.world.Out, answer, w.asJSON); err != nil {
			return err
		}
	}
	return nil
}

func printWatched(w io.Writer, answer *starlingv1.WatchVehicleResponse, asJSON bool) error {
	if asJSON {
		return dialect.Print(w, answer)
	}
	v := answer.Vehicle
	when := "no fix yet"
	if v.DeviceTime != nil {
		when = v.DeviceTime.AsTime().UTC().Format("15:04:05.000")
	}
	notes := ""
	if p := answer.Playback; p != nil && v.DeviceTime != nil {
		notes += fmt.Sprintf("  played out %s late, %d fixes to come", p.Age.AsDuration().Round(100*time.Millisecond), p.BufferedFixes)
		if p.SkippedFixes > 0 {
			notes += fmt.Sprintf(", %d left out", p.SkippedFixes)
		}
	}
	if answer.Stale {
		notes += "  (its partition is behind)"
	}
	_, err := fmt.Fprintf(w, "%s  %s%s\n", when, strings.ReplaceAll(vehicleColumns(v), "\t", "  "), notes)
	return err
}
