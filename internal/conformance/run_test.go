package conformance_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/starling-fleet/starling/internal/conformance"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// faultEnv makes the test binary a client with a fault ("none" for one without).
const faultEnv = "CONFORMANCE_TEST_FAULT"

func TestMain(m *testing.M) {
	if fault := os.Getenv(faultEnv); fault != "" {
		c := &naive{fault: fault, session: rand.Uint64() | 1}
		if err := c.deliver(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// naive is a client of its own, with the simplest loop that keeps the protocol and
// a fault that makes it break one rule.
type naive struct {
	fault   string
	session uint64
	queue   []*starlingv1.Report // unacknowledged, oldest first
}

func (c *naive) deliver(in io.Reader) error {
	sequences := map[string]int64{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		r := &starlingv1.Report{}
		if err := protojson.Unmarshal(lines.Bytes(), r); err != nil {
			return err
		}
		sequences[r.VehicleId]++
		r.SessionId, r.Sequence = c.session, sequences[r.VehicleId]
		c.queue = append(c.queue, r)
	}
	conn, err := grpc.NewClient(os.Getenv("STARLING_INGEST"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: time.Second}))
	if err != nil {
		return err
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("STARLING_TOKEN"))
	wait := 200 * time.Millisecond
	for len(c.queue) > 0 {
		before := len(c.queue)
		if err = c.stream(ctx, starlingv1.NewIngestServiceClient(conn)); err == nil {
			continue
		}
		switch {
		case status.Code(err) == codes.PermissionDenied && c.fault != "stubborn":
			return err
		case len(c.queue) < before:
			wait = 200 * time.Millisecond
		default:
			wait *= 2
		}
		switch c.fault {
		case "renews":
			c.session++
			for _, r := range c.queue {
				r.SessionId = c.session
			}
			time.Sleep(wait)
		case "hasty":
		case "regular":
			time.Sleep(wait)
		default:
			time.Sleep(wait/2 + rand.N(wait/2))
		}
	}
	return nil
}

// stream sends what is queued and takes acknowledgements until the stream ends.
func (c *naive) stream(ctx context.Context, service starlingv1.IngestServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := service.StreamReports(ctx)
	if err != nil {
		return err
	}
	depth := 60
	if c.fault == "deep" {
		depth = 100
	}
	sent, acked := 0, 0
	for sent-acked < len(c.queue) || c.fault == "impatient" {
		for sent-acked < min(len(c.queue), depth) {
			_ = s.Send(&starlingv1.StreamReportsRequest{Report: c.queue[sent-acked]})
			sent++
		}
		if c.fault == "impatient" {
			c.queue = nil
			time.Sleep(50 * time.Millisecond)
			return nil
		}
		if acked, err = c.take(s, sent, acked); err != nil {
			return err
		}
	}
	_ = s.CloseSend()
	for len(c.queue) > 0 {
		if acked, err = c.take(s, sent, acked); err != nil {
			return err
		}
	}
	return nil
}

func (c *naive) take(s grpc.BidiStreamingClient[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse], sent, acked int) (int, error) {
	resp, err := s.Recv()
	if errors.Is(err, io.EOF) {
		return acked, errors.New("ended early")
	}
	if err != nil {
		if c.fault == "skips" {
			c.queue = c.queue[sent-acked:]
		}
		return acked, err
	}
	n := int(resp.GetAcknowledgedReports())
	if n > sent {
		if c.fault != "credulous" {
			return acked, errors.New("acknowledged beyond what was sent")
		}
		c.queue = nil
		return sent, nil
	}
	if n > acked {
		c.queue = c.queue[n-acked:]
		acked = n
	}
	return acked, nil
}

// run plays scenarios to a client with a fault.
func run(t *testing.T, fault string, names ...string) []conformance.Verdict {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	opts := conformance.Options{
		Command: []string{self}, Environ: append(os.Environ(), faultEnv+"="+fault),
		Seed: 1, Timeout: time.Minute, AckTimeout: time.Second,
	}
	verdicts, err := conformance.RunAll(t.Context(), chosen(t, names...), opts, 4)
	require.NoError(t, err)
	return verdicts
}

func chosen(t *testing.T, names ...string) (out []conformance.Scenario) {
	for _, name := range names {
		before := len(out)
		for _, s := range conformance.Scenarios() {
			if s.Name == name {
				out = append(out, s)
			}
		}
		require.Len(t, out, before+1, name)
	}
	return out
}

func TestAClientWithoutFaultPasses(t *testing.T) {
	for _, v := range run(t, "none", "calm", "depth", "cut", "nowhere", "denied", "restart", "repeat") {
		require.Empty(t, v.Breaches, "%s: %s", v.Scenario, v.Said)
		require.True(t, v.Passed)
		require.Positive(t, v.Streams)
		require.Positive(t, v.Reports)
	}
}

func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		fault, scenario string
		rule            conformance.Rule
	}{
		{"deep", "depth", conformance.RuleDepth},
		{"hasty", "unknown", conformance.RuleBackoff},
		{"regular", "breaks", conformance.RuleJitter},
		{"renews", "unknown", conformance.RuleSession},
		{"skips", "breaks", conformance.RuleResend},
		{"impatient", "late", conformance.RuleDelivered},
		{"credulous", "nowhere", conformance.RuleDelivered},
		{"stubborn", "denied", conformance.RuleStop},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			if c.fault == "stubborn" {
				// It never ends: the judge sees what it does meanwhile.
				verdict := serveFor(t, c.fault, c.scenario, 3*time.Second)
				require.Contains(t, rules(verdict), c.rule)
				return
			}
			verdict := run(t, c.fault, c.scenario)[0]
			require.False(t, verdict.Passed)
			require.Contains(t, rules(verdict), c.rule, "%v", verdict.Breaches)
		})
	}
}

