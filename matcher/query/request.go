package query

import (
	"encoding/base64"
	"math"
	"strings"

	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Bounds of requests; fleet.proto states them.
const (
	defaultResults  = 10
	maxResults      = 1000
	defaultPageSize = 1000
	maxPageSize     = 10_000
	maxTypes        = 100
	maxTags         = limits.MaxTags
	maxLabelLength  = limits.MaxLabelChars
	maxSeats        = limits.MaxSeats
)

// query turns a search request into the index's form.
func (f *Faults) query(req *starlingv1.SearchNearestRequest, now *follow.Moment) liveindex.Query {
	q := liveindex.Query{MaxResults: f.Size("max_results", req.GetMaxResults(), defaultResults, maxResults), RadiusM: req.GetRadiusM()}
	q.LatDeg, q.LonDeg = f.position("place", req.GetPlace())
	f.Need(q.RadiusM >= 0 && !math.IsInf(q.RadiusM, 0), "radius_m", q.RadiusM, "0 (for no bound) or positive and finite")
	q.Filter = f.Filter(req.GetFilter(), now)
	q.Within = f.Area("area", req.GetArea(), false)
	_, known := starlingv1.Ranking_name[int32(req.GetRanking())]
	f.Need(known, "ranking", int32(req.GetRanking()), "one of the rankings")
	return q
}

func (f *Faults) position(field string, p *starlingv1.Place) (latDeg, lonDeg float64) {
	f.Require(p != nil, field, "a position")
	f.Position(field+".", p.GetLatitude(), p.GetLongitude())
	return p.GetLatitude(), p.GetLongitude()
}

// Filter turns a filter into the index's form, with ages as of a moment.
func (f *Faults) Filter(in *starlingv1.VehicleFilter, now *follow.Moment) liveindex.Filter {
	out := liveindex.Filter{
		Availabilities: in.GetAvailabilities(), Dispatchable: in.GetDispatchable(),
		Types: in.GetTypes(), MinSeats: in.GetMinSeats(), Tags: in.GetTags(), Skew: now.Skew,
	}
	for _, a := range out.Availabilities {
		f.availability("filter.availabilities", a)
	}
	f.labels("filter.types", out.Types, maxTypes)
	f.labels("filter.tags", out.Tags, maxTags)
	f.Need(out.MinSeats >= 0 && out.MinSeats <= maxSeats, "filter.min_seats", out.MinSeats, "between 0 and %d", maxSeats)
	if age := in.GetMaxAge(); age != nil {
		f.Need(age.CheckValid() == nil && age.AsDuration() > 0, "filter.max_age", age.AsDuration(), "a positive duration")
		// A part of a millisecond counts for the vehicle: its time has none.
		out.MinFixTimeMS = max(1, now.MS-int64(math.Ceil(age.AsDuration().Seconds()*1000)))
	}
	if out.Dispatchable {
		out.MinFixTimeMS = max(1, out.MinFixTimeMS, now.MS-now.DispatchMaxAgeMS)
	}
	return out
}

func (f *Faults) availability(field string, a starlingv1.Availability) {
	_, known := starlingv1.Availability_name[int32(a)]
	f.Need(known && a != starlingv1.Availability_AVAILABILITY_UNSPECIFIED, field, int32(a), "one of the availabilities")
}

func (f *Faults) labels(field string, labels []string, atMost int) {
	if !f.Count(field, len(labels), 0, atMost) {
		return
	}
	for _, l := range labels {
		f.Text(field, l, 1, maxLabelLength)
	}
}

// Page tokens name the id after which the page starts, in a form that is not
// meant to be made up.
const pageTokenVersion = "1:"

// PageToken is the token of the page of ListVehicles that starts behind a
// vehicle id.
func PageToken(after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(pageTokenVersion + after))
}

// PageStart is the id that PageToken was given.
func PageStart(token string) (after string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	after, ok = strings.CutPrefix(string(raw), pageTokenVersion)
	return after, ok && err == nil && limits.ValidVehicleID(after)
}

func (f *Faults) pageStart(token string) (after string) {
	if token == "" {
		return ""
	}
	after, ok := PageStart(token)
	f.Need(ok, "page_token", token, "a token that ListVehicles returned")
	return after
}
