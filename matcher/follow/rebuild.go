package follow

import (
	"slices"
	"strings"

	"github.com/starling-fleet/starling/schemas/wire"
)

// staged are the newest views of a partition that is being rebuilt. Nobody
// searches yet, and most views in the stretch that is read are soon replaced, so
// the index gets only the last one of each vehicle.
type staged struct {
	places map[string]int32
	views  []wire.View // by place; one without a vehicle id was forgotten
}

// put keeps a copy of the view.
func (s *staged) put(v *wire.View) {
	at, known := s.places[v.VehicleID]
	if !known {
		if s.places == nil {
			s.places = map[string]int32{}
		}
		at = int32(len(s.views))
		id := strings.Clone(v.VehicleID)
		s.places[id] = at
		s.views = append(s.views, wire.View{VehicleID: id})
	}
	kept := &s.views[at]
	id, tags := kept.VehicleID, kept.Attributes.Tags
	if !slices.Equal(tags, v.Attributes.Tags) {
		tags = slices.Clone(v.Attributes.Tags)
	}
	*kept = *v
	kept.VehicleID, kept.Attributes.Tags = id, tags
}

// forget drops the vehicle's view and reports whether there was one.
func (s *staged) forget(id string) bool {
	at, known := s.places[id]
	if known {
		delete(s.places, id)
		s.views[at] = wire.View{}
	}
	return known
}

// stages reports whether the partition's views wait for the end of its rebuild. A
// matcher of a region looks at each view as it comes: whether a vehicle has left
// depends on where it was.
func (f *Follower) stages(p *partition) bool { return !p.rebuilt && f.resident == nil }

// unstage puts what has waited into the index.
func (f *Follower) unstage(p *partition) {
	views := p.staged.views
	p.staged = staged{}
	for i := range views {
		if views[i].VehicleID != "" {
			f.upsert(p, &views[i])
		}
	}
}
