package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const defaultMatcher = "127.0.0.1:7601"

// dial opens a connection to a role's gRPC server.
func dial(addr string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, usage(fmt.Errorf("connect to %q: %w", addr, err))
	}
	return conn, nil
}

// parsePlace reads a flag's "LAT,LON" in degrees.
func parsePlace(flag, text string) (*starlingv1.Place, error) {
	if text == "" {
		return nil, usage(fmt.Errorf("--%s is missing: must be LATITUDE,LONGITUDE in degrees", flag))
	}
	latText, lonText, ok := strings.Cut(text, ",")
	if !ok {
		return nil, usage(fmt.Errorf("--%s is %q: must be LATITUDE,LONGITUDE in degrees", flag, text))
	}
	lat, errLat := strconv.ParseFloat(strings.TrimSpace(latText), 64)
	lon, errLon := strconv.ParseFloat(strings.TrimSpace(lonText), 64)
	if errLat != nil || errLon != nil {
		return nil, usage(fmt.Errorf("--%s is %q: must be LATITUDE,LONGITUDE in degrees", flag, text))
	}
	return &starlingv1.Place{Latitude: lat, Longitude: lon}, nil
}

func parseAvailability(text string) (starlingv1.Availability, error) {
	name := "AVAILABILITY_" + strings.ToUpper(strings.ReplaceAll(text, "-", "_"))
	value, ok := starlingv1.Availability_value[name]
	if !ok || value == 0 {
		return 0, usage(fmt.Errorf("availability is %q: must be offline, free, busy, reserved or on-ride", text))
	}
	return starlingv1.Availability(value), nil
}

func availabilityName(a starlingv1.Availability) string {
	if a == starlingv1.Availability_AVAILABILITY_UNSPECIFIED {
		return "-"
	}
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(a.String(), "AVAILABILITY_"), "_", "-"))
}

