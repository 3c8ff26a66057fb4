package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// asking gives a command the address of a matcher and a time, and calls it with a
// client.
func asking(cmd *cobra.Command) func(run func(context.Context, starlingv1.FleetServiceClient, string) error) error {
	addr := cmd.Flags().String("matcher", defaultMatcher, "Address of the matcher's or fan-out's gRPC server.")
	timeout := cmd.Flags().Duration("timeout", 30*time.Second, "How long to wait for the answer.")
	return func(run func(context.Context, starlingv1.FleetServiceClient, string) error) error {
		if err := positive("timeout", *timeout); err != nil {
			return err
		}
		conn, err := connect(cmd, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		return run(ctx, starlingv1.NewFleetServiceClient(conn), *addr)
	}
}

// vehicleName is the resource name of a vehicle that is given by name or id.
func vehicleName(given string) string {
	if strings.HasPrefix(given, limits.VehicleNamePrefix) {
		return given
	}
	return limits.VehicleNamePrefix + given
}

func newGet(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get VEHICLE",
		Short:   "Print all that is known of one vehicle",
		GroupID: "ask",
		Args:    usageArgs(cobra.ExactArgs(1)),
		Long:    "Print all that is known of one vehicle. One that is not known gives exit code 3.",
		Example: "  starling get car-00042\n  starling get car-00042 --json",
	}
	with, asJSON := asking(cmd), jsonFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return with(func(ctx context.Context, fleet starlingv1.FleetServiceClient, addr string) error {
			v, err := fleet.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: vehicleName(args[0])})
			if err != nil {
				return asked(err, "get %s at %s", args[0], addr)
			}
			if *asJSON {
				return dialect.Print(world.Out, v)
			}
			return printVehicle(world.Out, v)
		})
	}
	return cmd
}

// printVehicle prints one vehicle, a line for each thing that is known.
func printVehicle(w io.Writer, v *starlingv1.Vehicle) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	columns := strings.Split(vehicleColumns(v), "\t")
	for i, name := range strings.Split(vehicleHeader, "\t") {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", strings.ToLower(name), columns[i])
	}
	_, _ = fmt.Fprintf(tw, "dispatchable\t%t\nreported\t%s\ncell\t%s\n", v.Dispatchable, availabilityName(v.Availability), v.H3Cell)
	if v.DeviceTime != nil {
		_, _ = fmt.Fprintf(tw, "newest fix\t%s\n", v.DeviceTime.AsTime().Format(timeLayout))
	}
	if v.SeenTime != nil {
		_, _ = fmt.Fprintf(tw, "newest report\t%s\n", v.SeenTime.AsTime().Format(timeLayout))
	}
	if a := v.Attributes; a != nil {
		_, _ = fmt.Fprintf(tw, "seats, tags\t%d, %s\n", a.Seats, strings.Join(a.Tags, " "))
	}
	if p := v.DisplayPosition; p != nil {
		_, _ = fmt.Fprintf(tw, "shown at\t%.5f,%.5f\n", p.Latitude, p.Longitude)
	}
	if v.OdometerM != nil {
		_, _ = fmt.Fprintf(tw, "odometer\t%.1f km\n", *v.OdometerM/1000)
	}
	c := v.FixCounts
	_, _ = fmt.Fprintf(tw, "fixes\t%d accepted, %d duplicate, %d conflict, %d late, %d set aside\n",
		c.GetAccepted(), c.GetDuplicate(), c.GetConflict(), c.GetLate(), c.GetSetAside())
	return tw.Flush()
}

// vehicleHeader names what vehicleColumns prints.
const vehicleHeader = "VEHICLE\tPOSITION\t± 95 %\tSPEED\tHEADING\tAGE\tAVAILABILITY\tTYPE\tNOTES"

// printVehicles prints vehicles as a table.
func printVehicles(w io.Writer, vehicles []*starlingv1.Vehicle) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, vehicleHeader)
	for _, v := range vehicles {
		_, _ = fmt.Fprintln(tw, vehicleColumns(v))
	}
	return tw.Flush()
}

