package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// feedStart is the device time of the first fix: the same for every run, so that a
// feed can be built into an app.
const feedStart = 1_790_000_000_000

// makeFeed returns the reports that a client is to deliver, without session and
// sequence, in the order in which it is to queue them. Every number in them is
// written and read in JSON without loss.
func makeFeed(rng *rand.Rand, vehicles, reports int) []*starlingv1.Report {
	feed := make([]*starlingv1.Report, 0, reports)
	times := make([]int64, vehicles)
	for i := range reports {
		v := i % vehicles
		r := &starlingv1.Report{VehicleId: fmt.Sprintf("conformance-%d", v+1)}
		if i < vehicles {
			r.Availability = starlingv1.Availability_AVAILABILITY_FREE
			r.Attributes = &starlingv1.Attributes{Type: "van", Seats: 6, Tags: []string{"wheelchair", "pet friendly"}}
		} else if rng.IntN(8) == 0 {
			r.Availability = starlingv1.Availability_AVAILABILITY_BUSY
		}
		for range 1 + rng.IntN(4) {
			times[v] += 1000 + int64(rng.IntN(9))
			r.Fixes = append(r.Fixes, makeFix(rng, feedStart+times[v]))
		}
		feed = append(feed, r)
	}
	return feed
}

func makeFix(rng *rand.Rand, at int64) *starlingv1.Fix {
	quarter := func(n int) *float32 { return proto.Float32(float32(rng.IntN(4*n)) / 4) }
	f := &starlingv1.Fix{
		DeviceTimeMs: at,
		Latitude:     48 + float64(rng.IntN(1_000_000))/1e6,
		Longitude:    16 + float64(rng.IntN(1_000_000))/1e6,
	}
	if rng.IntN(4) > 0 {
		f.AccuracyM = quarter(30)
	}
	if rng.IntN(4) > 0 {
		f.SpeedMps, f.HeadingDeg = quarter(30), quarter(359)
	}
	if rng.IntN(2) > 0 {
		f.AltitudeM = quarter(300)
	}
	if rng.IntN(4) == 0 {
		f.Mocked = proto.Bool(false)
	}
	return f
}

// FeedLines is a feed as a client reads it: protobuf's JSON of one report a line.
func FeedLines(feed []*starlingv1.Report) ([]byte, error) {
	var out bytes.Buffer
	for _, r := range feed {
		line, err := protojson.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("write a report of the feed: %w", err)
		}
		// protojson varies its white space on purpose.
		if err := json.Compact(&out, line); err != nil {
			return nil, fmt.Errorf("write a report of the feed: %w", err)
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}
