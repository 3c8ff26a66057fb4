package auth

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Every method of every service has a row, and every row a method.
func TestEveryMethodHasARow(t *testing.T) {
	server := grpc.NewServer()
	starlingv1.RegisterIngestServiceServer(server, starlingv1.UnimplementedIngestServiceServer{})
	starlingv1.RegisterFleetServiceServer(server, starlingv1.UnimplementedFleetServiceServer{})
	starlingv1.RegisterRideServiceServer(server, starlingv1.UnimplementedRideServiceServer{})
	starlingv1.RegisterHistoryServiceServer(server, starlingv1.UnimplementedHistoryServiceServer{})
	starlingv1.RegisterRideOwnerServiceServer(server, starlingv1.UnimplementedRideOwnerServiceServer{})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	methods := map[string]bool{}
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			methods[name] = true
			row, listed := policy[name]
			require.True(t, listed, "%s has no row in the policy", name)
			require.True(t, row.public || row.scopes != 0, "%s is for nobody", name)
			require.Equal(t, name == grpc_health_v1.Health_Check_FullMethodName, row.public, "only Check is public: %s", name)
			require.Zero(t, row.own&^row.scopes, "%s: own must be among the scopes", name)
		}
	}
	for name := range policy {
		require.True(t, methods[name], "%s is no method", name)
	}
}

// What each scope may call, spelt out once more by hand.
func TestScopes(t *testing.T) {
	const ingest, fleet, ride = "/starling.v1.IngestService/", "/starling.v1.FleetService/", "/starling.v1.RideService/"
	riders := strings.Join([]string{"", "NewRide", "RequestRide", "CancelRide", "GetRide", "ListRides", "SubscribeRideEvents"}, " "+ride)
	drivers := strings.Join([]string{"", "ActOnRide", "SubscribeVehicleEvents", "GetZonePlace"}, " "+ride)
	owners := strings.Join([]string{"", "GetOwnedRide", "ListOwnedRides", "ResumeRide", "CompareRides", "GetOwnedZonePlace"}, " /starling.v1.RideOwnerService/")
	past := strings.Join([]string{"", "GetTrack", "GetCellStats", "FindVisits", "ExplainFix"}, " /starling.v1.HistoryService/")
	for scope, may := range map[Scopes]string{
		HistoryRead: past, HistoryPrecise: past,
		Report:      ingest + "StreamReports " + ingest + "SendReport" + drivers,
		Rider:       fleet + "SearchNearest " + fleet + "GetVehicle " + fleet + "WatchVehicle" + riders,
		VehicleRead: fleet + "GetVehicle " + fleet + "WatchVehicle",
		Metrics:     "",
		Service: "/grpc.health.v1.Health/List /grpc.health.v1.Health/Watch " + fleet + "SearchNearest " + fleet + "GetVehicle " + fleet + "WatchVehicle " + fleet + "SearchArea " +
			fleet + "ListVehicles " + fleet + "WatchArea " + fleet + "CountVehicles " + fleet + "WatchVehicleCounts" + owners,
		Operate: "/grpc.health.v1.Health/List /grpc.health.v1.Health/Watch " + reflectionV1 + " " + reflectionV1Alpha + past,
		Dispatch: "/grpc.health.v1.Health/Watch " + fleet + "SearchNearest " + fleet + "GetVehicle " + fleet + "WatchVehicle " + fleet + "SearchArea " +
			fleet + "ListVehicles " + fleet + "WatchArea " + fleet + "CountVehicles " + fleet + "WatchVehicleCounts" + riders + drivers,
	} {
		for name, row := range policy {
			if row.public {
				continue
			}
			want := strings.Contains(" "+may+" ", " "+name+" ")
			require.Equal(t, want, row.permit(&Caller{Scopes: scope}) == nil, "%s with the scope %s", name, scope)
			if scope == Service {
				// It names somebody who may do everything, and may do no more.
				// What is for services alone they ask for themselves.
				require.Equal(t, want && row.scopes != Service, row.permit(&Caller{Scopes: allScopes, Vehicle: "*", forwarded: true}) == nil, "%s for somebody else", name)
			}
		}
	}
}

