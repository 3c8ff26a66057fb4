package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func newWatch(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "watch VEHICLE",
		Short:   "Follow one vehicle, a line for each change",
		GroupID: "ask",
		Args:    usageArgs(cobra.ExactArgs(1)),
		Example: `  starling watch car-00042
  starling watch car-00042 --json --count 10`,
	}
	addr := cmd.Flags().String("matcher", defaultMatcher, "Address of the matcher's door.")
	count := cmd.Flags().Int("count", 0, "End after so many lines; 0 means never.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conn, err := dial(*addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		name := args[0]
		if !strings.HasPrefix(name, "vehicles/") {
			name = "vehicles/" + name
		}
		stream, err := starlingv1.NewFleetServiceClient(conn).WatchVehicle(cmd.Context(), &starlingv1.WatchVehicleRequest{Name: name})
		if err != nil {
			return fmt.Errorf("watch %s at %s: %w", name, *addr, describe(err))
		}
		for n := 0; *count == 0 || n < *count; n++ {
			answer, err := stream.Recv()
			if errors.Is(err, io.EOF) || cmd.Context().Err() != nil && status.Code(err) == codes.Canceled {
				return nil
			}
			if err != nil {
				return fmt.Errorf("watch %s at %s: %w", name, *addr, describe(err))
			}
			if err := printWatched(world.Out, answer, *asJSON); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func printWatched(w io.Writer, answer *starlingv1.WatchVehicleResponse, asJSON bool) error {
	if asJSON {
		return printProto(w, answer, false)
	}
	v := answer.Vehicle
	if answer.Unknown {
		_, err := fmt.Fprintf(w, "%s is not known (yet); waiting\n", strings.TrimPrefix(v.GetName(), "vehicles/"))
		return err
	}
	when := "no fix yet"
	if v.DeviceTime != nil {
		when = v.DeviceTime.AsTime().UTC().Format("15:04:05.000")
	}
	stale := ""
	if answer.Stale {
		stale = "  (its partition is behind)"
	}
	_, err := fmt.Fprintf(w, "%s  %s%s\n", when, strings.ReplaceAll(vehicleColumns(v), "\t", "  "), stale)
	return err
}