func newList(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the fleet, by name",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long:    "List the fleet, by name. With --json each vehicle is a line.",
		Example: "  starling list\n  starling list --max-results 0 --json",
	}
	with, asJSON := asking(cmd), jsonFlag(cmd)
	most := cmd.Flags().Int("max-results", 100, "How many vehicles at most; 0 means all.")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *most < 0 {
			return usage(errors.New("--max-results must not be negative"))
		}
		return with(func(ctx context.Context, fleet starlingv1.FleetServiceClient, addr string) error {
			listed, more, stale := 0, true, []*starlingv1.StalePartition(nil)
			for token := ""; more; {
				pageSize := 1000
				if *most > 0 {
					pageSize = min(pageSize, *most-listed)
				}
				page, err := fleet.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageSize: int32(pageSize), PageToken: token})
				if err != nil {
					return asked(err, "list the vehicles at %s", addr)
				}
				if err := printPage(world.Out, page.Vehicles, *asJSON); err != nil {
					return err
				}
				listed, token, stale = listed+len(page.Vehicles), page.NextPageToken, page.StalePartitions
				more = token != "" && (*most == 0 || listed < *most)
				if token != "" && !more {
					_, _ = fmt.Fprintf(world.Err, "There are more than these %d vehicles; --max-results 0 lists all.\n", listed)
				}
			}
			if *asJSON {
				return nil
			}
			return printStale(world.Out, stale)
		})
	}
	return cmd
}

// printPage prints some vehicles, as a table or a line of JSON each.
func printPage(w io.Writer, vehicles []*starlingv1.Vehicle, asJSON bool) error {
	if !asJSON {
		return printVehicles(w, vehicles)
	}
	for _, v := range vehicles {
		if err := dialect.Print(w, v); err != nil {
			return err
		}
	}
	return nil
}

