package filtereval

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgimg" // draws PNG

	"github.com/starling-fleet/starling/gpsfilter"
)

var (
	truthColor = color.RGBA{0x30, 0x30, 0x30, 0xff}
	rawColor   = color.RGBA{0xd9, 0x5f, 0x02, 0xff}
	liveColor  = color.RGBA{0x1b, 0x6c, 0xa8, 0xff}
	boundColor = color.RGBA{0x9a, 0xc4, 0xe4, 0xff}
)

// Plots draws the pictures of docs/gpsfilter.md into folder out, from the
// drives in dir that may be shown: ppc and comma2k19.
func Plots(dir, out string) error {
	streams, err := LoadDir(dir)
	if err != nil {
		return err
	}
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	if err != nil {
		return fmt.Errorf("make filter: %w", err)
	}
	var shown []Stream
	for _, s := range streams {
		if s.Kind == "ppc" || s.Kind == "comma2k19" {
			shown = append(shown, s)
		}
	}
	var tokyo *Stream
	for i := range shown {
		if strings.Contains(shown[i].Name, "tokyo_run2") {
			tokyo = &shown[i]
		}
	}
	if tokyo == nil {
		return fmt.Errorf("no ppc tokyo_run2 in %s", dir)
	}
	at1 := Every(tokyo.Fixes, 1000)
	clean := trace(tokyo, at1, Starling(f))
	faulty, _ := Inject(at1, AllFaults(), 2)
	broken := trace(tokyo, faulty, Starling(f))
	pictures := []struct {
		name string
		draw func() (*plot.Plot, error)
	}{
		{"map-clean", func() (*plot.Plot, error) { return drawMap("Tokyo, 1 Hz, as received", clean, 640, 760) }},
		{"map-faulted", func() (*plot.Plot, error) { return drawMap("Tokyo, 1 Hz, with injected faults", broken, 280, 420) }},
		{"error-over-time", func() (*plot.Plot, error) { return drawErrors(clean, 250, 900) }},
		{"calibration", func() (*plot.Plot, error) { return drawCalibration(shown, Starling(f)) }},
	}
	for _, p := range pictures {
		pl, err := p.draw()
		if err != nil {
			return fmt.Errorf("draw %s: %w", p.name, err)
		}
		if err := pl.Save(16*vg.Centimeter, 10*vg.Centimeter, filepath.Join(out, p.name+".png")); err != nil {
			return fmt.Errorf("save %s: %w", p.name, err)
		}
	}
	return nil
}

// tracePoint is one row of a run; off is the distance under the stated
// covariance.
type tracePoint struct {
	s                float64
	raw, live, truth vec
	known            bool
	sigma95          float64
	d2               float64
}

func trace(s *Stream, fixes []gpsfilter.Fix, f Runner) []tracePoint {
	fr := newFrame(s)
	ref := newReference(newTruthPath(s, fr), fixes)
	live := f(fixes)
	out := make([]tracePoint, len(fixes))
	for i, fix := range fixes {
		e := live[i]
		p := tracePoint{
			s:   float64(fix.TimeMS-fixes[0].TimeMS) / 1000,
			raw: fr.vec(fix.LatDeg, fix.LonDeg), live: fr.vec(e.LatDeg, e.LonDeg), truth: ref.at[i], known: ref.known[i],
		}
		mean, diff := (e.VarEastM2+e.VarNorthM2)/2, (e.VarEastM2-e.VarNorthM2)/2
		p.sigma95 = math.Sqrt(ellipse95 * (mean + math.Hypot(diff, e.CovEastNorthM2)))
		d := p.live.sub(p.truth)
		det := e.VarEastM2*e.VarNorthM2 - e.CovEastNorthM2*e.CovEastNorthM2
		p.d2 = (d.e*d.e*e.VarNorthM2 - 2*d.e*d.n*e.CovEastNorthM2 + d.n*d.n*e.VarEastM2) / det
		out[i] = p
	}
	return out
}

