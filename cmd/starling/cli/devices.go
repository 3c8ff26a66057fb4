package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// A fault of a device counts 1 in its badness when it is as large as this.
const (
	fullClock = time.Minute // error of the clock
	fullScale = 10.0        // errors of positions over the stated accuracy
	fullBiasM = 50.0        // slowly changing error of positions
)

// device is what is known of a vehicle's device.
type device struct {
	Vehicle string `json:"vehicle"`
	// Badness is the sum of what is wrong, each 0 (nothing) to 1.
	Badness             float64  `json:"badness"`
	Conflicting         bool     `json:"conflicting"`
	AgeS                *float64 `json:"age_s,omitempty"`
	ClockAheadS         float64  `json:"clock_ahead_s"`
	AccuracyScale       *float32 `json:"accuracy_scale,omitempty"`
	VelocityCredibility *float32 `json:"velocity_credibility,omitempty"`
	BiasM               float32  `json:"bias_m"`
	OutlierShare        float32  `json:"outlier_share"`
	Fixes               int64    `json:"fixes"`
	// UnusedShare is the share of fixes that came late, were set aside or
	// conflicted with another.
	UnusedShare float64 `json:"unused_share"`
	OdometerM   float64 `json:"odometer_m"`
}

// devicesReport is what `starling devices --json` prints.
type devicesReport struct {
	Vehicles int      `json:"vehicles"`
	Devices  []device `json:"devices"` // the worst first
}

func newDevices(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "devices",
		Short:   "Print what is known of the fleet's devices, the worst first",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Print what is known of the fleet's devices, the worst first.

The badness of a device is the sum of these, each between 0 and 1:
  conflict   1 while two devices report for the vehicle
  clock      error of the device's clock; 1 from a minute on
  accuracy   how many times larger its errors are than it states; 1 from 10 on
  velocity   how little its speed and heading predict the next position
  bias       slowly changing error of its positions; 1 from 50 m on
  outliers   share of its recent fixes that the filter did not use
  unused     share of all its fixes that came late, were set aside or conflicted`,
		Example: `  starling devices
  starling devices --max-results 10 --json`,
	}
	flags := cmd.Flags()
	addr := flags.String("matcher", defaultMatcher, "Address of the matcher's or fan-out's gRPC server.")
	most := flags.Int("max-results", 50, "How many devices at most; 0 means all.")
	timeout := flags.Duration("timeout", time.Minute, "How long to wait for the whole fleet.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *most < 0 {
			return usage(errors.New("--max-results must not be negative"))
		}
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
		report, err := gatherDevices(ctx, starlingv1.NewFleetServiceClient(conn), *most)
		if err != nil {
			return asked(err, "list the vehicles at %s", *addr)
		}
		if *asJSON {
			return dialect.Print(world.Out, report)
		}
		return printDevices(world.Out, report)
	}
	return cmd
}

// gatherDevices reads the whole fleet and keeps the worst.
func gatherDevices(ctx context.Context, fleet starlingv1.FleetServiceClient, most int) (devicesReport, error) {
	const pageSize = 10_000
	report := devicesReport{Devices: []device{}}
	for token := ""; ; {
		page, err := fleet.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageSize: pageSize, PageToken: token})
		if err != nil {
			return report, err
		}
		report.Vehicles += len(page.Vehicles)
		for _, v := range page.Vehicles {
			report.Devices = append(report.Devices, deviceOf(v))
		}
		slices.SortStableFunc(report.Devices, func(a, b device) int {
			return cmp.Or(cmp.Compare(b.Badness, a.Badness), strings.Compare(a.Vehicle, b.Vehicle))
		})
		if most > 0 && len(report.Devices) > most {
			report.Devices = report.Devices[:most]
		}
		if token = page.NextPageToken; token == "" {
			return report, nil
		}
	}
}

func deviceOf(v *starlingv1.Vehicle) device {
	counts, learned := v.GetFixCounts(), v.GetDiagnosis()
	unused := counts.GetLate() + counts.GetSetAside() + counts.GetConflict()
	d := device{
		Vehicle:     strings.TrimPrefix(v.Name, "vehicles/"),
		Conflicting: v.Conflicting,
		ClockAheadS: v.DeviceClockAhead.AsDuration().Seconds(),
		BiasM:       learned.GetBiasM(), OutlierShare: learned.GetOutlierShare(),
		Fixes: counts.GetAccepted() + unused, OdometerM: v.GetOdometerM(),
	}
	if v.Age != nil {
		s := v.Age.AsDuration().Seconds()
		d.AgeS = &s
	}
	if d.Fixes > 0 {
		d.UnusedShare = float64(unused) / float64(d.Fixes)
	}
	if learned != nil {
		d.AccuracyScale, d.VelocityCredibility = learned.AccuracyScale, learned.VelocityCredibility
	}
	d.Badness = d.badness()
	return d
}

// badness is the sum that the command's help describes.
func (d *device) badness() float64 {
	share := func(x float64) float64 { return max(0, min(x, 1)) }
	sum := share(math.Abs(d.ClockAheadS)/fullClock.Seconds()) + share(float64(d.BiasM)/fullBiasM) + share(float64(d.OutlierShare)) + share(d.UnusedShare)
	if d.Conflicting {
		sum++
	}
	if d.AccuracyScale != nil && *d.AccuracyScale > 1 {
		sum += share(math.Log(float64(*d.AccuracyScale)) / math.Log(fullScale))
	}
	if d.VelocityCredibility != nil {
		sum += 1 - share(float64(*d.VelocityCredibility))
	}
	return math.Round(sum*1000) / 1000
}

func printDevices(w io.Writer, report devicesReport) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "VEHICLE\tBADNESS\tCLOCK\tERRORS/STATED\tVELOCITY\tBIAS\tOUTLIERS\tUNUSED\tFIXES\tODOMETER\tAGE\tNOTES")
	for i := range report.Devices {
		_, _ = fmt.Fprintln(tw, report.Devices[i].row())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d vehicles.\n", len(report.Devices), report.Vehicles)
	return err
}

func (d *device) row() string {
	optional := func(format string, v *float32, factor float32) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf(format, *v*factor)
	}
	age, note := "-", "-"
	if d.AgeS != nil {
		age = time.Duration(*d.AgeS * float64(time.Second)).Round(100 * time.Millisecond).String()
	}
	if d.Conflicting {
		note = "conflict: two devices report"
	}
	return strings.Join([]string{
		d.Vehicle, fmt.Sprintf("%.2f", d.Badness), fmt.Sprintf("%+.1f s", d.ClockAheadS),
		optional("%.1f", d.AccuracyScale, 1), optional("%.0f %%", d.VelocityCredibility, 100),
		fmt.Sprintf("%.1f m", d.BiasM), fmt.Sprintf("%.1f %%", d.OutlierShare*100), fmt.Sprintf("%.1f %%", d.UnusedShare*100),
		fmt.Sprint(d.Fixes), fmt.Sprintf("%.1f km", d.OdometerM/1000), age, note,
	}, "\t")
}
