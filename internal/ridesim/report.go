package ridesim

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Table writes the rows as a table in Markdown.
func Table(w io.Writer, rows []Row) error {
	var b strings.Builder
	b.WriteString("| supply | rule | served | wait, s: mean | p50 | p95 | p99 | pickup, m: mean | p95 | on board | on the way |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s (%g %%, %d) | %s | %.2f %% | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f %% | %.0f %% |\n",
			r.Supply.Name, 100*r.Supply.Share, r.Supply.Vehicles, r.Rule, 100*r.ServedShare, r.WaitS.Mean, r.WaitS.P50, r.WaitS.P95, r.WaitS.P99,
			r.PickupM.Mean, r.PickupM.P95, 100*r.OnBoardShare, 100*r.EmptyShare)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// The picture has a panel for each figure and a group of bars for each supply.
const (
	panelW, panelH, marginPX = 300.0, 220.0, 46.0
)

var colours = []string{"#9aa5b1", "#5b8def", "#1a9c6b", "#d98a3d", "#8f6bd0", "#c94f6d"}

type panel struct {
	title string
	value func(*Row) float64
}

// Picture draws the rows as SVG: mean wait, mean pickup distance and share
// served, a bar for each rule.
func Picture(w io.Writer, rows []Row) error {
	panels := []panel{
		{"mean wait, s", func(r *Row) float64 { return r.WaitS.Mean }},
		{"mean way to the pickup, m", func(r *Row) float64 { return r.PickupM.Mean }},
		{"served, %", func(r *Row) float64 { return 100 * r.ServedShare }},
	}
	var supplies, rules []string
	for _, r := range rows {
		supplies, rules = appendNew(supplies, r.Supply.Name), appendNew(rules, r.Rule)
	}
	var b strings.Builder
	width, height := float64(len(panels))*panelW, panelH+2*marginPX
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" font-family="sans-serif" font-size="11">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="white"/>`+"\n", width, height)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%g,0)">`+"\n", float64(i)*panelW)
		drawPanel(&b, p, rows, supplies, rules)
		b.WriteString("</g>\n")
	}
	for i, rule := range rules {
		x := marginPX + float64(i)*110
		fmt.Fprintf(&b, `<rect x="%g" y="%g" width="10" height="10" fill="%s"/><text x="%g" y="%g">%s</text>`+"\n",
			x, height-18, colours[i%len(colours)], x+14, height-9, html.EscapeString(rule))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func appendNew(to []string, s string) []string {
	for _, have := range to {
		if have == s {
			return to
		}
	}
	return append(to, s)
}

func drawPanel(b *strings.Builder, p panel, rows []Row, supplies, rules []string) {
	most := 0.0
	for i := range rows {
		most = max(most, p.value(&rows[i]))
	}
	if most == 0 {
		most = 1
	}
	base := marginPX/2 + panelH
	fmt.Fprintf(b, `<text x="%g" y="16" font-weight="bold">%s</text>`+"\n", marginPX, html.EscapeString(p.title))
	group := (panelW - marginPX - 10) / float64(len(supplies))
	bar := group * 0.85 / float64(len(rules))
	for i, supply := range supplies {
		left := marginPX + float64(i)*group
		for j, rule := range rules {
			for k := range rows {
				if rows[k].Supply.Name != supply || rows[k].Rule != rule {
					continue
				}
				v := p.value(&rows[k])
				h := v / most * (panelH - 20)
				x := left + float64(j)*bar
				fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, base-h, bar*0.9, h, colours[j%len(colours)])
				fmt.Fprintf(b, `<text x="%.1f" y="%.1f" font-size="7" text-anchor="middle">%.0f</text>`+"\n", x+bar*0.45, base-h-2, v)
			}
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", left+group*0.42, base+14, html.EscapeString(supply))
	}
	fmt.Fprintf(b, `<line x1="%g" y1="%g" x2="%g" y2="%g" stroke="black"/>`+"\n", marginPX, base, panelW-10, base)
}