func newNearest(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "nearest --at LAT,LON",
		Short:   "Print the vehicles nearest to a place",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Print the vehicles nearest to a place. Without --all or --available only those
that can be offered a ride: they report that they are free, have no ride, their
newest fix is fresh, and only one device reports for them.`,
		Example: `  starling nearest --at 30.2672,-97.7431
  starling nearest --at -33.8688,151.2093 --max-results 5 --radius-m 3000 \
      --available free --type van --min-seats 4 --max-age 30s --json`,
	}
	flags := cmd.Flags()
	addr := flags.String("matcher", defaultMatcher, "Address of the matcher's or fan-out's gRPC server.")
	at := flags.String("at", "", "The place: latitude,longitude in degrees.")
	k := flags.Int32("max-results", 10, "How many vehicles at most.")
	radius := flags.Float64("radius-m", 0, "Only vehicles within so many metres; 0 means no bound.")
	maxAge := flags.Duration("max-age", 0, "Only vehicles whose newest fix is no older; 0 means any.")
	available := flags.StringSlice("available", nil, "Only vehicles that are offline, free, busy, reserved or on-ride (several allowed), dispatchable or not.")
	all := flags.Bool("all", false, "Also vehicles that can't be offered a ride.")
	types := flags.StringSlice("type", nil, "Only vehicles of this type (several allowed).")
	seats := flags.Int32("min-seats", 0, "Only vehicles with at least so many seats.")
	tags := flags.StringSlice("tag", nil, "Only vehicles with all of these tags.")
	timeout := flags.Duration("timeout", 10*time.Second, "How long to wait for the answer.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := positive("timeout", *timeout); err != nil {
			return err
		}
		place, err := parsePlace("at", *at)
		if err != nil {
			return err
		}
		req := &starlingv1.SearchNearestRequest{
			Place: place, MaxResults: *k, RadiusM: *radius,
			Filter: &starlingv1.VehicleFilter{
				Types: *types, MinSeats: *seats, Tags: *tags, Dispatchable: !*all && len(*available) == 0,
			},
		}
		if *maxAge != 0 {
			req.Filter.MaxAge = durationpb.New(*maxAge)
		}
		for _, name := range *available {
			a, err := parseAvailability(name)
			if err != nil {
				return err
			}
			req.Filter.Availabilities = append(req.Filter.Availabilities, a)
		}
		conn, err := connect(cmd, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		answer, err := starlingv1.NewFleetServiceClient(conn).SearchNearest(ctx, req)
		if err != nil {
			return asked(err, "search the nearest vehicles at %s", *addr)
		}
		if *asJSON {
			return dialect.Print(world.Out, answer)
		}
		return printNearest(world.Out, answer, req.Filter.Dispatchable)
	}
	return cmd
}

func printNearest(w io.Writer, answer *starlingv1.SearchNearestResponse, dispatchable bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "DISTANCE\t"+vehicleHeader)
	for _, r := range answer.Results {
		_, _ = fmt.Fprintf(tw, "%.0f m\t%s\n", r.DistanceM, vehicleColumns(r.Vehicle))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	switch {
	case len(answer.Results) > 0:
	case dispatchable:
		_, _ = fmt.Fprintln(w, "No vehicle that can be offered a ride matches; --all prints the others too.")
	default:
		_, _ = fmt.Fprintln(w, "No vehicle matches.")
	}
	return printStale(w, answer.StalePartitions)
}

// vehicleColumns is a vehicle as a row of a table, without its distance.
func vehicleColumns(v *starlingv1.Vehicle) string {
	position, sure := "-", "-"
	if p := v.Position; p != nil {
		position = fmt.Sprintf("%.5f,%.5f", p.Latitude, p.Longitude)
		sure = fmt.Sprintf("%.0f m", p.UncertaintyRadiusM)
	}
	speed, heading := "-", "-"
	if v.SpeedMps != nil {
		speed = fmt.Sprintf("%.1f m/s", *v.SpeedMps)
	}
	if v.HeadingDeg != nil {
		heading = fmt.Sprintf("%.0f°", *v.HeadingDeg)
	}
	kind := v.Attributes.GetType()
	if kind == "" {
		kind = "-"
	}
	return strings.Join([]string{
		strings.TrimPrefix(v.Name, limits.VehicleNamePrefix), position, sure, speed, heading,
		ageText(v.Age), availabilityText(v), kind, notes(v),
	}, "\t")
}

// ageText is an age in tenths of a second, "-" for one that is not known.
func ageText(age *durationpb.Duration) string {
	if age == nil {
		return "-"
	}
	return age.AsDuration().Round(100 * time.Millisecond).String()
}

// availabilityText is the derived availability. A server that does not state it
// states the reported one.
func availabilityText(v *starlingv1.Vehicle) string {
	if v.DerivedAvailability != starlingv1.Availability_AVAILABILITY_UNSPECIFIED {
		return availabilityName(v.DerivedAvailability)
	}
	return availabilityName(v.Availability)
}

// notes are what to know of a vehicle before it is offered a ride.
func notes(v *starlingv1.Vehicle) string {
	var out []string
	if v.Conflicting {
		out = append(out, "conflict: two devices report")
	}
	if v.DerivedAvailability == starlingv1.Availability_AVAILABILITY_FREE && !v.Dispatchable {
		out = append(out, "not dispatchable")
	}
	if text := clockText(v.DeviceClockAhead.AsDuration()); text != "" {
		out = append(out, text)
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

// clockText states the error of a device's clock if it matters.
func clockText(ahead time.Duration) string {
	const worthNoting = time.Second
	switch {
	case ahead >= worthNoting:
		return fmt.Sprintf("clock %s ahead", ahead.Round(100*time.Millisecond))
	case ahead <= -worthNoting:
		return fmt.Sprintf("clock %s behind", (-ahead).Round(100*time.Millisecond))
	}
	return ""
}
