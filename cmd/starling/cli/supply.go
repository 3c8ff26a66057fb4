package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func newSupply(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "supply",
		Short:   "Print how many vehicles are in each H3 cell",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Print how many vehicles are in each H3 cell of a resolution, by availability;
with --watch also every change, a row for each cell whose counts have changed.`,
		Example: `  starling supply --resolution 7
  starling supply --resolution 8 --in 851e15b7fffffff --available free --json
  starling supply --resolution 5 --watch`,
	}
	flags := cmd.Flags()
	addr := flags.String("matcher", defaultMatcher, "Address of the matcher's or fan-out's gRPC server.")
	resolution := flags.Int32("resolution", 7, "H3 resolution of the cells, 0 (the coarsest) to 9 or what the server is set to.")
	within := flags.StringSlice("in", nil, "Only cells inside this H3 cell (several allowed).")
	available := flags.StringSlice("available", nil, "Only vehicles that are offline, free, busy, reserved or on-ride (several allowed).")
	dispatchable := flags.Bool("dispatchable", false, "Only vehicles that can be offered a ride.")
	watch := flags.Bool("watch", false, "Go on with what changes, until Ctrl-C.")
	interval := flags.Duration("min-interval", time.Second, "With --watch: least time between two updates, 50ms to 1m.")
	timeout := flags.Duration("timeout", 10*time.Second, "How long to wait for the answer; not with --watch.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := positive("timeout", *timeout); err != nil {
			return err
		}
		selection := &starlingv1.CellSelection{Resolution: *resolution, WithinH3Cells: *within, Dispatchable: *dispatchable}
		for _, name := range *available {
			a, err := parseAvailability(name)
			if err != nil {
				return err
			}
			selection.Availabilities = append(selection.Availabilities, a)
		}
		conn, err := connect(cmd, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		fleet := starlingv1.NewFleetServiceClient(conn)
		if *watch {
			req := &starlingv1.WatchVehicleCountsRequest{Selection: selection, MinInterval: durationpb.New(*interval)}
			err = watchCounts(cmd.Context(), world.Out, fleet, req, *asJSON)
		} else {
			ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
			defer cancel()
			err = printSupply(ctx, world.Out, fleet, selection, *asJSON)
		}
		if status.Code(err) == codes.Canceled && cmd.Context().Err() != nil {
			return nil
		}
		return asked(err, "count vehicles at %s", *addr)
	}
	return cmd
}

// printSupply prints all pages as one answer.
func printSupply(ctx context.Context, w io.Writer, fleet starlingv1.FleetServiceClient, selection *starlingv1.CellSelection, asJSON bool) error {
	const pageSize = 10_000
	whole := &starlingv1.CountVehiclesResponse{}
	for token := ""; ; {
		page, err := fleet.CountVehicles(ctx, &starlingv1.CountVehiclesRequest{Selection: selection, PageSize: pageSize, PageToken: token})
		if err != nil {
			return err
		}
		whole.Cells = append(whole.Cells, page.Cells...)
		whole.StalePartitions = page.StalePartitions
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if asJSON {
		return dialect.Print(w, whole)
	}
	if len(whole.Cells) == 0 {
		_, err := fmt.Fprintln(w, "No vehicle matches.")
		return err
	}
	if err := printCells(w, whole.Cells, true); err != nil {
		return err
	}
	return printStale(w, whole.StalePartitions)
}

func watchCounts(ctx context.Context, w io.Writer, fleet starlingv1.FleetServiceClient, req *starlingv1.WatchVehicleCountsRequest, asJSON bool) error {
	stream, err := fleet.WatchVehicleCounts(ctx, req)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if asJSON {
			if err := dialect.Print(w, part); err != nil {
				return err
			}
			continue
		}
		if err := printCells(w, part.Cells, first); err != nil {
			return err
		}
		if err := printStale(w, part.StalePartitions); err != nil {
			return err
		}
	}
}

func printCells(w io.Writer, cells []*starlingv1.CellCount, header bool) error {
	tw := tabwriter.NewWriter(w, 16, 0, 2, ' ', 0)
	if header {
		_, _ = fmt.Fprintln(tw, "CELL\tVEHICLES\tDISPATCHABLE\tFREE\tBUSY\tRESERVED\tON RIDE\tOFFLINE\tUNSTATED")
	}
	for _, c := range cells {
		_, _ = fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", c.H3Cell, c.TotalCount, c.DispatchableCount, c.FreeCount, c.BusyCount, c.ReservedCount, c.OnRideCount, c.OfflineCount, c.UnstatedCount)
	}
	return tw.Flush()
}

// printStale warns of partitions that are behind, if there are any.
func printStale(w io.Writer, stale []*starlingv1.StalePartition) error {
	n := len(stale)
	if n == 0 {
		return nil
	}
	_, _ = fmt.Fprintf(w, "Careful: %d partitions are behind; their vehicles may have moved on:", n)
	for _, p := range stale {
		behind := "nobody knows how far"
		if p.Behind != nil {
			behind = p.Behind.AsDuration().Round(time.Second).String()
		}
		_, _ = fmt.Fprintf(w, " %d (%s)", p.Partition, behind)
	}
	_, err := fmt.Fprintln(w)
	return err
}