func rules(v conformance.Verdict) (out []conformance.Rule) {
	for _, b := range v.Breaches {
		out = append(out, b.Rule)
	}
	return out
}

func serveFor(t *testing.T, fault, scenario string, limit time.Duration) conformance.Verdict {
	self, err := os.Executable()
	require.NoError(t, err)
	v, err := conformance.Run(t.Context(), chosen(t, scenario)[0], conformance.Options{
		Command: []string{self}, Environ: append(os.Environ(), faultEnv+"="+fault), Seed: 1, Timeout: limit, AckTimeout: time.Second,
	})
	require.NoError(t, err)
	return v
}

// A client that somebody else runs, by JSON.
func TestServeJudgesUnaryCallsAsJSON(t *testing.T) {
	s := chosen(t, "refusals")[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, err := conformance.Serve(ctx, s, conformance.Options{Seed: 3, AckTimeout: time.Second}, "127.0.0.1:0", "127.0.0.1:0", "secret", func(_, web net.Addr) {
		go deliverJSON(t, "http://"+web.String(), s.Feed(3))
	})
	require.NoError(t, err)
	require.Empty(t, v.Breaches)
	require.Equal(t, conformance.Counts{Reports: s.Reports, Calls: s.Reports}, v.Counts)
}

func deliverJSON(t *testing.T, base string, feed []*starlingv1.Report) {
	sequences, refused := map[string]int64{}, 0
	for _, r := range feed {
		sequences[r.VehicleId]++
		r.SessionId, r.Sequence = 9, sequences[r.VehicleId]
		body, err := protojson.Marshal(&starlingv1.SendReportRequest{Report: r})
		if err != nil {
			t.Error(err)
			return
		}
		req, _ := http.NewRequest(http.MethodPost, base+"/v1/reports:send", strings.NewReader(string(body)))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer secret")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		answer, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		refused += strings.Count(string(answer), "REFUSAL_REASON_COORDINATE_OUT_OF_RANGE")
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(answer), "acknowledgedSequence") {
			t.Errorf("answer %d: %s", resp.StatusCode, answer)
		}
	}
	if refused == 0 {
		t.Error("the scenario refuses some fixes")
	}
}

// The same seed draws the same feed, another one another.
func TestFeedsAreDrawnByTheSeed(t *testing.T) {
	for _, s := range conformance.Scenarios() {
		one, err := conformance.FeedLines(s.Feed(1))
		require.NoError(t, err)
		again, err := conformance.FeedLines(s.Feed(1))
		require.NoError(t, err)
		require.Equal(t, string(one), string(again))
		other, err := conformance.FeedLines(s.Feed(2))
		require.NoError(t, err)
		require.NotEqual(t, string(one), string(other))
		require.Equal(t, s.Reports, strings.Count(string(one), "\n"))
	}
}

func TestACommandThatIsNotThereIsAnError(t *testing.T) {
	_, err := conformance.Run(t.Context(), conformance.Scenarios()[0], conformance.Options{Command: []string{"/nonexistent/client"}, Timeout: time.Minute})
	require.ErrorContains(t, err, "start the client")
}
