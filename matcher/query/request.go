package query

import (
	"encoding/base64"
	"math"
	"strings"
	"unicode/utf8"

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

// VehicleID returns the id in a resource name.
func (f *Faults) VehicleID(field, name string) string {
	id, ok := strings.CutPrefix(name, limits.VehicleNamePrefix)
	if !ok || !limits.ValidVehicleID(id) {
		f.Add(field, "must be vehicles/{vehicle_id}, with a vehicle id of "+limits.VehicleIDRule)
	}
	return id
}

// query turns a search request into the index's form.
func (f *Faults) query(req *starlingv1.SearchNearestRequest, now *follow.Moment) liveindex.Query {
	q := liveindex.Query{MaxResults: int(req.GetMaxResults()), RadiusM: req.GetRadiusM()}
	q.LatDeg, q.LonDeg = f.position("place", req.GetPlace())
	if q.MaxResults == 0 {
		q.MaxResults = defaultResults
	}
	if q.MaxResults < 0 || q.MaxResults > maxResults {
		f.Add("max_results", "is %d, must be 0 (for %d) or between 1 and %d", q.MaxResults, defaultResults, maxResults)
	}
	if !(q.RadiusM >= 0) || math.IsInf(q.RadiusM, 0) {
		f.Add("radius_m", "is %v, must be 0 (for no bound) or positive and finite", q.RadiusM)
	}
	q.Filter = f.Filter(req.GetFilter(), now)
	q.Within = f.Area("area", req.GetArea(), false)
	if _, known := starlingv1.Ranking_name[int32(req.GetRanking())]; !known {
		f.Add("ranking", "%d is not a ranking", req.GetRanking())
	}
	return q
}

func (f *Faults) position(field string, p *starlingv1.Place) (latDeg, lonDeg float64) {
	if p == nil {
		f.Add(field, "is required")
		return 0, 0
	}
	// Negated, so that NaN is refused too.
	if !(p.GetLatitude() >= -90 && p.GetLatitude() <= 90) {
		f.Add(field+".latitude", "is %v, must be between -90 and 90", p.GetLatitude())
	}
	if !(p.GetLongitude() >= -180 && p.GetLongitude() <= 180) {
		f.Add(field+".longitude", "is %v, must be between -180 and 180", p.GetLongitude())
	}
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
	if out.MinSeats < 0 || out.MinSeats > maxSeats {
		f.Add("filter.min_seats", "is %d, must be between 0 and %d", out.MinSeats, maxSeats)
	}
	if age := in.GetMaxAge(); age != nil {
		if age.CheckValid() != nil || age.AsDuration() <= 0 {
			f.Add("filter.max_age", "must be a positive duration")
		}
		// A part of a millisecond counts for the vehicle: its time has none.
		out.MinFixTimeMS = max(1, now.MS-int64(math.Ceil(age.AsDuration().Seconds()*1000)))
	}
	if out.Dispatchable {
		out.MinFixTimeMS = max(1, out.MinFixTimeMS, now.MS-now.DispatchMaxAgeMS)
	}
	return out
}

func (f *Faults) availability(field string, a starlingv1.Availability) {
	if _, known := starlingv1.Availability_name[int32(a)]; !known || a == starlingv1.Availability_AVAILABILITY_UNSPECIFIED {
		f.Add(field, "%d is not an availability", a)
	}
}

func (f *Faults) labels(field string, labels []string, atMost int) {
	if len(labels) > atMost {
		f.Add(field, "has %d entries, at most %d are allowed", len(labels), atMost)
		return
	}
	for _, l := range labels {
		if n := utf8.RuneCountInString(l); n < 1 || n > maxLabelLength {
			f.Add(field, "%q must have 1 to %d characters", l, maxLabelLength)
		}
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
	if !ok {
		f.Add("page_token", "is not a token that ListVehicles returned")
	}
	return after
}

func (f *Faults) pageSize(n int32) int {
	if n < 0 || n > maxPageSize {
		f.Add("page_size", "is %d, must be 0 (for %d) or between 1 and %d", n, defaultPageSize, maxPageSize)
	}
	if n == 0 {
		return defaultPageSize
	}
	return int(n)
}
