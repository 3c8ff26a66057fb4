package overload

import (
	"context"
	"strconv"
	"time"

	"github.com/starling-fleet/starling/loadtest/process"
)

// stopPatience is how long the server may take to stop.
const stopPatience = 30 * time.Second

// server is the serving process.
type server struct{ *process.Up }

// startServer starts one and waits until it serves.
func startServer(ctx context.Context, o *Options) (*server, error) {
	up, err := process.StartUp(ctx, o.Starling, o.WorkDir, "--ingest-limits-server-bytes", strconv.FormatInt(o.ServerBytes, 10))
	if err != nil {
		return nil, err
	}
	return &server{up}, nil
}
