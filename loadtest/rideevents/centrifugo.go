package rideevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/leanrpc"
	"github.com/starling-fleet/starling/loadtest/process"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// centrifugo is a Centrifugo with a channel for each subscriber, with history and
// recovery as Starling's events have them. Its clients speak its protobuf protocol
// over WebSocket, and publications come over its gRPC API, those that are due
// together in one call.
type centrifugo struct {
	opts     *Options
	process  *process.Process
	audience *audience
	dir      string
	http     string // address for clients
	grpc     string // address of its API
	health   string
}

func startCentrifugo(ctx context.Context, o *Options, redis string, a *audience) (target, error) {
	addrs, err := freeport.Addrs(2)
	if err != nil {
		return nil, err
	}
	c := &centrifugo{opts: o, audience: a, http: addrs[0], grpc: addrs[1], health: "http://" + addrs[0] + "/health"}
	if c.dir, err = os.MkdirTemp(o.WorkDir, "starling-events-centrifugo-"); err != nil {
		return nil, fmt.Errorf("make a folder for Centrifugo: %w", err)
	}
	settings := filepath.Join(c.dir, "config.json")
	if err := c.configure(settings, redis); err != nil {
		_ = os.RemoveAll(c.dir)
		return nil, err
	}
	c.process = process.New(process.Spec{Name: "centrifugo", Command: []string{o.Centrifugo, "-c", settings}})
	if err := c.process.Start(); err != nil {
		_ = os.RemoveAll(c.dir)
		return nil, err
	}
	return c, nil
}

