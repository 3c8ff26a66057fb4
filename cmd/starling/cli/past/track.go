package past

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/trackform"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/schemas/limits"
)

func newTrack(w World) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "track VEHICLE",
		Short:   "Print where a vehicle has been, from history",
		GroupID: "ask",
		Args:    w.Args(cobra.ExactArgs(1)),
		Long: `Print a vehicle's fixes from history (docs/history.md), each once, by device time: as
reported and, where the filter had a say, as corrected. A server for history is asked
or, with --lake, the Parquet files are read from their directory; nothing needs to run
then. The form svg draws the track: dots are the fixes as reported, the line goes
through the corrected ones.`,
		Example: `  starling track car-00042 --from 2026-03-01T07:00:00Z --to 2026-03-01T09:00:00Z
  starling track car-00042 --tolerance-m 10 --format geojson
  starling track car-00042 --lake /srv/history --from 2026-03-01T00:00:00Z --format gpx > car.gpx`,
	}
	ask := w.asker(cmd)
	form := cmd.Flags().String("format", "table", "table, csv, geojson, gpx or svg")
	var thinning Thinning
	cmd.Flags().DurationVar(&thinning.MinInterval, "min-interval", 0, "Leave out fixes that were taken sooner after the one before; 0 leaves out none.")
	cmd.Flags().Float64Var(&thinning.ToleranceM, "tolerance-m", 0, "Leave out fixes that are within so many metres of the way between those that stay (Douglas-Peucker in time); 0 leaves out none.")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		fromMS, toMS, err := ask.times(time.Now())
		if err != nil {
			return err
		}
		printTrack, ok := trackform.Forms()[*form]
		switch {
		case !ok:
			return w.Usage(fmt.Errorf("--format is %q: must be table, csv, geojson, gpx or svg", *form))
		case thinning.MinInterval != 0 && thinning.ToleranceM != 0:
			return w.Usage(errors.New("--min-interval and --tolerance-m: give one of them"))
		}
		vehicle := strings.TrimPrefix(args[0], limits.VehicleNamePrefix)
		return ask.ask(thinning, func(ctx context.Context, s answers) error {
			fixes := s.Track(ctx, store.TrackQuery{Vehicle: vehicle, FromMS: fromMS, ToMS: toMS})
			return printTrack(w.Out, vehicle, counted(fixes, newProgress(w.Err)))
		})
	}
	return cmd
}

// counted yields fixes and reports how many have come.
func counted(fixes iter.Seq2[row.Fix, error], p *progress) iter.Seq2[row.Fix, error] {
	return func(yield func(row.Fix, error) bool) {
		n := 0
		for f, err := range fixes {
			n++
			p.at(n, "fixes", f.DeviceTimeMS)
			if !yield(f, err) {
				return
			}
		}
	}
}
