// Package zone knows the zones that an operator declares, such as an airport's
// rank, in which vehicles are taken first come, first served: where they are, which
// partition of `rides` each one's queue belongs to, and who joins and leaves. It is
// pure; the queues themselves are part of the fold of `rides` (rides/life).
package zone

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/starling-fleet/starling/internal/h3"
)

const (
	// maxZones and maxCells bound a configuration: membership is looked up for
	// every candidate of every ride.
	maxZones, maxCells = 256, 10_000
	// maxNameChars is the length of the longest name of a zone.
	maxNameChars = 64
)

// Zone is one declared zone.
type Zone struct {
	// Name is the zone's, unique and part of its queue's records.
	Name string
	// Partition is that of `rides` which its queue and the rides from it belong to.
	Partition int32
	// Cells are the H3 cells that it consists of.
	Cells []h3.Cell
}

// Map is all declared zones. It does not change, and may be read by any number of
// goroutines. The nil Map has none.
type Map struct {
	zones       []*Zone
	of          map[h3.Cell]*Zone
	resolutions []int
}

// Parse reads entries of the form NAME=CELL CELL ..., the cells in hexadecimal and
// of any resolution. Zones may not overlap. partitionOf gives the partition of a
// zone's name; it must be the same in every process.
func Parse(entries []string, partitionOf func(name string) int32) (*Map, error) {
	m := &Map{of: map[h3.Cell]*Zone{}}
	if len(entries) > maxZones {
		return nil, fmt.Errorf("%d zones: must be at most %d", len(entries), maxZones)
	}
	var faults []error
	for _, entry := range entries {
		if err := m.add(entry, partitionOf); err != nil {
			faults = append(faults, err)
		}
	}
	if len(m.of) > maxCells {
		faults = append(faults, fmt.Errorf("%d cells: must be at most %d in all zones together", len(m.of), maxCells))
	}
	m.resolutions = m.usedResolutions()
	faults = append(faults, m.overlaps()...)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Map) add(entry string, partitionOf func(string) int32) error {
	name, list, ok := strings.Cut(entry, "=")
	if !ok || !validName(name) {
		return fmt.Errorf("%q: must be NAME=CELL CELL ..., with a name of 1 to %d of the characters A-Z a-z 0-9 - _", entry, maxNameChars)
	}
	if slices.ContainsFunc(m.zones, func(z *Zone) bool { return z.Name == name }) {
		return fmt.Errorf("%s: must be declared once", name)
	}
	z := &Zone{Name: name, Partition: partitionOf(name)}
	for _, text := range strings.Fields(list) {
		cell, err := h3.Parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if other := m.of[cell]; other != nil {
			return fmt.Errorf("%s: cell %s must be in one zone only, and is in %s", name, cell, other.Name)
		}
		m.of[cell] = z
		z.Cells = append(z.Cells, cell)
	}
	if len(z.Cells) == 0 {
		return fmt.Errorf("%s: must have a cell", name)
	}
	m.zones = append(m.zones, z)
	return nil
}

func validName(name string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return len(name) >= 1 && len(name) <= maxNameChars && strings.Trim(name, allowed) == ""
}

func (m *Map) usedResolutions() []int {
	used := map[int]bool{}
	for cell := range m.of {
		used[cell.Resolution()] = true
	}
	return slices.Sorted(maps.Keys(used))
}

// overlaps finds cells that lie in a coarser cell of any zone.
func (m *Map) overlaps() (faults []error) {
	for _, z := range m.zones {
		for _, cell := range z.Cells {
			for _, r := range m.resolutions {
				if r >= cell.Resolution() {
					break
				}
				if other := m.of[cell.Parent(r)]; other != nil {
					faults = append(faults, fmt.Errorf("%s: cell %s must not lie in cell %s of %s", z.Name, cell, cell.Parent(r), other.Name))
				}
			}
		}
	}
	return faults
}

// At returns the zone of a position, nil if it is in none.
func (m *Map) At(latDeg, lonDeg float64) *Zone { return m.find(0, -1, latDeg, lonDeg) }

// OfVehicle returns the zone of a vehicle whose position was published with a
// cell, nil if it is in none. As in searches by area, a zone's cell has it when the
// published one lies in it; a finer one, when the position is in it.
func (m *Map) OfVehicle(published h3.Cell, latDeg, lonDeg float64) *Zone {
	return m.find(published, published.Resolution(), latDeg, lonDeg)
}

// find looks a position up, down to a resolution by its published cell.
func (m *Map) find(published h3.Cell, known int, latDeg, lonDeg float64) *Zone {
	if m == nil {
		return nil
	}
	for _, r := range m.resolutions {
		cell := published
		if r > known {
			var err error
			if cell, err = h3.At(latDeg, lonDeg, r); err != nil {
				return nil // not a position on the earth
			}
		}
		if z := m.of[cell.Parent(r)]; z != nil {
			return z
		}
	}
	return nil
}

// Partitions returns those that have a zone, in order.
func (m *Map) Partitions() []int32 {
	if m == nil {
		return nil
	}
	its := map[int32]bool{}
	for _, z := range m.zones {
		its[z.Partition] = true
	}
	return slices.Sorted(maps.Keys(its))
}

// Of returns the zones whose queues belong to a partition, as they were declared.
func (m *Map) Of(partition int32) []*Zone {
	if m == nil {
		return nil
	}
	var its []*Zone
	for _, z := range m.zones {
		if z.Partition == partition {
			its = append(its, z)
		}
	}
	return its
}