func newArea(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "area {--southwest LAT,LON --northeast LAT,LON | --vertex LAT,LON... | --cell CELL...}",
		Short:   "Print the vehicles inside an area",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Print the vehicles inside an area: between two corners, inside a polygon of great
circles, or in any of some H3 cells.`,
		Example: `  starling area --southwest 48.1,16.2 --northeast 48.3,16.5
  starling area --vertex 48.1,16.2 --vertex 48.1,16.5 --vertex 48.3,16.4 --dispatchable --json
  starling area --cell 851e15b7fffffff`,
	}
	with, asJSON := asking(cmd), jsonFlag(cmd)
	flags := cmd.Flags()
	southwest := flags.String("southwest", "", "A corner: latitude,longitude in degrees.")
	northeast := flags.String("northeast", "", "The opposite corner.")
	vertices := flags.StringArray("vertex", nil, "A vertex of a polygon, 3 to 1000 of them in order.")
	cells := flags.StringSlice("cell", nil, "An H3 cell (several allowed).")
	dispatchable := flags.Bool("dispatchable", false, "Only vehicles that can be offered a ride.")
	most := flags.Int32("max-results", 1000, "How many vehicles at most.")
	cmd.RunE = func(*cobra.Command, []string) error {
		area, err := parseArea(*southwest, *northeast, *vertices, *cells)
		if err != nil {
			return err
		}
		req := &starlingv1.SearchAreaRequest{Area: area, MaxResults: *most, Filter: &starlingv1.VehicleFilter{Dispatchable: *dispatchable}}
		return with(func(ctx context.Context, fleet starlingv1.FleetServiceClient, addr string) error {
			answer, err := fleet.SearchArea(ctx, req)
			if err != nil {
				return asked(err, "search the area at %s", addr)
			}
			if *asJSON {
				return dialect.Print(world.Out, answer)
			}
			if err := printVehicles(world.Out, answer.Vehicles); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(world.Out, "%d of %d vehicles.\n", len(answer.Vehicles), answer.TotalCount)
			return printStale(world.Out, answer.StalePartitions)
		})
	}
	return cmd
}

func parseArea(southwest, northeast string, vertices, cells []string) (*starlingv1.Area, error) {
	given := 0
	for _, is := range []bool{southwest != "" || northeast != "", len(vertices) > 0, len(cells) > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, usage(errors.New("name one area: --southwest and --northeast, or --vertex, or --cell"))
	}
	switch {
	case len(cells) > 0:
		return &starlingv1.Area{Shape: &starlingv1.Area_Cells{Cells: &starlingv1.CellSet{H3Cells: cells}}}, nil
	case len(vertices) > 0:
		polygon := &starlingv1.Polygon{}
		for _, text := range vertices {
			place, err := parsePlace("vertex", text)
			if err != nil {
				return nil, err
			}
			polygon.Vertices = append(polygon.Vertices, place)
		}
		return &starlingv1.Area{Shape: &starlingv1.Area_Polygon{Polygon: polygon}}, nil
	}
	sw, errSW := parsePlace("southwest", southwest)
	ne, errNE := parsePlace("northeast", northeast)
	if err := errors.Join(errSW, errNE); err != nil {
		return nil, usage(err)
	}
	return &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{Southwest: sw, Northeast: ne}}}, nil
}

func newSend(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "send VEHICLE --at LAT,LON",
		Short:   "Send one fix of one vehicle",
		GroupID: "drive",
		Args:    usageArgs(cobra.ExactArgs(1)),
		Long: `Send one fix of one vehicle, taken now, as a phone whose app has just been started
would: in a session of its own. It is for trying things out; a vehicle for which a
phone reports too is conflicting afterwards. A fix that is refused gives exit code 3.`,
		Example: `  starling send car-7 --at 48.2085,16.3730 --available free
  starling send car-7 --at 48.2085,16.3730 --speed-mps 8.3 --heading-deg 271 --accuracy-m 5 --json`,
	}
	flags := cmd.Flags()
	addr := flags.String("ingest", defaultIngest, "Address of ingest's server.")
	at := flags.String("at", "", "The place: latitude,longitude in degrees.")
	accuracy := flags.Float32("accuracy-m", 0, "Accuracy in metres; left out unless it is given.")
	speed := flags.Float32("speed-mps", 0, "Speed over ground in metres per second; left out unless it is given.")
	heading := flags.Float32("heading-deg", 0, "Heading in degrees clockwise from north; left out unless it is given.")
	available := flags.String("available", "", "Also report that the vehicle is offline, free or busy.")
	timeout := flags.Duration("timeout", 30*time.Second, "How long to wait for the acknowledgement.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := positive("timeout", *timeout); err != nil {
			return err
		}
		place, err := parsePlace("at", *at)
		if err != nil {
			return err
		}
		fix := &starlingv1.Fix{DeviceTimeMs: time.Now().UnixMilli(), Latitude: place.Latitude, Longitude: place.Longitude}
		for name, value := range map[string]struct {
			from *float32
			to   **float32
		}{"accuracy-m": {accuracy, &fix.AccuracyM}, "speed-mps": {speed, &fix.SpeedMps}, "heading-deg": {heading, &fix.HeadingDeg}} {
			if flags.Changed(name) {
				*value.to = proto.Float32(*value.from)
			}
		}
		report := &starlingv1.Report{VehicleId: strings.TrimPrefix(args[0], limits.VehicleNamePrefix), SessionId: max(1, rand.Uint64()), Sequence: 1, Fixes: []*starlingv1.Fix{fix}}
		if *available != "" {
			if report.Availability, err = parseAvailability(*available); err != nil {
				return err
			}
		}
		conn, err := connect(cmd, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		answer, err := starlingv1.NewIngestServiceClient(conn).SendReport(ctx, &starlingv1.SendReportRequest{Report: report})
		if err != nil {
			return asked(err, "send a report to %s", *addr)
		}
		return printSent(world.Out, report, answer, *asJSON)
	}
	return cmd
}

func printSent(w io.Writer, report *starlingv1.Report, answer *starlingv1.SendReportResponse, asJSON bool) error {
	var err error
	if asJSON {
		err = dialect.Print(w, answer)
	} else if len(answer.Refusals) == 0 {
		_, err = fmt.Fprintf(w, "The report of %s is durable (session %s, sequence %d).\n", report.VehicleId, strconv.FormatUint(report.SessionId, 10), answer.AcknowledgedSequence)
	}
	if err == nil && len(answer.Refusals) > 0 {
		return answerNo("the fix is refused: %s", answer.Refusals[0].Description)
	}
	return err
}

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
