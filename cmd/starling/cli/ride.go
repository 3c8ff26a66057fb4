package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// ridePrefix begins the resource name of a ride.
const ridePrefix = "rides/"

// riding gives a command the address of a server for rides and a time, and calls it
// with a client.
func riding(cmd *cobra.Command, timeout time.Duration) func(run func(context.Context, starlingv1.RideServiceClient) error) error {
	addr := cmd.Flags().String("rides", defaultMatcher, "Address of a server for rides (gRPC): that of `starling up`'s matcher, or of a rides process.")
	patience := cmd.Flags().Duration("timeout", timeout, "How long to wait; 0 means for ever.")
	return func(run func(context.Context, starlingv1.RideServiceClient) error) error {
		if *patience < 0 {
			return usage(fmt.Errorf("--timeout is %s: must not be negative", *patience))
		}
		conn, err := connect(cmd, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx := cmd.Context()
		if *patience > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, *patience)
			defer cancel()
		}
		return asked(run(ctx, starlingv1.NewRideServiceClient(conn)), "%s at %s", cmd.CommandPath(), *addr)
	}
}

// answerTimeout is how long a command waits for one answer.
const answerTimeout = 30 * time.Second

// rideName is the resource name of a ride that is given by name or id.
func rideName(given string) string { return ridePrefix + strings.TrimPrefix(given, ridePrefix) }

