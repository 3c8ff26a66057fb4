// Package fleettest is a slow, small model of Starling behind the real gRPC
// services, for the tests of what drives and measures it.
package fleettest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/limits"
	pb "github.com/starling-fleet/starling/schemas/starlingv1"
)

// Server is the model. Set its fields before Start.
type Server struct {
	pb.UnimplementedIngestServiceServer
	pb.UnimplementedFleetServiceServer

	// ConsumeDelay is how long after its acknowledgement a report shows in the
	// fleet; a negative one means never.
	ConsumeDelay time.Duration
	// BreakEvery ends a stream with UNAVAILABLE after every so many reports,
	// each other time before the report is stored; 0 means never.
	BreakEvery int
	// WindowMS is the reorder window; 0 means no fix is late.
	WindowMS int64
	// Swap makes SearchNearest exchange its two nearest results.
	Swap bool

	mu       sync.Mutex
	received int
	vehicles map[string]*Vehicle
	Reports  []Report
}

// Report is one received report, resends included.
type Report struct {
	At     time.Time
	Report *pb.Report
}

// Vehicle is what the model knows of one vehicle.
type Vehicle struct {
	Fixes  map[int64]*pb.Fix
	Newest int64
	Counts pb.FixCounts
	// Visible is what the fleet shows.
	Visible *pb.Vehicle
}

// Start serves on an in-memory network and returns a connection, and a function
// that ends both.
func (s *Server) Start() (*grpc.ClientConn, func(), error) {
	s.vehicles = map[string]*Vehicle{}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	pb.RegisterIngestServiceServer(server, s)
	pb.RegisterFleetServiceServer(server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := client.Dial("passthrough:///model", client.DialOptions{Extra: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	}})
	if err != nil {
		return nil, nil, err
	}
	return conn, func() { _ = conn.Close(); server.Stop(); <-served }, nil
}

// Vehicle returns a vehicle, or nil. The server must be idle.
func (s *Server) Vehicle(id string) *Vehicle { return s.vehicles[id] }

// StreamReports implements the service.
func (s *Server) StreamReports(stream grpc.BidiStreamingServer[pb.StreamReportsRequest, pb.StreamReportsResponse]) error {
	var number int64
	var vehicle string
	var session uint64
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		number++
		r := req.GetReport()
		vehicle, session = cmp.Or(r.GetVehicleId(), vehicle), cmp.Or(r.GetSessionId(), session)
		r.VehicleId, r.SessionId = vehicle, session
		refusals, err := s.take(r, number)
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.StreamReportsResponse{AcknowledgedReports: number, AcknowledgedSequence: r.GetSequence(), Refusals: refusals}); err != nil {
			return err
		}
	}
}

// SendReport implements the service.
func (s *Server) SendReport(_ context.Context, req *pb.SendReportRequest) (*pb.SendReportResponse, error) {
	refusals, err := s.take(req.GetReport(), 1)
	return &pb.SendReportResponse{AcknowledgedSequence: req.GetReport().GetSequence(), Refusals: refusals}, err
}

func (s *Server) take(r *pb.Report, number int64) ([]*pb.FixRefusal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received++
	breaks := 0
	if s.BreakEvery > 0 && s.received%s.BreakEvery == 0 {
		breaks = s.received / s.BreakEvery
	}
	if breaks%2 == 1 {
		return nil, status.Error(codes.Unavailable, "broken before storing")
	}
	s.Reports = append(s.Reports, Report{At: time.Now(), Report: r})
	v := s.vehicles[r.GetVehicleId()]
	if v == nil {
		v = &Vehicle{Fixes: map[int64]*pb.Fix{}}
		s.vehicles[r.GetVehicleId()] = v
	}
	var refusals []*pb.FixRefusal
	times := map[int64]bool{}
	for i, f := range r.GetFixes() {
		if reason := judge(f, times); reason != pb.RefusalReason_REFUSAL_REASON_UNSPECIFIED {
			refusals = append(refusals, &pb.FixRefusal{ReportNumber: number, Sequence: r.GetSequence(), FixIndex: int32(i), Reason: reason})
			continue
		}
		v.put(f, s.WindowMS)
	}
	s.show(r, v)
	if breaks > 0 {
		return nil, status.Error(codes.Unavailable, "broken after storing")
	}
	return refusals, nil
}

func judge(f *pb.Fix, times map[int64]bool) pb.RefusalReason {
	switch {
	case math.IsNaN(f.GetLatitude()) || math.IsNaN(f.GetLongitude()):
		return pb.RefusalReason_REFUSAL_REASON_COORDINATE_NOT_FINITE
	case f.GetLatitude() == 0 && f.GetLongitude() == 0:
		return pb.RefusalReason_REFUSAL_REASON_NULL_ISLAND
	case f.GetDeviceTimeMs() <= 0:
		return pb.RefusalReason_REFUSAL_REASON_TIME_NOT_POSITIVE
	case f.GetDeviceTimeMs() > time.Now().UnixMilli()+1000:
		return pb.RefusalReason_REFUSAL_REASON_TIME_TOO_FAR_AHEAD
	case times[f.GetDeviceTimeMs()]:
		return pb.RefusalReason_REFUSAL_REASON_TIME_REPEATED
	}
	times[f.GetDeviceTimeMs()] = true
	return pb.RefusalReason_REFUSAL_REASON_UNSPECIFIED
}

