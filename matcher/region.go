package matcher

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// graceMargin is how much longer than StaleAfter a vehicle that has left is kept
// at least: for the longest time that a fan-out waits for its answers, 5 s, and
// for clocks of machines that disagree.
const graceMargin = 15 * time.Second

// residence returns what the configuration describes, nil if the matcher is not
// limited.
func (c Config) residence() (*follow.Residence, error) {
	if c.Region == "" {
		return nil, nil //nolint:nilnil // nil keeps all
	}
	regions, err := region.Parse(c.Regions)
	if err != nil {
		return nil, fmt.Errorf("regions: %w", err)
	}
	own := regions.Number(c.Region)
	if own < 0 {
		return nil, fmt.Errorf("region is %q: must be one of regions, which has %s", c.Region, strings.Join(regions.Names(), ", "))
	}
	return &follow.Residence{Regions: regions, Own: own, Grace: c.RegionGrace}, nil
}

func (c Config) validateRegion(faults *valid.Faults) {
	_, err := c.residence()
	if c.Region == "" && len(c.Regions) > 0 {
		_, err = region.Parse(c.Regions)
		if err != nil {
			err = fmt.Errorf("regions: %w", err)
		}
	}
	faults.Add(err)
	if c.Region == "" {
		return
	}
	faults.Need(c.RegionGrace >= c.StaleAfter+graceMargin, "region_grace", c.RegionGrace, fmt.Sprintf("at least %v longer than stale_after, which is %v", graceMargin, c.StaleAfter))
	faults.Need(c.RebuildWindow == 0 || c.RebuildWindow >= 2*c.RegionGrace, "rebuild_window", c.RebuildWindow, fmt.Sprintf("0 or at least twice region_grace, which is %v", c.RegionGrace))
}

// RegionOptions are the further options of the gRPC server of a matcher that is
// limited to a region; nil for others. They refuse callers that do not state which
// region they take it to keep.
func (m *Matcher) RegionOptions() []grpc.ServerOption {
	if m.residence == nil {
		return nil
	}
	label := m.residence.Regions.Label(m.residence.Own)
	fleet := "/" + starlingv1.FleetService_ServiceDesc.ServiceName + "/"
	check := func(ctx context.Context, method string) error {
		if !strings.HasPrefix(method, fleet) {
			return nil
		}
		labels := metadata.ValueFromIncomingContext(ctx, region.Header)
		switch {
		case len(labels) == 0:
			return query.Error(codes.FailedPrecondition, query.ReasonRegionMismatch, "this matcher knows region "+label+" only: ask the fan-out, which knows the fleet")
		case labels[0] != label:
			return query.Error(codes.FailedPrecondition, query.ReasonRegionMismatch, "this matcher keeps region "+label+", the caller takes it for "+labels[0]+": let all processes have the same matcher.regions")
		}
		return nil
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := check(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := check(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return handler(srv, stream)
		}),
	}
}