func between(tr []tracePoint, fromS, toS float64) []tracePoint {
	var out []tracePoint
	for _, p := range tr {
		if p.s >= fromS && p.s <= toS {
			out = append(out, p)
		}
	}
	return out
}

func drawMap(title string, tr []tracePoint, fromS, toS float64) (*plot.Plot, error) {
	tr = between(tr, fromS, toS)
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "metres east", "metres north"
	var truth, raw, live plotter.XYs
	lo, hi := vec{math.Inf(1), math.Inf(1)}, vec{math.Inf(-1), math.Inf(-1)}
	for _, t := range tr {
		if t.known {
			truth = append(truth, plotter.XY{X: t.truth.e, Y: t.truth.n})
		}
		raw = append(raw, plotter.XY{X: t.raw.e, Y: t.raw.n})
		live = append(live, plotter.XY{X: t.live.e, Y: t.live.n})
		lo = vec{min(lo.e, t.live.e), min(lo.n, t.live.n)}
		hi = vec{max(hi.e, t.live.e), max(hi.n, t.live.n)}
	}
	if err := addLine(p, "as received", raw, rawColor, 0.8); err != nil {
		return nil, err
	}
	if err := addLine(p, "truth", truth, truthColor, 2.5); err != nil {
		return nil, err
	}
	if err := addLine(p, "live", live, liveColor, 1.6); err != nil {
		return nil, err
	}
	const margin = 60
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = lo.e-margin, hi.e+margin, lo.n-margin, hi.n+margin
	p.Legend.Top = true
	return p, nil
}

func drawErrors(tr []tracePoint, fromS, toS float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "Tokyo, 1 Hz: error over time", "seconds", "metres"
	var raw, live, bound plotter.XYs
	for _, t := range between(tr, fromS, toS) {
		if !t.known {
			continue
		}
		raw = append(raw, plotter.XY{X: t.s, Y: t.raw.sub(t.truth).norm()})
		live = append(live, plotter.XY{X: t.s, Y: t.live.sub(t.truth).norm()})
		bound = append(bound, plotter.XY{X: t.s, Y: t.sigma95})
	}
	if err := addLine(p, "stated 95 %, long axis", bound, boundColor, 1.5); err != nil {
		return nil, err
	}
	if err := addLine(p, "as received", raw, rawColor, 0.8); err != nil {
		return nil, err
	}
	if err := addLine(p, "live", live, liveColor, 1.2); err != nil {
		return nil, err
	}
	p.Y.Min, p.Y.Max = 0, 70
	p.Legend.Top = true
	return p, nil
}

// drawCalibration shows the share of truth inside the stated ellipse of each
// probability.
func drawCalibration(streams []Stream, f Runner) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "Calibration, 1 Hz", "stated probability", "share of truth inside"
	colors := []color.Color{rawColor, liveColor, color.RGBA{0x2c, 0xa0, 0x2c, 0xff}, color.RGBA{0x7b, 0x3f, 0x9e, 0xff}}
	if err := addLine(p, "ideal", plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}}, truthColor, 0.8); err != nil {
		return nil, err
	}
	for i := range streams {
		var line plotter.XYs
		tr := trace(&streams[i], Every(streams[i].Fixes, 1000), f)
		for q := 0.05; q < 0.995; q += 0.05 {
			in, n := 0, 0
			for _, t := range tr {
				if !t.known {
					continue
				}
				n++
				if t.d2 <= -2*math.Log(1-q) {
					in++
				}
			}
			line = append(line, plotter.XY{X: q, Y: float64(in) / float64(n)})
		}
		if err := addLine(p, streams[i].Name, line, colors[i%len(colors)], 1.5); err != nil {
			return nil, err
		}
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Y.Max = 1.35
	return p, nil
}

func addLine(p *plot.Plot, name string, xy plotter.XYs, c color.Color, width float64) error {
	l, err := plotter.NewLine(xy)
	if err != nil {
		return err
	}
	l.LineStyle = draw.LineStyle{Color: c, Width: vg.Points(width)}
	p.Add(l)
	p.Legend.Add(name, l)
	return nil
}