// configure writes its settings: what is not named is as it ships.
func (c *centrifugo) configure(path, redis string) error {
	host, port, err := net.SplitHostPort(c.http)
	if err != nil {
		return err
	}
	_, api, err := net.SplitHostPort(c.grpc)
	if err != nil {
		return err
	}
	clientPort, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	apiPort, err := strconv.Atoi(api)
	if err != nil {
		return err
	}
	type object = map[string]any
	text, err := json.Marshal(object{
		"http_server": object{"address": host, "port": clientPort},
		"grpc_api":    object{"enabled": true, "address": host, "port": apiPort},
		"health":      object{"enabled": true},
		"log":         object{"level": "error"},
		"usage_stats": object{"disabled": true},
		"client":      object{"insecure": true, "channel_limit": streamsPerConnection},
		"engine":      object{"type": "redis", "redis": object{"address": []string{"redis://" + redis}}},
		"channel": object{"without_namespace": object{
			"history_size": 128, "history_ttl": "1h", "force_recovery": true, "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
		}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func (c *centrifugo) name() string { return "Centrifugo" }

func (c *centrifugo) running() *process.Process { return c.process }

func (c *centrifugo) stop() error {
	c.process.Kill()
	return os.RemoveAll(c.dir)
}

// prepare waits until it serves.
func (c *centrifugo) prepare(ctx context.Context) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.health, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = resp.Body.Close()
			if resp.StatusCode == http.StatusOK && err == nil {
				return nil
			}
		}
		select {
		case <-c.process.Ended():
			return fmt.Errorf("centrifugo ended before it served: %s", c.process.LastOutput())
		default:
		}
		if sleepErr := retry.Sleep(ctx, 20*time.Millisecond); sleepErr != nil {
			return fmt.Errorf("centrifugo does not serve: %w", errors.Join(sleepErr, err))
		}
	}
}

func channel(n int) string { return "ride-" + strconv.Itoa(n) }

// Field numbers of Centrifugo's protocol, protobuf edition.
const (
	commandID, commandConnect, commandSubscribe = 1, 4, 5
	subscribeChannel                            = 1
	replyID, replyError, replyPush              = 1, 2, 4
	replySubscribe                              = 6
	pushChannel, pushPublication                = 2, 4
	publicationData                             = 4
	batchCommands, commandPublish               = 1, 4
	publishChannel, publishData                 = 1, 2
)

// subscribe opens one connection and its subscriptions.
func (c *centrifugo) subscribe(ctx context.Context, connection int, opened, ready func()) error {
	ws, err := dialWebSocket(c.http, "/connection/websocket", "centrifuge-protobuf")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = ws.close() })
	defer func() {
		if stop() {
			_ = ws.close()
		}
	}()
	from, to := c.opts.Subscribers*connection/c.opts.Connections, c.opts.Subscribers*(connection+1)/c.opts.Connections
	var out []byte
	command := func(id, field int, body []byte) {
		var b []byte
		b = protowire.AppendVarint(protowire.AppendTag(b, commandID, protowire.VarintType), uint64(id))
		b = protowire.AppendBytes(protowire.AppendTag(b, protowire.Number(field), protowire.BytesType), body)
		out = protowire.AppendBytes(out, b)
	}
	command(1, commandConnect, nil)
	for n := from; n < to; n++ {
		command(n-from+2, commandSubscribe, protowire.AppendString(protowire.AppendTag(nil, subscribeChannel, protowire.BytesType), channel(n)))
	}
	if err := ws.write(out); err != nil {
		return err
	}
	waiting := to - from
	err = ws.run(func(message []byte) error {
		return c.replies(ws, message, func() {
			ready()
			if waiting--; waiting == 0 {
				opened()
			}
		})
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// errCommand is a command that Centrifugo refused.
var errCommand = errors.New("a command was refused")

// replies takes what came in one message.
func (c *centrifugo) replies(ws *webSocket, message []byte, ready func()) error {
	for len(message) > 0 {
		reply, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if len(reply) == 0 { // a ping, answered by an empty command
			if err := ws.write([]byte{0}); err != nil {
				return err
			}
			continue
		}
		var err error
		eachField(reply, func(field protowire.Number, value []byte, _ uint64) {
			switch field {
			case replyError:
				err = fmt.Errorf("%w: %q", errCommand, value)
			case replySubscribe:
				ready()
			case replyPush:
				c.push(value)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// push takes a publication.
func (c *centrifugo) push(push []byte) {
	number, sentMS := -1, int64(0)
	eachField(push, func(field protowire.Number, value []byte, _ uint64) {
		switch field {
		case pushChannel:
			if n, err := strconv.Atoi(string(value[len("ride-"):])); err == nil {
				number = n
			}
		case pushPublication:
			eachField(value, func(field protowire.Number, value []byte, _ uint64) {
				if field == publicationData {
					sentMS, _, _ = positionTimes(value)
				}
			})
		}
	})
	if number >= 0 && sentMS > 0 {
		c.audience.take(number, sentMS, 0)
	}
}

func (c *centrifugo) publishers(context.Context) ([]publisher, error) {
	all := make([]publisher, 0, publisherCount)
	for range publisherCount {
		conn, err := leanrpc.Dial(c.grpc)
		if err != nil {
			return nil, err
		}
		all = append(all, &publications{c: c, conn: conn})
	}
	return all, nil
}

// publications sends publications over one connection.
type publications struct {
	c    *centrifugo
	conn *leanrpc.Conn
}

// publicationsAtOnce bounds a call, which has to fit one frame.
const publicationsAtOnce = 100

func (p *publications) publish(vehicles []int) error {
	for len(vehicles) > 0 {
		n := min(len(vehicles), publicationsAtOnce)
		var request []byte
		for _, vehicle := range vehicles[:n] {
			data, err := p.position(vehicle)
			if err != nil {
				return err
			}
			body := protowire.AppendString(protowire.AppendTag(nil, publishChannel, protowire.BytesType), channel(vehicle))
			body = protowire.AppendBytes(protowire.AppendTag(body, publishData, protowire.BytesType), data)
			command := protowire.AppendBytes(protowire.AppendTag(nil, commandPublish, protowire.BytesType), body)
			request = protowire.AppendBytes(protowire.AppendTag(request, batchCommands, protowire.BytesType), command)
		}
		if _, err := p.conn.Call("/centrifugal.centrifugo.api.CentrifugoApi/Batch", append(request, batchParallel...)); err != nil {
			return err
		}
		vehicles = vehicles[n:]
	}
	return nil
}

// batchParallel is the field that lets the commands of a batch run at once, so that
// they share round trips to Redis.
var batchParallel = protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 1)

// position is what Starling sends of a vehicle.
func (p *publications) position(vehicle int) ([]byte, error) {
	now := time.Now()
	lat, lon := p.c.opts.at(vehicle, now.UnixMilli())
	speed, heading := float32(speedMPS), float32(90)
	return proto.Marshal(&starlingv1.SubscribeRideEventsResponse{Recovered: true, VehiclePosition: &starlingv1.RideVehiclePosition{
		Vehicle: fmt.Sprint("vehicles/e-", vehicle), Latitude: lat, Longitude: lon, SpeedMps: &speed, HeadingDeg: &heading, DeviceTime: timestamppb.New(now.Truncate(time.Millisecond)),
	}})
}

func (p *publications) close() error { return p.conn.Close() }