func TestOwns(t *testing.T) {
	for _, c := range []struct {
		claim, vehicle string
		owns           bool
	}{
		{"car-1", "car-1", true}, {"car-1", "car-10", false}, {"car-1", "car-", false}, {"", "", false}, {"", "car-1", false},
		{"*", "car-1", true}, {"car-*", "car-1", true}, {"car-*", "car-", true}, {"car-*", "bus-1", false},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"a*b", "a-x-b", true}, {"*-vip", "car-vip", true}, {"*-vip", "car-vi", false},
	} {
		require.Equal(t, c.owns, (&Caller{Vehicle: c.claim}).Owns(c.vehicle), "%q of %q", c.vehicle, c.claim)
	}
	for claim, valid := range map[string]bool{"car-1": true, "*": true, "car-*": true, "**": false, "a*b*": false, "a/b": false, "a b*": false, strings.Repeat("a", 65): false} {
		require.Equal(t, valid, ValidVehicle(claim), "%q", claim)
	}
}

// A rider sees few vehicles, all of which can be offered a ride.
func TestRiderSearches(t *testing.T) {
	row := policy[starlingv1.FleetService_SearchNearest_FullMethodName]
	rider := &Caller{Scopes: Rider}
	for field, req := range map[string]*starlingv1.SearchNearestRequest{
		"max_results":           {MaxResults: 11},
		"area":                  {Area: &starlingv1.Area{}},
		"filter.tags":           {Filter: &starlingv1.VehicleFilter{Tags: []string{"x"}}},
		"filter.availabilities": {Filter: &starlingv1.VehicleFilter{Availabilities: []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_BUSY}}},
	} {
		refused := row.content(rider, req)
		require.NotNil(t, refused, field)
		require.Equal(t, RiderBound, refused.Reason)
		require.Equal(t, field, refused.Facts["field"])
		require.Nil(t, row.content(&Caller{Scopes: Rider | Dispatch}, req), "a dispatcher is not bound: %s", field)
	}
	req := &starlingv1.SearchNearestRequest{MaxResults: 10, Filter: &starlingv1.VehicleFilter{Types: []string{"van"}, MinSeats: 6}}
	require.Nil(t, row.content(rider, req))
	require.True(t, req.GetFilter().GetDispatchable())
	req = &starlingv1.SearchNearestRequest{}
	require.Nil(t, row.content(rider, req))
	require.True(t, req.GetFilter().GetDispatchable())
}

// Who reads one vehicle reads that of its token.
func TestOwnVehicle(t *testing.T) {
	for _, method := range []string{starlingv1.FleetService_GetVehicle_FullMethodName, starlingv1.FleetService_WatchVehicle_FullMethodName} {
		row := policy[method]
		for _, scope := range []Scopes{Rider, VehicleRead, Rider | VehicleRead | Report} {
			c := &Caller{Scopes: scope, Vehicle: "car-1"}
			require.Nil(t, row.content(c, &starlingv1.GetVehicleRequest{Name: "vehicles/car-1"}))
			for _, name := range []string{"vehicles/car-2", "vehicles/", "car-1", "", "vehicles/car-1/x"} {
				require.Equal(t, VehicleNotPermitted, row.content(c, &starlingv1.WatchVehicleRequest{Name: name}).Reason, name)
			}
			require.NotNil(t, row.content(c, struct{}{}), "a request that names nothing")
			c.Scopes |= Dispatch
			require.Nil(t, row.content(c, &starlingv1.GetVehicleRequest{Name: "vehicles/car-2"}))
		}
	}
}

