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
	count := cmd.Flags().Int("count", 0, "End after so many lines; 0 means never.")
	playback := cmd.Flags().Duration("playback-delay", 0, "Show each fix so long after it was taken, 1s to 15m; 0 shows the newest at once.")
	reconnect := cmd.Flags().Bool("reconnect", false, "When the server goes away, wait for it and go on where the watch broke off.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conn, err := dial(*addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		name := args[0]
		if !strings.HasPrefix(name, limits.VehicleNamePrefix) {
			name = limits.VehicleNamePrefix + name
		}
		w := watching{
			world: world, fleet: starlingv1.NewFleetServiceClient(conn), count: *count, asJSON: *asJSON,
			req: &starlingv1.WatchVehicleRequest{Name: name},
		}
		if *playback != 0 {
			w.req.PlaybackDelay = durationpb.New(*playback)
		}
		for {
			err := w.run(cmd.Context())
			if *reconnect && status.Code(err) == codes.Unavailable && cmd.Context().Err() == nil {
				_, _ = fmt.Fprintf(world.Err, "%s: %v; waiting\n", *addr, status.Convert(err).Message())
				_ = retry.Sleep(cmd.Context(), time.Second)
				continue
			}
			if err == nil || cmd.Context().Err() != nil {
				return nil
			}
			return fmt.Errorf("watch %s at %s: %w", name, *addr, describe(err))
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
	lines  int // printed
	asJSON bool
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
		if err := printWatched(w.world.Out, answer, w.asJSON); err != nil {
			return err
		}
		w.lines++
	}
	return nil
}

func printWatched(w io.Writer, answer *starlingv1.WatchVehicleResponse, asJSON bool) error {
	if asJSON {
		return printProto(w, answer, false)
	}
	v := answer.Vehicle
	if answer.Unknown {
		_, err := fmt.Fprintf(w, "%s is not known (yet); waiting\n", strings.TrimPrefix(v.GetName(), limits.VehicleNamePrefix))
		return err
	}
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
