package past

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/history/store"
)

// visit is a line of --json.
type visit struct {
	Vehicle   string    `json:"vehicle"`
	FirstTime time.Time `json:"first_time"`
	LastTime  time.Time `json:"last_time"`
	FixCount  int64     `json:"fix_count"`
}

func newVisits(w World) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "visits {--cell CELL... | --vertex LAT,LON...}",
		Short:   "Print which vehicles were in an area, from history",
		GroupID: "ask",
		Args:    w.Args(cobra.NoArgs),
		Long: `Print which vehicles had a fix in an area during a time (docs/history.md), with the
first and the last time and how many fixes: in any of some H3 cells, or in a polygon
whose edges are straight on a map of longitude and latitude.`,
		Example: `  starling visits --cell 881e15b711fffff --from 2026-03-01T07:00:00Z --to 2026-03-01T09:00:00Z
  starling visits --vertex 48.20,16.36 --vertex 48.20,16.38 --vertex 48.22,16.37 --lake /srv/history --json`,
	}
	ask := w.asker(cmd)
	texts := cmd.Flags().StringSlice("cell", nil, "An H3 cell (several allowed).")
	vertices := cmd.Flags().StringArray("vertex", nil, "A vertex of a polygon, 3 to 1000 of them in order.")
	asJSON := cmd.Flags().Bool("json", false, "Print a line of JSON for each vehicle.")
	cmd.RunE = func(*cobra.Command, []string) error {
		q := store.VisitQuery{}
		var err error
		if q.FromMS, q.ToMS, err = ask.times(time.Now()); err != nil {
			return err
		}
		if q.Area, err = ask.area(*texts, *vertices); err != nil {
			return err
		}
		return ask.ask(Thinning{}, func(ctx context.Context, s answers) error { return w.printVisits(s.Visits(ctx, q), *asJSON) })
	}
	return cmd
}

func (a *asker) area(texts, vertices []string) (area store.Area, err error) {
	if (len(texts) > 0) == (len(vertices) > 0) {
		return area, a.Usage(errors.New("name one area: --cell or --vertex"))
	}
	if area.Cells, err = a.cells("cell", texts); err != nil {
		return area, err
	}
	for _, text := range vertices {
		p, err := a.Place("vertex", text)
		if err != nil {
			return area, err
		}
		if !(p.Latitude >= -90 && p.Latitude <= 90 && p.Longitude >= -180 && p.Longitude <= 180) {
			return area, a.Usage(fmt.Errorf("--vertex is %q: must be a latitude between -90 and 90 and a longitude between -180 and 180", text))
		}
		area.Polygon = append(area.Polygon, positionOf(p))
	}
	if n := len(area.Polygon); n == 1 || n == 2 {
		return area, a.Usage(fmt.Errorf("--vertex is given %d times: a polygon has at least 3", n))
	}
	return area, nil
}

func (w World) printVisits(visits func(func(store.Visit, error) bool), asJSON bool) error {
	out := tabwriter.NewWriter(w.Out, 0, 0, 2, ' ', 0)
	if !asJSON {
		_, _ = fmt.Fprintln(out, "VEHICLE\tFIRST\tLAST\tFIXES")
	}
	n, progress := 0, newProgress(w.Err)
	for v, err := range visits {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		n++
		progress.at(n, "vehicles", 0)
		line := visit{v.Vehicle, time.UnixMilli(v.FirstMS).UTC(), time.UnixMilli(v.LastMS).UTC(), v.Fixes}
		if asJSON {
			if err := w.Print(w.Out, line); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(out, "%s\t%s\t%s\t%d\n", v.Vehicle, line.FirstTime.Format(time.RFC3339Nano), line.LastTime.Format(time.RFC3339Nano), v.Fixes); err != nil {
			return err
		}
	}
	return out.Flush()
}
