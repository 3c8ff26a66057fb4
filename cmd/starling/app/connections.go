package app

import (
	"container/list"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/throttle"
)

// silentGrace is how long a connection on which nothing has been read is safe
// from giving way to a newer one.
const silentGrace = time.Second

// connectionsReport is the least time between two log lines about connections
// that were refused.
const connectionsReport = 10 * time.Second

// connections bounds the connections that several listeners accept together, so
// that the process keeps file descriptors for its log. When all are taken a new
// one takes the place of the oldest on which nothing has ever been read, if that
// has been silent for a while, and is closed at once otherwise: who talks stays.
type connections struct {
	limit   int
	logger  *slog.Logger
	metrics *connectionMetrics

	mu     sync.Mutex
	open   int
	silent *list.List // of *connection, oldest first
	report throttle.Throttle
}

type connectionMetrics struct {
	open    *prometheus.GaugeVec
	refused *prometheus.CounterVec
}

// Reasons for which a connection is refused.
const (
	refusedFull   = "full"
	refusedSilent = "silent"
)

func newConnectionMetrics(reg prometheus.Registerer) *connectionMetrics {
	m := &connectionMetrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "starling", Subsystem: "server", Name: "connections",
			Help: "Connections that are open, by server.",
		}, []string{"server"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "starling", Subsystem: "server", Name: "refused_connections_total",
			Help: "Connections that were closed because the process accepts no more (server.max_connections, or its limit of open files), by server and reason: full, the new one was closed; silent, one on which nothing had been read gave way to a new one.",
		}, []string{"server", "reason"}),
	}
	reg.MustRegister(m.open, m.refused)
	return m
}

func newConnections(limit int, metrics *connectionMetrics, logger *slog.Logger) *connections {
	return &connections{limit: limit, logger: logger, metrics: metrics, silent: list.New(), report: throttle.Throttle{Interval: connectionsReport}}
}

// on returns a listener whose connections count.
func (c *connections) on(server string, l net.Listener) net.Listener {
	return &boundListener{
		Listener: l, all: c, server: server,
		openNow: c.metrics.open.WithLabelValues(server),
		full:    c.metrics.refused.WithLabelValues(server, refusedFull),
		gaveWay: c.metrics.refused.WithLabelValues(server, refusedSilent),
	}
}

type boundListener struct {
	net.Listener
	all           *connections
	server        string
	openNow       prometheus.Gauge
	full, gaveWay prometheus.Counter
}

// Accept implements net.Listener.
func (l *boundListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			return nil, errors.Join(errors.New("a connection is not TCP"), conn.Close())
		}
		if c := l.all.admit(l, tcp); c != nil {
			return c, nil
		}
		_ = conn.Close()
	}
}

// admit returns the connection as it counts, or nil if there is no place.
func (c *connections) admit(l *boundListener, tcp *net.TCPConn) net.Conn {
	c.mu.Lock()
	var yields *connection
	if c.open >= c.limit {
		if oldest := c.silent.Front(); oldest != nil && time.Since(oldest.Value.(*connection).accepted) >= silentGrace {
			yields = oldest.Value.(*connection)
			c.release(yields)
		} else {
			suppressed, pass := c.report.Pass()
			c.mu.Unlock()
			l.full.Inc()
			if pass {
				c.logger.Warn("a connection is refused: the process accepts no more", "server", l.server, "limit", c.limit, "more_since_last_report", suppressed)
			}
			return nil
		}
	}
	conn := &connection{TCPConn: tcp, listener: l, accepted: time.Now()}
	conn.place = c.silent.PushBack(conn)
	c.open++
	l.openNow.Inc()
	var suppressed int64
	pass := false
	if yields != nil {
		suppressed, pass = c.report.Pass()
	}
	c.mu.Unlock()
	if yields != nil {
		yields.listener.gaveWay.Inc()
		_ = yields.TCPConn.Close() // whoever serves it finds it closed
		if pass {
			c.logger.Warn("a silent connection gives way to a new one: the process accepts no more", "server", yields.listener.server, "limit", c.limit, "silent_for", time.Since(yields.accepted), "more_since_last_report", suppressed)
		}
	}
	return conn
}

// release takes a connection out of the count, once; mu is held.
func (c *connections) release(conn *connection) {
	if conn.released {
		return
	}
	conn.released = true
	if conn.place != nil {
		c.silent.Remove(conn.place)
		conn.place = nil
	}
	c.open--
	conn.listener.openNow.Dec()
}

// connection is an accepted one.
type connection struct {
	*net.TCPConn
	listener *boundListener
	accepted time.Time
	spoken   atomic.Bool // something was read

	// The mutex of listener.all guards these.
	place    *list.Element // among the silent ones
	released bool
}

// Read implements net.Conn.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 && !c.spoken.Load() {
		c.spoken.Store(true)
		c.listener.all.heard(c)
	}
	return n, err
}

// heard takes a connection out of the silent ones.
func (c *connections) heard(from *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from.place != nil {
		c.silent.Remove(from.place)
		from.place = nil
	}
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.listener.all.forget(c)
	return c.TCPConn.Close()
}

func (c *connections) forget(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(conn)
}
