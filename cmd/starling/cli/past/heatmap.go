package past

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/past/picture"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
)

// value is what a heat map shows of a cell.
type value struct {
	of func(*sum) (float64, bool)
	// unit words the scale, which is in powers if log is set.
	unit string
	log  bool
}

// values are those by the name of the flag.
var values = map[string]value{
	"fixes":    {func(s *sum) (float64, bool) { return float64(s.fixes), true }, "fixes", true},
	"vehicles": {func(s *sum) (float64, bool) { return float64(s.vehicles), true }, "vehicles, summed over periods", true},
	"speed":    {func(s *sum) (float64, bool) { return s.speedCM / 100 / float64(max(1, s.speeds)), s.speeds > 0 }, "m/s on average", false},
}

// sum is what went on in a cell over all periods.
type sum struct {
	fixes, vehicles, speeds int64
	speedCM                 float64 // of all speeds
}

func newHeatmap(w World) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "heatmap --out FILE",
		Short:   "Draw a map of cells by fixes, vehicles or speed, from history",
		GroupID: "ask",
		Args:    w.Args(cobra.NoArgs),
		Long: `Draw a map of H3 cells as PNG or SVG (docs/history.md): how many fixes or vehicles each
had over a time, on a logarithmic scale, or how fast they were. Dark is little, bright is
much. The map is in Web Mercator, north is up.`,
		Example: `  starling heatmap --out speed.png --value speed --from 2026-03-01T00:00:00Z --to 2026-03-02T00:00:00Z
  starling heatmap --out fixes.svg --period minute --cell 851e15b7fffffff --lake /srv/history`,
	}
	ask := w.asker(cmd)
	out := cmd.Flags().String("out", "", "File that is written; it ends in .png or .svg.")
	name := cmd.Flags().String("value", "fixes", "What the cells show: fixes, vehicles or speed.")
	period := cmd.Flags().String("period", "hour", "hour (cells of resolution 7) or minute (cells of resolution 9).")
	within := cmd.Flags().StringSlice("cell", nil, "Only cells inside this H3 cell (several allowed).")
	width := cmd.Flags().Int("width", 1000, "Width or height of the picture in pixels, whichever is more; 100 to 10000.")
	cmd.RunE = func(*cobra.Command, []string) error {
		shown, known := values[*name]
		periods := map[string]store.Period{"hour": store.Hour, "minute": store.Minute}
		q := store.CellQuery{Period: periods[*period]}
		draw, drawn := picture.Forms()[filepath.Ext(*out)]
		switch {
		case !drawn:
			return w.Usage(fmt.Errorf("--out is %q: must end in .png or .svg", *out))
		case !known:
			return w.Usage(fmt.Errorf("--value is %q: must be fixes, vehicles or speed", *name))
		case q.Period == 0:
			return w.Usage(fmt.Errorf("--period is %q: must be hour or minute", *period))
		case *width < 100 || *width > 10_000:
			return w.Usage(fmt.Errorf("--width is %d: must be between 100 and 10000", *width))
		}
		var err error
		if q.FromMS, q.ToMS, err = ask.times(time.Now()); err != nil {
			return err
		}
		if q.Cells, err = ask.cells("cell", *within); err != nil {
			return err
		}
		for _, c := range q.Cells {
			if c.Resolution() > q.Period.Resolution() {
				return w.Usage(fmt.Errorf("--cell is %q: must have a resolution of at most %d, which is that of the cells of a period", c, q.Period.Resolution()))
			}
		}
		return ask.ask(Thinning{}, func(ctx context.Context, s answers) error {
			sums, err := w.sums(s.CellStats(ctx, q))
			if err != nil {
				return err
			}
			m, err := mapOf(sums, shown, *width)
			if errors.Is(err, errNothing) {
				return w.No("history has nothing to draw there")
			}
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := draw(&b, m); err != nil {
				return err
			}
			if err := os.WriteFile(*out, b.Bytes(), 0o644); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			_, err = fmt.Fprintf(w.Out, "%s: %d cells, %s\n", *out, len(m.Cells), m.Legend())
			return err
		})
	}
	return cmd
}

// sums adds statistics up by cell.
func (w World) sums(stats func(func(store.CellStat, error) bool)) (map[h3.Cell]*sum, error) {
	sums, n, progress := map[h3.Cell]*sum{}, 0, newProgress(w.Err)
	for c, err := range stats {
		if err != nil {
			return nil, err
		}
		n++
		progress.at(n, "statistics of cells", c.StartMS)
		s := sums[c.Cell]
		if s == nil {
			s = &sum{}
			sums[c.Cell] = s
		}
		s.fixes += c.Fixes
		s.vehicles += c.Vehicles
		s.speeds += c.Speeds
		s.speedCM += c.MeanSpeedCMPS * float64(c.Speeds)
	}
	return sums, nil
}

// errNothing is that there is no cell to draw.
var errNothing = errors.New("no cell has a value")

func mapOf(sums map[h3.Cell]*sum, shown value, width int) (*picture.Map, error) {
	m := &picture.Map{Width: width, Unit: shown.unit, Log: shown.log}
	for cell, s := range sums {
		v, ok := shown.of(s)
		if !ok {
			continue
		}
		outline, err := cell.Outline()
		if err != nil {
			return nil, err
		}
		m.Cells = append(m.Cells, picture.Cell{Value: v, Outline: outline, Name: cell.String()})
	}
	if len(m.Cells) == 0 {
		return nil, errNothing
	}
	slices.SortFunc(m.Cells, func(a, b picture.Cell) int { return cmp.Compare(a.Name, b.Name) })
	return m, nil
}
