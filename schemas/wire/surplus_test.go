package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

func reportOf(fixes int) *starlingv1.Report {
	r := &starlingv1.Report{VehicleId: "v", SessionId: 7, Sequence: 3, Availability: 1, Attributes: &starlingv1.Attributes{Type: "van"}}
	for i := range fixes {
		r.Fixes = append(r.Fixes, &starlingv1.Fix{DeviceTimeMs: int64(i)})
	}
	return r
}

// Both ways in decode as many fixes as there may be and one more, and everything
// else of the report, wherever it stands.
func TestSurplusFixesAreNotDecoded(t *testing.T) {
	const most = limits.MaxFixesPerReport
	for _, n := range []int{0, 1, most, most + 1, most + 2, 60_000} {
		want := reportOf(min(n, most+1))
		encoded, err := proto.Marshal(&starlingv1.SendReportRequest{Report: reportOf(n)})
		require.NoError(t, err)
		// The report once more, in a second piece that the first is merged with.
		second, err := proto.Marshal(&starlingv1.SendReportRequest{Report: &starlingv1.Report{Sequence: 9, Fixes: []*starlingv1.Fix{{DeviceTimeMs: 1}}}})
		require.NoError(t, err)
		for pieces, b := range [][]byte{encoded, append(append([]byte{}, encoded...), second...)} {
			want := proto.Clone(want).(*starlingv1.Report)
			if pieces == 1 {
				want.Sequence = 9
				if len(want.Fixes) <= most {
					want.Fixes = append(want.Fixes, &starlingv1.Fix{DeviceTimeMs: 1})
				}
			}
			var unary starlingv1.SendReportRequest
			require.NoError(t, wire.Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &unary))
			require.True(t, proto.Equal(want, unary.Report), "%d fixes, %d pieces", n, pieces+1)
			var streamed wire.StreamRequest
			require.NoError(t, streamed.UnmarshalReceived(b))
			require.Equal(t, wire.ReportFromProto(want), streamed.Report, "%d fixes, %d pieces", n, pieces+1)
		}
		require.Error(t, new(wire.StreamRequest).UnmarshalReceived([]byte("\xff\x01garbage\xff")))
	}
}

// BenchmarkEmptyFixes refuses to decode 130,000 fixes of two bytes each.
func BenchmarkEmptyFixes(b *testing.B) {
	r := &starlingv1.Report{VehicleId: "v", Fixes: make([]*starlingv1.Fix, 130_000)}
	for i := range r.Fixes {
		r.Fixes[i] = &starlingv1.Fix{}
	}
	encoded, err := proto.Marshal(&starlingv1.SendReportRequest{Report: r})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := wire.Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(encoded)}, new(starlingv1.SendReportRequest)); err != nil {
			b.Fatal(err)
		}
	}
}
