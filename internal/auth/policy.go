package auth

import (
	"strconv"
	"strings"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// riderResults is how many vehicles a rider may see around a place.
const riderResults = 10

// rule is what a method asks of its caller.
type rule struct {
	// public methods are for everybody, without a token.
	public bool
	// scopes are those of which a caller needs one.
	scopes Scopes
	// own are those among scopes that are good for the vehicle of the token only.
	own Scopes
	// check is the rule of a request's content for a restricted caller; nil
	// means that there is none.
	check func(c *Caller, req any) *Refusal
}

// Reflection's methods, which have no names in the library.
const (
	reflectionV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	reflectionV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// policy is all that may be called, by full method name. What it does not list is
// refused. docs/identity.md shows it.
var policy = map[string]rule{
	// Whose reports they are is checked by ingest, report by report.
	starlingv1.IngestService_StreamReports_FullMethodName: {scopes: Report},
	starlingv1.IngestService_SendReport_FullMethodName:    {scopes: Report},

	starlingv1.FleetService_SearchNearest_FullMethodName:      {scopes: Dispatch | Rider | Service, check: riderSearch},
	starlingv1.FleetService_GetVehicle_FullMethodName:         {scopes: Dispatch | Rider | VehicleRead | Service, own: Rider | VehicleRead},
	starlingv1.FleetService_WatchVehicle_FullMethodName:       {scopes: Dispatch | Rider | VehicleRead | Service, own: Rider | VehicleRead},
	starlingv1.FleetService_SearchArea_FullMethodName:         {scopes: Dispatch | Service},
	starlingv1.FleetService_ListVehicles_FullMethodName:       {scopes: Dispatch | Service},
	starlingv1.FleetService_WatchArea_FullMethodName:          {scopes: Dispatch | Service},
	starlingv1.FleetService_CountVehicles_FullMethodName:      {scopes: Dispatch | Service},
	starlingv1.FleetService_WatchVehicleCounts_FullMethodName: {scopes: Dispatch | Service},

	// Whose rides and vehicles they are is checked by the rides role.
	starlingv1.RideService_NewRide_FullMethodName:                {scopes: Rider | Dispatch},
	starlingv1.RideService_RequestRide_FullMethodName:            {scopes: Rider | Dispatch},
	starlingv1.RideService_CancelRide_FullMethodName:             {scopes: Rider | Dispatch},
	starlingv1.RideService_GetRide_FullMethodName:                {scopes: Rider | Dispatch},
	starlingv1.RideService_ListRides_FullMethodName:              {scopes: Rider | Dispatch},
	starlingv1.RideService_SubscribeRideEvents_FullMethodName:    {scopes: Rider | Dispatch},
	starlingv1.RideService_ActOnRide_FullMethodName:              {scopes: Report | Dispatch},
	starlingv1.RideService_SubscribeVehicleEvents_FullMethodName: {scopes: Report | Dispatch},
	starlingv1.RideService_GetZonePlace_FullMethodName:           {scopes: Report | Dispatch},

	// How precisely a caller sees positions is for the history role to say.
	starlingv1.HistoryService_GetTrack_FullMethodName:     {scopes: HistoryRead | HistoryPrecise | Operate},
	starlingv1.HistoryService_GetCellStats_FullMethodName: {scopes: HistoryRead | HistoryPrecise | Operate},
	starlingv1.HistoryService_FindVisits_FullMethodName:   {scopes: HistoryRead | HistoryPrecise | Operate},
	starlingv1.HistoryService_ExplainFix_FullMethodName:   {scopes: HistoryRead | HistoryPrecise | Operate},

	// Nodes of the same cluster, which have asked the table about their callers.
	starlingv1.RideOwnerService_GetOwnedRide_FullMethodName:      {scopes: Service},
	starlingv1.RideOwnerService_ListOwnedRides_FullMethodName:    {scopes: Service},
	starlingv1.RideOwnerService_ResumeRide_FullMethodName:        {scopes: Service},
	starlingv1.RideOwnerService_CompareRides_FullMethodName:      {scopes: Service},
	starlingv1.RideOwnerService_GetOwnedZonePlace_FullMethodName: {scopes: Service},

	grpc_health_v1.Health_Check_FullMethodName: {public: true},
	grpc_health_v1.Health_List_FullMethodName:  {scopes: Operate | Service},
	grpc_health_v1.Health_Watch_FullMethodName: {scopes: Operate | Service | Dispatch},
	reflectionV1:      {scopes: Operate},
	reflectionV1Alpha: {scopes: Operate},
}

// permit returns nil if a caller may make a call with a request of which nothing
// is known yet. Whoever a service names may make no call that the service itself
// may not: else its token would be good for everything, by naming somebody. In
// development mode everybody may do everything.
func (r *rule) permit(c *Caller) *Refusal {
	if r.public || c.dev || c.Has(r.scopes) && (!c.forwarded || r.scopes&Service != 0) {
		return nil
	}
	return refuse(ScopeMissing, "the token lacks a scope: "+strings.ReplaceAll(r.scopes.String(), " ", " or ")+" is needed",
		"claim", "scope", "rule", "has one of: "+r.scopes.String())
}

// named is a request for one vehicle.
type named interface{ GetName() string }

// content returns nil if a caller may make a call with this request.
func (r *rule) content(c *Caller, req any) *Refusal {
	if r.own != 0 && !c.Has(r.scopes&^r.own) {
		n, ok := req.(named)
		id, isVehicle := "", false
		if ok {
			id, isVehicle = strings.CutPrefix(n.GetName(), limits.VehicleNamePrefix)
		}
		if !isVehicle || !c.Owns(id) {
			return refuse(VehicleNotPermitted, "the token is not of this vehicle", "claim", "vehicle", "rule", "names the vehicle that is asked for")
		}
	}
	if r.check != nil && c.Restricted() {
		return r.check(c, req)
	}
	return nil
}

// riderSearch holds a rider's search to a few vehicles that can be offered a
// ride. It narrows the request to those.
func riderSearch(_ *Caller, in any) *Refusal {
	bound := func(field, rule string) *Refusal {
		return refuse(RiderBound, field+": with the scope rider "+rule, "field", field, "rule", rule)
	}
	req, ok := in.(*starlingv1.SearchNearestRequest)
	if !ok {
		return refuse(NotListed, "the request is of a kind that the rule does not know")
	}
	switch filter := req.GetFilter(); {
	case req.GetMaxResults() > riderResults:
		return bound("max_results", "must be at most "+strconv.Itoa(riderResults))
	case req.GetArea() != nil:
		return bound("area", "must not be set")
	case len(filter.GetTags()) > 0:
		return bound("filter.tags", "must not be set")
	case len(filter.GetAvailabilities()) > 0:
		return bound("filter.availabilities", "must not be set")
	}
	if req.Filter == nil {
		req.Filter = &starlingv1.VehicleFilter{}
	}
	req.Filter.Dispatchable = true
	return nil
}