func newRide(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ride",
		Short:   "Call a ride, follow it, and act as its driver",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Call a ride, follow it, and act as its driver. The steps are those of the service:
a name is made, a ride is requested under it, and its events are followed.`,
		Example: `  name=$(starling ride new --rider ann --pickup 48.2085,16.373)
  starling ride request $name --rider ann --pickup 48.2085,16.373 --dropoff 48.22,16.39
  starling ride watch $name`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRideNew(world), newRideRequest(world), newRideGet(world), newRideList(world), newRideWatch(world), newRideCancel(world), newRideAct(world))
	return cmd
}

func newRideNew(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "new --pickup LAT,LON",
		Short:   "Make a name for a ride; nothing is stored",
		Args:    usageArgs(cobra.NoArgs),
		Example: "  starling ride new --rider ann --pickup 48.2085,16.373",
	}
	with, asJSON := riding(cmd, answerTimeout), jsonFlag(cmd)
	rider := cmd.Flags().String("rider", "", "Who rides; may be left out with a rider's token.")
	pickup := cmd.Flags().String("pickup", "", "Where to be picked up, LATITUDE,LONGITUDE in degrees.")
	cmd.RunE = func(*cobra.Command, []string) error {
		at, err := parsePlace("pickup", *pickup)
		if err != nil {
			return err
		}
		return with(func(ctx context.Context, c starlingv1.RideServiceClient) error {
			named, err := c.NewRide(ctx, &starlingv1.NewRideRequest{Rider: *rider, PickupLatitude: at.Latitude, PickupLongitude: at.Longitude})
			if err != nil {
				return err
			}
			if *asJSON {
				return dialect.Print(world.Out, named)
			}
			_, err = fmt.Fprintln(world.Out, named.Name)
			return err
		})
	}
	return cmd
}

func newRideRequest(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "request RIDE --pickup LAT,LON --dropoff LAT,LON",
		Short: "Ask for a ride under a name; may be repeated",
		Args:  usageArgs(cobra.ExactArgs(1)),
		Example: `  starling ride request $name --rider ann --pickup 48.2085,16.373 --dropoff 48.22,16.39
  starling ride request $name --rider ann --pickup 48.2085,16.373 --dropoff 48.22,16.39 --party 3 --type van --tag pets`,
	}
	with, asJSON := riding(cmd, answerTimeout), jsonFlag(cmd)
	flags := cmd.Flags()
	rider := flags.String("rider", "", "Who rides: for whom the name was made.")
	pickup := flags.String("pickup", "", "Where to be picked up, LATITUDE,LONGITUDE in degrees.")
	dropoff := flags.String("dropoff", "", "Where to go, LATITUDE,LONGITUDE in degrees.")
	party := flags.Int32("party", 1, "How many people.")
	kind := flags.String("type", "", "What kind of vehicle; empty for any.")
	tags := flags.StringSlice("tag", nil, "Tags that the vehicle must have.")
	within := flags.Duration("deadline", 0, "When the search ends, from now; 0 means after the server's rides.search.")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		from, err := parsePlace("pickup", *pickup)
		if err != nil {
			return err
		}
		to, err := parsePlace("dropoff", *dropoff)
		if err != nil {
			return err
		}
		order := &starlingv1.RideOrder{
			Rider: *rider, PickupLatitude: from.Latitude, PickupLongitude: from.Longitude, DropoffLatitude: to.Latitude, DropoffLongitude: to.Longitude,
			PartySize: *party, VehicleType: *kind, Tags: *tags,
		}
		if *within != 0 {
			order.DeadlineMs = time.Now().Add(*within).UnixMilli()
		}
		return with(func(ctx context.Context, c starlingv1.RideServiceClient) error {
			called, err := c.RequestRide(ctx, &starlingv1.RequestRideRequest{Name: rideName(args[0]), Order: order})
			return showAfter(ctx, world.Out, c, args[0], called, err, *asJSON)
		})
	}
	return cmd
}

// showAfter prints a ride as it stands after a call.
func showAfter(ctx context.Context, w io.Writer, c starlingv1.RideServiceClient, name string, called *starlingv1.RideCallResponse, err error, asJSON bool) error {
	if err != nil {
		return err
	}
	ride, err := c.GetRide(ctx, &starlingv1.GetRideRequest{Name: rideName(name), After: called.GetPosition()})
	if err != nil {
		return err
	}
	return printRide(w, ride, asJSON)
}

func printRide(w io.Writer, ride *starlingv1.Ride, asJSON bool) error {
	if asJSON {
		return dialect.Print(w, ride)
	}
	_, err := fmt.Fprintln(w, rideLine(ride))
	return err
}

// rideLine is a ride in one line.
func rideLine(ride *starlingv1.Ride) string {
	line := fmt.Sprintf("%s  %d  %-12s", ride.Name, ride.Sequence, phaseName(ride.Phase))
	if ride.Vehicle != "" {
		a := ride.Attempt
		line += fmt.Sprintf("  %s  attempt %d.%d.%d", ride.Vehicle, a.GetEpoch(), a.GetGeneration(), a.GetCounter())
	}
	if ride.Reason != "" {
		line += "  " + ride.Reason
	}
	return line
}

func phaseName(p starlingv1.RidePhase) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(p.String(), "RIDE_PHASE_"), "_", "-"))
}

func newRideGet(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get RIDE",
		Short:   "Print a ride as it stands",
		Args:    usageArgs(cobra.ExactArgs(1)),
		Example: "  starling ride get $name --json",
	}
	with, asJSON := riding(cmd, answerTimeout), jsonFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return with(func(ctx context.Context, c starlingv1.RideServiceClient) error {
			ride, err := c.GetRide(ctx, &starlingv1.GetRideRequest{Name: rideName(args[0])})
			if err != nil {
				return err
			}
			return printRide(world.Out, ride, *asJSON)
		})
	}
	return cmd
}

func newRideList(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Print rides, by name",
		Args:    usageArgs(cobra.NoArgs),
		Example: "  starling ride list --active\n  starling ride list --rider ann",
	}
	with, asJSON := riding(cmd, answerTimeout), jsonFlag(cmd)
	rider := cmd.Flags().String("rider", "", "Only this rider's.")
	active := cmd.Flags().Bool("active", false, "Only rides that have not ended.")
	cmd.RunE = func(*cobra.Command, []string) error {
		return with(func(ctx context.Context, c starlingv1.RideServiceClient) error {
			req := &starlingv1.ListRidesRequest{Rider: *rider, Active: *active}
			for {
				page, err := c.ListRides(ctx, req)
				if err != nil {
					return err
				}
				for _, ride := range page.Rides {
					if err := printRide(world.Out, ride, *asJSON); err != nil {
						return err
					}
				}
				if req.PageToken = page.NextPageToken; req.PageToken == "" {
					return nil
				}
			}
		})
	}
	return cmd
}

func newRideWatch(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch RIDE",
		Short: "Follow a ride to its end, a line for each event",
		Args:  usageArgs(cobra.ExactArgs(1)),
		Example: `  starling ride watch $name --positions
  starling ride watch $name --after 3 --epoch 1 --json`,
	}
	with, asJSON := riding(cmd, 0), jsonFlag(cmd)
	after := cmd.Flags().Int64("after", 0, "The number of the last event that is known; needs --epoch.")
	epoch := cmd.Flags().Int64("epoch", 0, "The epoch that it came with.")
	positions := cmd.Flags().Bool("positions", false, "Print where the vehicle is, too.")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return with(func(ctx context.Context, c starlingv1.RideServiceClient) error {
			stream, err := c.SubscribeRideEvents(ctx, &starlingv1.SubscribeRideEventsRequest{Name: rideName(args[0]), AfterSequence: *after, Epoch: *epoch, Positions: *positions})
			for err == nil {
				var m *starlingv1.SubscribeRideEventsResponse
				if m, err = stream.Recv(); err == nil {
					err = printRideEvent(world.Out, m, *asJSON)
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})
	}
	return cmd
}

func printRideEvent(w io.Writer, m *starlingv1.SubscribeRideEventsResponse, asJSON bool) error {
	if asJSON {
		return dialect.Print(w, m)
	}
	var err error
	switch p := m.VehiclePosition; {
	case p != nil:
		_, err = fmt.Fprintf(w, "%s  %s  %.5f,%.5f\n", p.DeviceTime.AsTime().Format(timeLayout), p.Vehicle, p.Latitude, p.Longitude)
	case m.Recovered:
		kind := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(m.Event.GetKind().String(), "RIDE_EVENT_KIND_"), "_", "-"))
		_, err = fmt.Fprintf(w, "%s  %-12s  %s\n", time.UnixMilli(m.Event.GetTimeMs()).UTC().Format(timeLayout), kind, rideLine(m.Ride))
	default:
		_, err = fmt.Fprintf(w, "events before are not to be had; it stands at  %s\n", rideLine(m.Ride))
	}
	return err
}

func newRideCancel(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cancel RIDE",
		Short:   "Cancel a ride before the rider is on board",
		Args:    usageArgs(cobra.ExactArgs(1)),
		Example: "  starling ride cancel $name --rider ann --reason 'found another'",
	}
	with, asJSON := riding(cmd, answerTimeout), jsonFlag(cmd)
	rider := cmd.Flags().String("rider", "", "Who rides; may be left out with a rider's token.")
	reason := cmd.Flags().String("reason", "", "Why, for people.")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return with(func(ctx context.Context, c starlingv1.RideServiceClient) error {
			called, err := c.CancelRide(ctx, &starlingv1.CancelRideRequest{Name: rideName(args[0]), Rider: *rider, Reason: *reason})
			return showAfter(ctx, world.Out, c, args[0], called, err, *asJSON)
		})
	}
	return cmd
}

func newRideAct(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "act RIDE accept|decline|arrive|board|complete",
		Short: "Act as the driver of the vehicle that is bound to a ride",
		Args:  usageArgs(cobra.ExactArgs(2)),
		Long: `Act as the driver of the vehicle that is bound to a ride. The attempt is that of the
ride as it stands, unless --vehicle names another vehicle than its: then nothing is
done, with exit code 3.`,
		Example: "  starling ride act $name arrive\n  starling ride act $name board --vehicle sim-0042",
	}
	with, asJSON := riding(cmd, answerTimeout), jsonFlag(cmd)
	vehicle := cmd.Flags().String("vehicle", "", "The driver's vehicle; empty for the one that is bound.")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		action, ok := starlingv1.DriverAction_value["DRIVER_ACTION_"+strings.ToUpper(args[1])]
		if !ok || action == 0 {
			return usage(fmt.Errorf("action is %q: must be accept, decline, arrive, board or complete", args[1]))
		}
		return with(func(ctx context.Context, c starlingv1.RideServiceClient) error {
			ride, err := c.GetRide(ctx, &starlingv1.GetRideRequest{Name: rideName(args[0])})
			if err != nil {
				return err
			}
			if ride.Vehicle == "" || *vehicle != "" && ride.Vehicle != vehicleName(*vehicle) {
				return answerNo("the ride is %s and not bound to the vehicle", phaseName(ride.Phase))
			}
			called, err := c.ActOnRide(ctx, &starlingv1.ActOnRideRequest{
				Name: ride.Name, Vehicle: ride.Vehicle, Attempt: ride.Attempt, Action: starlingv1.DriverAction(action),
			})
			return showAfter(ctx, world.Out, c, args[0], called, err, *asJSON)
		})
	}
	return cmd
}
