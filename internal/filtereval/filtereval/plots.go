package main

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
	"github.com/starling-fleet/starling/internal/filtereval"
)

var (
	truthColor = color.RGBA{0x30, 0x30, 0x30, 0xff}
	rawColor   = color.RGBA{0xd9, 0x5f, 0x02, 0xff}
	liveColor  = color.RGBA{0x1b, 0x6c, 0xa8, 0xff}
	boundColor = color.RGBA{0x9a, 0xc4, 0xe4, 0xff}
)

// plots draws the pictures of docs/gpsfilter.md into folder out, from the
// drives in dir that may be shown: ppc and comma2k19.
func plots(dir, out string) error {
	streams, err := filtereval.LoadDir(dir)
	if err != nil {
		return err
	}
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	if err != nil {
		return fmt.Errorf("make filter: %w", err)
	}
	var shown []filtereval.Stream
	for _, s := range streams {
		if s.Kind == "ppc" || s.Kind == "comma2k19" {
			shown = append(shown, s)
		}
	}
	var tokyo *filtereval.Stream
	for i := range shown {
		if strings.Contains(shown[i].Name, "tokyo_run2") {
			tokyo = &shown[i]
		}
	}
	if tokyo == nil {
		return fmt.Errorf("no ppc tokyo_run2 in %s", dir)
	}
	at1 := filtereval.Every(tokyo.Fixes, 1000)
	clean := filtereval.Trace(tokyo, at1, filtereval.Starling(f))
	faulty, _ := filtereval.Inject(at1, filtereval.AllFaults(), 2)
	broken := filtereval.Trace(tokyo, faulty, filtereval.Starling(f))
	pictures := []struct {
		name string
		draw func() (*plot.Plot, error)
	}{
		{"map-clean", func() (*plot.Plot, error) { return drawMap("Tokyo, 1 Hz, as received", clean, 640, 760) }},
		{"map-faulted", func() (*plot.Plot, error) { return drawMap("Tokyo, 1 Hz, with injected faults", broken, 280, 420) }},
		{"error-over-time", func() (*plot.Plot, error) { return drawErrors(clean, 250, 900) }},
		{"calibration", func() (*plot.Plot, error) { return drawCalibration(shown, filtereval.Starling(f)) }},
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

func between(tr []filtereval.TracePoint, fromS, toS float64) []filtereval.TracePoint {
	var out []filtereval.TracePoint
	for _, p := range tr {
		if p.TimeS >= fromS && p.TimeS <= toS {
			out = append(out, p)
		}
	}
	return out
}

func drawMap(title string, tr []filtereval.TracePoint, fromS, toS float64) (*plot.Plot, error) {
	tr = between(tr, fromS, toS)
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "metres east", "metres north"
	var truth, raw, live plotter.XYs
	loE, loN, hiE, hiN := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, t := range tr {
		if t.Known {
			truth = append(truth, plotter.XY{X: t.Truth.EastM, Y: t.Truth.NorthM})
		}
		raw = append(raw, plotter.XY{X: t.Raw.EastM, Y: t.Raw.NorthM})
		live = append(live, plotter.XY{X: t.Live.EastM, Y: t.Live.NorthM})
		loE, loN = min(loE, t.Live.EastM), min(loN, t.Live.NorthM)
		hiE, hiN = max(hiE, t.Live.EastM), max(hiN, t.Live.NorthM)
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
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = loE-margin, hiE+margin, loN-margin, hiN+margin
	p.Legend.Top = true
	return p, nil
}

func drawErrors(tr []filtereval.TracePoint, fromS, toS float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "Tokyo, 1 Hz: error over time", "seconds", "metres"
	var raw, live, bound plotter.XYs
	for _, t := range between(tr, fromS, toS) {
		if !t.Known {
			continue
		}
		raw = append(raw, plotter.XY{X: t.TimeS, Y: t.Raw.DistanceM(t.Truth)})
		live = append(live, plotter.XY{X: t.TimeS, Y: t.Live.DistanceM(t.Truth)})
		bound = append(bound, plotter.XY{X: t.TimeS, Y: t.Sigma95M})
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
func drawCalibration(streams []filtereval.Stream, f filtereval.Runner) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "Calibration, 1 Hz", "stated probability", "share of truth inside"
	colors := []color.Color{rawColor, liveColor, color.RGBA{0x2c, 0xa0, 0x2c, 0xff}, color.RGBA{0x7b, 0x3f, 0x9e, 0xff}}
	if err := addLine(p, "ideal", plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}}, truthColor, 0.8); err != nil {
		return nil, err
	}
	for i := range streams {
		var line plotter.XYs
		tr := filtereval.Trace(&streams[i], filtereval.Every(streams[i].Fixes, 1000), f)
		for q := 0.05; q < 0.995; q += 0.05 {
			in, n := 0, 0
			for _, t := range tr {
				if !t.Known {
					continue
				}
				n++
				if t.D2 <= -2*math.Log(1-q) {
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