// A page or resume token is its caller's alone, whichever replica gave it.
func TestSealedTokens(t *testing.T) {
	secret := []byte(strings.Repeat("k", 32))
	one, other := newSealer(secret), newSealer(secret)
	alice, bob := &Caller{Issuer: "i", Subject: "alice"}, &Caller{Issuer: "i", Subject: "bob"}
	sealed := one.seal(alice, "MTphYmM")
	opened, ok := other.open(alice, sealed)
	require.True(t, ok)
	require.Equal(t, "MTphYmM", opened)
	for _, c := range []struct {
		who   *Caller
		token string
	}{{bob, sealed}, {&Caller{Issuer: "j", Subject: "alice"}, sealed}, {alice, "MTphYmM"}, {alice, "MTphYmN" + sealed[7:]}, {alice, sealed + "x"}, {alice, "."}} {
		_, ok := other.open(c.who, c.token)
		require.False(t, ok, "%+v", c)
	}
	_, ok = newSealer(nil).open(alice, sealed)
	require.False(t, ok, "a process with another secret")
	require.Empty(t, one.seal(alice, ""))

	page := one.sealAnswer(alice, &starlingv1.ListVehiclesResponse{NextPageToken: "t"}).(*starlingv1.ListVehiclesResponse)
	require.Nil(t, other.openRequest(alice, &starlingv1.ListVehiclesRequest{PageToken: page.NextPageToken}))
	require.Equal(t, NotYourToken, other.openRequest(bob, &starlingv1.ListVehiclesRequest{PageToken: page.NextPageToken}).Reason)
	counts := one.sealAnswer(alice, &starlingv1.CountVehiclesResponse{NextPageToken: "t"}).(*starlingv1.CountVehiclesResponse)
	require.Equal(t, NotYourToken, other.openRequest(bob, &starlingv1.CountVehiclesRequest{PageToken: counts.NextPageToken}).Reason)
	shared := &starlingv1.WatchVehicleResponse{ResumeToken: "t", Stale: true}
	watch := one.sealAnswer(alice, shared).(*starlingv1.WatchVehicleResponse)
	require.Equal(t, "t", shared.ResumeToken, "the message may be another caller's too")
	require.True(t, watch.Stale)
	resume := &starlingv1.WatchVehicleRequest{ResumeToken: watch.ResumeToken}
	require.Nil(t, other.openRequest(alice, resume))
	require.Equal(t, "t", resume.ResumeToken)
	require.Equal(t, NotYourToken, other.openRequest(bob, &starlingv1.WatchVehicleRequest{ResumeToken: watch.ResumeToken}).Reason)
	track := one.sealAnswer(alice, &starlingv1.GetTrackResponse{ResumeToken: "t"}).(*starlingv1.GetTrackResponse)
	require.Equal(t, NotYourToken, other.openRequest(bob, &starlingv1.GetTrackRequest{ResumeToken: track.ResumeToken}).Reason)
	cells := one.sealAnswer(alice, &starlingv1.GetCellStatsResponse{ResumeToken: "t"}).(*starlingv1.GetCellStatsResponse)
	require.Equal(t, NotYourToken, other.openRequest(bob, &starlingv1.GetCellStatsRequest{ResumeToken: cells.ResumeToken}).Reason)
	visits := one.sealAnswer(alice, &starlingv1.FindVisitsResponse{ResumeToken: "t"}).(*starlingv1.FindVisitsResponse)
	require.Equal(t, NotYourToken, other.openRequest(bob, &starlingv1.FindVisitsRequest{ResumeToken: visits.ResumeToken}).Reason)
	area := one.sealAnswer(alice, &starlingv1.WatchAreaResponse{ResumeToken: "t", More: true}).(*starlingv1.WatchAreaResponse)
	require.True(t, area.More)
	require.Equal(t, NotYourToken, other.openRequest(bob, &starlingv1.WatchAreaRequest{ResumeToken: area.ResumeToken}).Reason)
}

// A rider sees where a vehicle is and nothing else of it.
func TestRidersView(t *testing.T) {
	full := func() *starlingv1.Vehicle {
		return &starlingv1.Vehicle{
			Name: "vehicles/a", Position: &starlingv1.Position{Latitude: 1}, Attributes: &starlingv1.Attributes{Type: "van"}, FixCounts: &starlingv1.FixCounts{Accepted: 1},
			H3Cell: "8a", OdometerM: proto.Float64(3), Diagnosis: &starlingv1.DeviceDiagnosis{}, Availability: starlingv1.Availability_AVAILABILITY_FREE, Dispatchable: true, Conflicting: true,
		}
	}
	seen := func(v *starlingv1.Vehicle) {
		t.Helper()
		require.Equal(t, "vehicles/a", v.GetName())
		require.Equal(t, 1.0, v.GetPosition().GetLatitude())
		require.True(t, v.GetDispatchable())
		require.Nil(t, v.GetAttributes())
		require.Nil(t, v.GetFixCounts())
		require.Nil(t, v.GetDiagnosis())
		require.Empty(t, v.GetH3Cell())
		require.Zero(t, v.GetOdometerM())
		require.Zero(t, v.GetAvailability())
		require.False(t, v.GetConflicting())
	}
	for _, m := range []any{full(), &starlingv1.WatchVehicleResponse{Vehicle: full()}, &starlingv1.SearchNearestResponse{Results: []*starlingv1.NearbyVehicle{{Vehicle: full()}}, StalePartitions: []*starlingv1.StalePartition{{}}}} {
		out, err := forRider(m)
		require.NoError(t, err)
		switch out := out.(type) {
		case *starlingv1.Vehicle:
			seen(out)
		case *starlingv1.WatchVehicleResponse:
			seen(out.GetVehicle())
		case *starlingv1.SearchNearestResponse:
			seen(out.GetResults()[0].GetVehicle())
			require.Empty(t, out.GetStalePartitions(), "the fleet's size is not a rider's business")
		}
	}
}

// Nodes in development mode have no tokens and ask each other all the same.
func TestEverybodyIsAServiceInDevelopmentMode(t *testing.T) {
	for name, row := range policy {
		require.Nil(t, row.permit(anyone), "%s", name)
	}
}
