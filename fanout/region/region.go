// Package region divides the earth among the matchers of a fleet that is too
// large for one. A Map gives every place to exactly one region, by H3 cells, and
// bounds how far a region is from a place, so that who searches knows whom not
// to ask.
package region

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
)

// Rest stands for all cells that no region lists.
const Rest = "rest"

// Header is the key of the metadata in which a caller states which region, of
// which map, it takes a matcher to keep (Map.Label). A matcher that is limited to
// a region answers nobody else: its answers are a part of the truth, which must
// not be mistaken for the whole.
const Header = "starling-region"

const (
	maxRegions = 1000
	maxCells   = 20_000
	// maxParts is up to how many circles the distance of a region is bounded by
	// looking at each.
	maxParts = 5000
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Map is which region each place is in. It does not change and may be used by
// many goroutines.
type Map struct {
	names       []string
	byCell      [h3.MaxResolution + 1]map[h3.Cell]int // listed cells by resolution
	finest      int                                   // resolution of the finest listed cell
	rest        int                                   // the region that has what is not listed, or -1
	parts       [][]part                              // by region
	resolutions [][]int                               // of the listed cells, as parts
	fingerprint string
}

// part is a circle; those of a region hold all of it.
type part struct {
	centre  geo.Vec
	radiusM float64
}

// Parse reads regions, each NAME=CELL CELL ..., with H3 cells in hexadecimal
// form, of any resolutions; one of them may be NAME=rest. Together they must
// cover the earth, and no two may overlap. The error joins all faults.
func Parse(entries []string) (*Map, error) {
	if len(entries) < 1 || len(entries) > maxRegions {
		return nil, fmt.Errorf("%d regions, must be between 1 and %d", len(entries), maxRegions)
	}
	m := &Map{rest: -1}
	var faults []error
	for _, entry := range entries {
		if err := m.add(entry); err != nil {
			faults = append(faults, err)
		}
	}
	faults = append(faults, m.overlaps()...)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if err := m.complete(); err != nil {
		return nil, err
	}
	m.sign()
	return m, nil
}

func (m *Map) add(entry string) error {
	name, text, ok := strings.Cut(entry, "=")
	if name = strings.TrimSpace(name); !ok || !validName.MatchString(name) {
		return fmt.Errorf("%q: must be NAME=CELL CELL ... or NAME=%s, with a name of 1 to 32 of a-z 0-9 -", entry, Rest)
	}
	if slices.Contains(m.names, name) {
		return fmt.Errorf("region %s is there twice", name)
	}
	number := len(m.names)
	m.names = append(m.names, name)
	m.parts, m.resolutions = append(m.parts, nil), append(m.resolutions, nil)
	cells := strings.Fields(text)
	switch {
	case len(cells) == 0:
		return fmt.Errorf("region %s has no cells", name)
	case len(cells) == 1 && cells[0] == Rest && m.rest >= 0:
		return fmt.Errorf("regions %s and %s are both %s, only one can be", m.names[m.rest], name, Rest)
	case len(cells) == 1 && cells[0] == Rest:
		m.rest = number
		return nil
	}
	var faults []error
	for _, text := range cells {
		cell, err := h3.Parse(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("region %s: %w", name, err))
			continue
		}
		r := cell.Resolution()
		if m.byCell[r] == nil {
			m.byCell[r] = map[h3.Cell]int{}
		}
		if other, taken := m.byCell[r][cell]; taken {
			faults = append(faults, fmt.Errorf("regions %s and %s overlap: both have cell %s", m.names[other], name, cell))
			continue
		}
		m.byCell[r][cell] = number
		m.finest = max(m.finest, r)
		if err := m.reach(number, cell); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// overlaps finds listed cells that lie in listed cells.
func (m *Map) overlaps() (faults []error) {
	listed := 0
	for r, cells := range m.byCell {
		listed += len(cells)
		for cell, number := range cells {
			for coarser := range r {
				if other, taken := m.byCell[coarser][cell.Parent(coarser)]; taken {
					faults = append(faults, fmt.Errorf("regions %s and %s overlap: cell %s lies in %s", m.names[other], m.names[number], cell, cell.Parent(coarser)))
				}
			}
		}
	}
	if listed > maxCells {
		faults = append(faults, fmt.Errorf("%d cells, must be at most %d", listed, maxCells))
	}
	slices.SortFunc(faults, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return faults
}

// complete gives what is not listed to the region that has the rest, and fails
// when there is something but no such region, or such a region but nothing.
func (m *Map) complete() error {
	above := map[h3.Cell]bool{}
	for r, cells := range m.byCell {
		for cell := range cells {
			for coarser := range r {
				above[cell.Parent(coarser)] = true
			}
		}
	}
	roots, err := h3.Roots()
	if err != nil {
		return err
	}
	var missing []h3.Cell
	var visit func(h3.Cell) error
	visit = func(cell h3.Cell) error {
		if _, listed := m.byCell[cell.Resolution()][cell]; listed {
			return nil
		}
		if !above[cell] {
			missing = append(missing, cell)
			return nil
		}
		children, err := cell.Children()
		if err != nil {
			return err
		}
		for _, child := range children {
			if err := visit(child); err != nil {
				return err
			}
		}
		return nil
	}
	for _, root := range roots {
		if err := visit(root); err != nil {
			return err
		}
	}
	switch {
	case m.rest < 0 && len(missing) > 0:
		return fmt.Errorf("no region has %s (and %d more cells): list all of the earth's cells, or make one region %q", missing[0], len(missing)-1, "NAME="+Rest)
	case m.rest >= 0 && len(missing) == 0:
		return fmt.Errorf("region %s is empty: the others have all cells", m.names[m.rest])
	}
	listed := m.listed()
	for _, cell := range missing {
		if err := m.reachFinely(cell, listed); err != nil {
			return err
		}
	}
	return nil
}

// listedPart is the circle of a listed cell.
type listedPart struct {
	part
	resolution int
}

// listed returns the circles of all listed cells, but those of regions that have
// so many that their distance is not looked at.
func (m *Map) listed() (out []listedPart) {
	for number, parts := range m.parts {
		if number == m.rest || len(parts) > maxParts {
			continue
		}
		for i, p := range parts {
			out = append(out, listedPart{p, m.resolutions[number][i]})
		}
	}
	return out
}

// borderDetail is by how many resolutions the rest is taken finer than a listed
// cell that it borders on.
const borderDetail = 2

// reachFinely adds circles that hold a cell to the region that has the rest.
// Where the cell borders on listed ones that are not much coarser it is taken as
// its descendants: one circle around a continent would not show how far it
// is from a city. The listed cells are those that the cell's circle may meet. It
// holds those of its descendants, so a cell is compared with few, and only some
// dozens of cells of each resolution border on a listed one: the cost is by the
// number of these.
func (m *Map) reachFinely(cell h3.Cell, listed []listedPart) error {
	p, err := around(cell)
	if err != nil {
		return err
	}
	r := cell.Resolution()
	var near []listedPart
	for i := range listed {
		if one := &listed[i]; one.resolution+borderDetail > r && p.meets(one.part) {
			near = append(near, *one)
		}
	}
	if r == m.finest || len(near) == 0 {
		m.parts[m.rest] = append(m.parts[m.rest], p)
		return nil
	}
	children, err := cell.Children()
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := m.reachFinely(child, near); err != nil {
			return err
		}
	}
	return nil
}

// meets returns whether two circles may have a place in common.
func (p part) meets(other part) bool {
	return geo.EarthRadiusM*math.Sqrt(geo.Chord2(p.centre, other.centre)) < p.radiusM+other.radiusM
}

// reach adds a circle that holds a cell and all its descendants to a region.
func (m *Map) reach(number int, cell h3.Cell) error {
	p, err := around(cell)
	if err == nil {
		m.parts[number] = append(m.parts[number], p)
		m.resolutions[number] = append(m.resolutions[number], cell.Resolution())
	}
	return err
}

// around returns a circle that holds a cell and all its descendants.
func around(cell h3.Cell) (part, error) {
	c, err := cell.Cap()
	return part{c.Centre, c.RadiusM()}, err
}

// sign computes the fingerprint: of names and cells, in whatever order they were
// listed.
func (m *Map) sign() {
	var lines []string
	for _, cells := range m.byCell {
		for cell, number := range cells {
			lines = append(lines, m.names[number]+"="+cell.String())
		}
	}
	if m.rest >= 0 {
		lines = append(lines, m.names[m.rest]+"="+Rest)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	m.fingerprint = hex.EncodeToString(sum[:8])
}

// Names are the regions' names by number, in the order in which they were
// listed.
func (m *Map) Names() []string { return slices.Clone(m.names) }

// Number returns the number of a region, or -1 if there is none of that name.
func (m *Map) Number(name string) int { return slices.Index(m.names, name) }

// Label names a region together with the fingerprint of the map that it is a
// region of: two processes with the same label mean the same places.
func (m *Map) Label(number int) string { return m.names[number] + "/" + m.fingerprint }

// Of returns the number of the region that a position is in: that of the cell
// published with it, or, if that is coarser than a listed cell or 0, that of the
// cell which the position is in. It is a function of its arguments, so everyone
// who has the same map and the same view of a vehicle puts it into the same
// region.
func (m *Map) Of(cell h3.Cell, latDeg, lonDeg float64) int {
	if cell == 0 || cell.Resolution() < m.finest {
		var err error
		if cell, err = h3.At(latDeg, lonDeg, m.finest); err != nil {
			return max(m.rest, 0) // no place on the earth is without a cell
		}
	}
	for r := range m.finest + 1 {
		if m.byCell[r] == nil {
			continue
		}
		if number, listed := m.byCell[r][cell.Parent(r)]; listed {
			return number
		}
	}
	return max(m.rest, 0) // without a rest, all cells are listed
}

// DistanceM returns a lower bound in metres of the great-circle distance from a
// place to any position that Of puts into a region, provided the cell published
// with it is the position's.
func (m *Map) DistanceM(number int, from geo.Vec) float64 {
	parts := m.parts[number]
	if len(parts) > maxParts {
		return 0
	}
	least := math.Inf(1)
	for i := range parts {
		// The straight line is no longer than the great circle, and cheaper.
		d := geo.EarthRadiusM*math.Sqrt(geo.Chord2(parts[i].centre, from)) - parts[i].radiusM
		if d <= 0 {
			return 0
		}
		least = min(least, d)
	}
	return least
}
