package conformance_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/conformance"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Whatever a client sends is judged: by stream and by call, acknowledged or rejected.
func FuzzReports(f *testing.F) {
	good := &starlingv1.Report{VehicleId: "car", SessionId: 7, Sequence: 1, Fixes: []*starlingv1.Fix{{DeviceTimeMs: 1000, Latitude: 48}}}
	encoded, err := proto.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded, encoded)
	f.Add([]byte{}, encoded)
	f.Fuzz(func(_ *testing.T, one, two []byte) {
		judge := conformance.NewJudge([]*starlingv1.Report{good}, nil)
		s := judge.Opened()
		for _, b := range [][]byte{one, two} {
			r := &starlingv1.Report{}
			_ = proto.Unmarshal(b, r) // what could be read of it
			s.Received(proto.CloneOf(r), len(b))
			judge.Called(r, len(b)).Answered(len(b)%2 == 0, conformance.End{})
		}
		s.Acknowledged(1)
		s.Rejected(2, true)
		s.Ended(conformance.End{Unsure: true})
		judge.Exited(0, 1, false)
		judge.Result()
	})
}
