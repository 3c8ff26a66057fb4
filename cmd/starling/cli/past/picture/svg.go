package picture

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
)

// legendHeight is that of the legend below a map, in pixels.
const legendHeight = 44

// head begins a picture on white.
func head(w io.Writer, width, height int, title string) {
	_, _ = fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13"><title>%s</title><rect width="100%%" height="100%%" fill="#fff"/>`+"\n",
		width, height, width, height, escape(title))
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

func drawSVG(to io.Writer, m *Map) error {
	w := bufio.NewWriter(to)
	f := m.frame()
	head(w, f.width, f.height+legendHeight, m.Legend())
	for i, share := range m.shares() {
		c := colour(share)
		_, _ = fmt.Fprintf(w, `<path fill="#%02x%02x%02x" d="%s"/>`+"\n", c.R, c.G, c.B, path(&f, slices.Values(m.Cells[i].Outline))+"z")
	}
	for i, c := range palette {
		step := float64(f.width) * 0.3 / float64(len(palette))
		_, _ = fmt.Fprintf(w, `<rect x="%.1f" y="%d" width="%.1f" height="10" fill="#%02x%02x%02x"/>`, 10+float64(i)*step, f.height+8, step+0.5, c.R, c.G, c.B)
	}
	_, _ = fmt.Fprintf(w, "\n"+`<text x="10" y="%d">%s</text></svg>`+"\n", f.height+36, escape(m.Legend()))
	return w.Flush()
}

// path is the way through points.
func path(f *frame, points iter.Seq[Point]) string {
	var b strings.Builder
	command := "M"
	for p := range points {
		x, y := f.pixel(p)
		_, _ = fmt.Fprintf(&b, "%s%.1f %.1f", command, x, y)
		command = "L"
	}
	return b.String()
}

// Track is a way over a map: dots and a line.
type Track struct {
	Title      string
	Dots, Line []Point
	// Width is that of the longer side in pixels.
	Width int
}

// DrawTrack draws a track as SVG; one without points is empty.
func DrawTrack(to io.Writer, t *Track) error {
	w := bufio.NewWriter(to)
	if len(t.Dots)+len(t.Line) == 0 {
		head(w, t.Width, legendHeight, t.Title)
		_, _ = fmt.Fprintln(w, "</svg>")
		return w.Flush()
	}
	f := newFrame([][]Point{slices.Concat(t.Dots, t.Line)}, t.Width)
	head(w, f.width, f.height+legendHeight, t.Title)
	_, _ = fmt.Fprint(w, `<g fill="#e4572e">`)
	for _, p := range t.Dots {
		x, y := f.pixel(p)
		_, _ = fmt.Fprintf(w, `<circle cx="%.1f" cy="%.1f" r="2"/>`, x, y)
	}
	_, _ = fmt.Fprintf(w, "</g>\n"+`<path fill="none" stroke="#1b5e9b" stroke-width="1.5" stroke-linejoin="round" d="%s"/>`+"\n", path(&f, slices.Values(t.Line)))
	_, _ = fmt.Fprintf(w, `<circle cx="16" cy="%[1]d" r="4" fill="#e4572e"/><text x="26" y="%[2]d">as reported</text><path stroke="#1b5e9b" stroke-width="2" d="M120 %[1]dh20"/><text x="146" y="%[2]d">corrected</text></svg>`+"\n", f.height+20, f.height+25)
	return w.Flush()
}
