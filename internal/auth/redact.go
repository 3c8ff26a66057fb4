package auth

import (
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// forRider returns a message as a rider may see it. Messages may be shared among
// callers, so a changed one is a copy.
func forRider(m any) (any, error) {
	switch m := m.(type) {
	case *wire.Encoded: // of SearchNearest, the only call that answers so
		decoded := &starlingv1.SearchNearestResponse{}
		if err := proto.Unmarshal(m.Data.Materialize(), decoded); err != nil {
			return nil, err
		}
		m.Data.Free()
		return nearbyForRider(decoded), nil
	case *starlingv1.SearchNearestResponse:
		return nearbyForRider(m), nil
	case *starlingv1.Vehicle:
		return vehicleForRider(m), nil
	case *starlingv1.WatchVehicleResponse:
		return &starlingv1.WatchVehicleResponse{
			Vehicle: vehicleForRider(m.GetVehicle()), Unknown: m.GetUnknown(), Stale: m.GetStale(), Playback: m.GetPlayback(),
			ResumeToken: m.GetResumeToken(), Resumed: m.GetResumed(),
		}, nil
	}
	return m, nil
}

func nearbyForRider(m *starlingv1.SearchNearestResponse) *starlingv1.SearchNearestResponse {
	out := &starlingv1.SearchNearestResponse{}
	for _, near := range m.GetResults() {
		out.Results = append(out.Results, &starlingv1.NearbyVehicle{
			Vehicle: vehicleForRider(near.GetVehicle()), DistanceM: near.GetDistanceM(),
			PredictedPosition: near.GetPredictedPosition(), TravelTime: near.GetTravelTime(),
		})
	}
	return out
}

// vehicleForRider has where a vehicle is and how sure that is, and nothing else
// of it: what is added to the message one day is not shown before it is added
// here.
func vehicleForRider(v *starlingv1.Vehicle) *starlingv1.Vehicle {
	if v == nil {
		return nil
	}
	return &starlingv1.Vehicle{
		Name: v.GetName(), DeviceTime: v.GetDeviceTime(), Age: v.GetAge(), Position: v.GetPosition(),
		SpeedMps: v.SpeedMps, HeadingDeg: v.HeadingDeg, Dispatchable: v.GetDispatchable(), DisplayPosition: v.GetDisplayPosition(),
	}
}
