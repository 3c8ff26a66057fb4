package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Either side of a connection may use Codec without the other's knowing,
// whatever the size of the message and however gRPC has split it.
func TestCodecSpeaksProto(t *testing.T) {
	theirs, ours := encoding.GetCodecV2("proto"), wire.Codec()
	require.Equal(t, theirs.Name(), ours.Name())
	require.Equal(t, theirs, encoding.GetCodecV2("proto"), "nothing is registered")
	for _, fixes := range []int{0, 1, 50, 1000} {
		want := sampleRequest(fixes)

		sent, err := ours.Marshal(want)
		require.NoError(t, err)
		var generated starlingv1.StreamReportsRequest
		require.NoError(t, theirs.Unmarshal(sent, &generated))
		require.True(t, proto.Equal(want.ToProto(), &generated))
		sent.Free()

		received, err := theirs.Marshal(want.ToProto())
		require.NoError(t, err)
		var got wire.StreamRequest
		require.NoError(t, ours.Unmarshal(received, &got))
		requireSame(t, kinds[0], want, &got)

		b := received.Materialize()
		cut := mem.BufferSlice{mem.SliceBuffer(b[:len(b)/2]), mem.SliceBuffer(b[len(b)/2:])}
		require.NoError(t, ours.Unmarshal(cut, &got))
		requireSame(t, kinds[0], want, &got)

		// Other messages go through gRPC's own codec.
		sent, err = ours.Marshal(&generated)
		require.NoError(t, err)
		generated.Reset()
		require.NoError(t, ours.Unmarshal(sent, &generated))
		require.True(t, proto.Equal(want.ToProto(), &generated))
	}
	_, err := ours.Marshal("not a message")
	require.Error(t, err)
	require.Error(t, ours.Unmarshal(mem.BufferSlice{mem.SliceBuffer{0xff}}, &wire.Ack{}))
}
