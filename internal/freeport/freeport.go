// Package freeport finds loopback ports for servers that are started as child
// processes, whose addresses are passed to them.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// The ports are below those that Linux gives to outgoing connections (32768 and
// up), so that no client takes one between its being found and being served.
const first, count = 15_000, 15_000

// given are the ports that this process was given before. The servers they are for
// need not listen yet, or may just be starting again.
var given sync.Map

// Find returns n different ports that nobody listens on and that this process
// was not given before. It may be called by several goroutines.
func Find(n int) ([]int, error) {
	var ports []int
	var lastErr error
	for tries := 0; len(ports) < n; tries++ {
		if tries > 100+n {
			return nil, fmt.Errorf("find a free port: %w", lastErr)
		}
		port := first + rand.IntN(count)
		if _, before := given.LoadOrStore(port, true); before {
			lastErr = fmt.Errorf("port %d was given before", port)
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			lastErr = err
			continue
		}
		_ = l.Close()
		ports = append(ports, port)
	}
	return ports, nil
}

// Addrs returns n different loopback addresses, as host:port.
func Addrs(n int) ([]string, error) {
	ports, err := Find(n)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, n)
	for i, p := range ports {
		addrs[i] = fmt.Sprintf("127.0.0.1:%d", p)
	}
	return addrs, nil
}
