package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func quoted(t require.TestingT, pieces ...string) string {
	var out bytes.Buffer
	q := &quoting{to: &out}
	for _, p := range pieces {
		n, err := q.Write([]byte(p))
		require.NoError(t, err)
		require.Equal(t, len(p), n)
	}
	q.flush()
	return out.String()
}

func TestQuoting(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":           "plain\ttext\n",
		"Zürich ± 5 m, 車 🚕":       "Zürich ± 5 m, 車 🚕",
		"\x1b[2J\x1b]0;x\a":       `\u001b[2J\u001b]0;x\u0007`,
		"over\rwritten":           `over\u000dwritten`,
		"\u009b31m":               `\u009b31m`,
		"right\u202eto left":      `right\u202eto left`,
		"tag \U000E0041":          `tag \udb40\udc41`,
		"not UTF-8: \x9b\xff":     `not UTF-8: \x9b\xff`,
		"broken off \xe8\xbb":     `broken off \xe8\xbb`,
		"\ufffd is a sign itself": "\ufffd is a sign itself",
	} {
		require.Equal(t, want, quoted(t, in), "%q", in)
	}
	_, err := (&quoting{to: failing{}}).Write([]byte("x"))
	require.ErrorIs(t, err, iotest.ErrTimeout)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, iotest.ErrTimeout }

// Where a writer divides the text makes no difference, and JSON means the same.
func TestQuotingOfPiecesAndJSON(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := string(rapid.SliceOf(rapid.SampledFrom([]byte("a\n\x1b\x9b\xe8\xbb\x8a\xf0\x9f\x9a\x95"))).Draw(rt, "text"))
		at := rapid.IntRange(0, len(text)).Draw(rt, "at")
		require.Equal(rt, quoted(rt, text), quoted(rt, text[:at], text[at:]))

		value := strings.ToValidUTF8(rapid.String().Draw(rt, "value"), "")
		encoded, err := json.Marshal(value)
		require.NoError(rt, err)
		var back string
		require.NoError(rt, json.Unmarshal([]byte(quoted(rt, string(encoded))), &back))
		require.Equal(rt, value, back)
	})
}

// A server's text does not reach the terminal as commands.
func TestCommandsQuoteWhatServersSend(t *testing.T) {
	const evil = "\x1b[31mvan\x07"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	starlingv1.RegisterFleetServiceServer(server, &evilFleet{v: &starlingv1.Vehicle{
		Name: "vehicles/" + evil, Attributes: &starlingv1.Attributes{Type: evil, Tags: []string{evil}},
	}})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	addr := l.Addr().String()
	for _, args := range [][]string{
		{"nearest", "--at", "1,2", "--matcher", addr}, {"nearest", "--at", "1,2", "--matcher", addr, "--json"},
		{"devices", "--matcher", addr}, {"devices", "--matcher", addr, "--json"},
		{"watch", "v", "--matcher", addr, "--count", "1"}, {"watch", "v", "--matcher", addr, "--count", "1", "--json"},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, exitOK, Main(t.Context(), args, IO{Out: &out, Err: &errs}), "%v: %s", args, errs.String())
		require.Contains(t, out.String(), "van", "%v", args)
		require.NotContains(t, out.String(), "\x1b", "%v", args)
		require.NotContains(t, out.String(), "\x07", "%v", args)
	}
}

type evilFleet struct {
	starlingv1.UnimplementedFleetServiceServer
	v *starlingv1.Vehicle
}

func (f *evilFleet) SearchNearest(context.Context, *starlingv1.SearchNearestRequest) (*starlingv1.SearchNearestResponse, error) {
	return &starlingv1.SearchNearestResponse{Results: []*starlingv1.NearbyVehicle{{Vehicle: f.v}}}, nil
}

func (f *evilFleet) ListVehicles(context.Context, *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	return &starlingv1.ListVehiclesResponse{Vehicles: []*starlingv1.Vehicle{f.v}}, nil
}

func (f *evilFleet) WatchVehicle(_ *starlingv1.WatchVehicleRequest, stream grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	return stream.Send(&starlingv1.WatchVehicleResponse{Vehicle: f.v})
}