func (v *Vehicle) put(f *pb.Fix, windowMS int64) {
	known := v.Fixes[f.GetDeviceTimeMs()]
	switch {
	case known != nil && known.String() == f.String():
		v.Counts.Duplicate++
	case known != nil:
		v.Counts.Conflict++
	case windowMS > 0 && f.GetDeviceTimeMs() < v.Newest-windowMS:
		v.Counts.Late++
		v.Fixes[f.GetDeviceTimeMs()] = f
	default:
		v.Counts.Accepted++
		v.Fixes[f.GetDeviceTimeMs()] = f
		v.Newest = max(v.Newest, f.GetDeviceTimeMs())
	}
}

// show makes the vehicle's present state visible after ConsumeDelay.
func (s *Server) show(r *pb.Report, v *Vehicle) {
	now := &pb.Vehicle{
		Name: limits.VehicleNamePrefix + r.GetVehicleId(), Availability: r.GetAvailability(), Attributes: r.GetAttributes(),
		FixCounts: &pb.FixCounts{Accepted: v.Counts.Accepted, Duplicate: v.Counts.Duplicate, Conflict: v.Counts.Conflict, Late: v.Counts.Late},
	}
	if f := v.Fixes[v.Newest]; f != nil {
		now.Position = &pb.Position{Latitude: f.GetLatitude(), Longitude: f.GetLongitude()}
		now.DeviceTime = timestamppb.New(time.UnixMilli(v.Newest))
	}
	if s.ConsumeDelay < 0 {
		return
	}
	if s.ConsumeDelay == 0 {
		v.Visible = now
		return
	}
	time.AfterFunc(s.ConsumeDelay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if total(now.GetFixCounts()) >= total(v.Visible.GetFixCounts()) {
			v.Visible = now
		}
	})
}

func total(c *pb.FixCounts) int64 {
	return c.GetAccepted() + c.GetDuplicate() + c.GetConflict() + c.GetLate()
}

// GetVehicle implements the service.
func (s *Server) GetVehicle(_ context.Context, req *pb.GetVehicleRequest) (*pb.Vehicle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.vehicles {
		if v.Visible.GetName() == req.GetName() {
			return v.Visible, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such vehicle")
}

func (s *Server) sorted() []*pb.Vehicle {
	var all []*pb.Vehicle
	for _, v := range s.vehicles {
		if v.Visible != nil {
			all = append(all, v.Visible)
		}
	}
	slices.SortFunc(all, func(a, b *pb.Vehicle) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all
}

// ListVehicles implements the service, with pages of at most 100.
func (s *Server) ListVehicles(_ context.Context, req *pb.ListVehiclesRequest) (*pb.ListVehiclesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pb.ListVehiclesResponse{}
	for _, v := range s.sorted() {
		if v.GetName() <= req.GetPageToken() {
			continue
		}
		if len(resp.GetVehicles()) == 100 {
			resp.NextPageToken = resp.GetVehicles()[99].GetName()
			break
		}
		resp.Vehicles = append(resp.Vehicles, v)
	}
	return resp, nil
}

// SearchNearest implements the service by the haversine formula.
func (s *Server) SearchNearest(_ context.Context, req *pb.SearchNearestRequest) (*pb.SearchNearestResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pb.SearchNearestResponse{}
	for _, v := range s.sorted() {
		if v.GetPosition() == nil {
			continue
		}
		d := haversineM(req.GetPlace().GetLatitude(), req.GetPlace().GetLongitude(), v.GetPosition().GetLatitude(), v.GetPosition().GetLongitude())
		if r := req.GetRadiusM(); r == 0 || d <= r {
			resp.Results = append(resp.Results, &pb.NearbyVehicle{Vehicle: v, DistanceM: d})
		}
	}
	slices.SortStableFunc(resp.Results, func(a, b *pb.NearbyVehicle) int { return cmp.Compare(a.GetDistanceM(), b.GetDistanceM()) })
	resp.Results = resp.Results[:min(len(resp.Results), int(req.GetMaxResults()))]
	if s.Swap && len(resp.Results) > 1 {
		resp.Results[0], resp.Results[1] = resp.Results[1], resp.Results[0]
	}
	return resp, nil
}

// WatchVehicle implements the service by looking every 10 ms.
func (s *Server) WatchVehicle(req *pb.WatchVehicleRequest, stream grpc.ServerStreamingServer[pb.WatchVehicleResponse]) error {
	var sent *pb.Vehicle
	for first := true; ; first = false {
		v, err := s.GetVehicle(stream.Context(), &pb.GetVehicleRequest{Name: req.GetName()})
		unknown := err != nil
		if unknown {
			v = &pb.Vehicle{Name: req.GetName()}
		}
		if first || !unknown && v != sent {
			if err := stream.Send(&pb.WatchVehicleResponse{Vehicle: v, Unknown: unknown}); err != nil {
				return err
			}
			sent = v
		}
		if retry.Sleep(stream.Context(), 10*time.Millisecond) != nil {
			return nil
		}
	}
}

func haversineM(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	a := math.Pow(math.Sin((lat2-lat1)*rad/2), 2) + math.Cos(lat1*rad)*math.Cos(lat2*rad)*math.Pow(math.Sin((lon2-lon1)*rad/2), 2)
	return 2 * 6371008.8 * math.Atan2(math.Sqrt(a), math.Sqrt(max(0, 1-a)))
}
