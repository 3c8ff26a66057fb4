// Package freeport finds loopback ports for servers that are started as child
// processes, which have to be told theirs.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports are below those that Linux gives to outgoing connections (32768 and
// up), so that no client takes one between its being found and being served.
const first, count = 15_000, 15_000

// Find returns n different ports that nobody listens on.
func Find(n int) ([]int, error) {
	var ports []int
	var lastErr error
	for tries := 0; len(ports) < n; tries++ {
		if tries > 100+n {
			return nil, fmt.Errorf("find a free port: %w", lastErr)
		}
		port := first + rand.IntN(count)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			lastErr = err
			continue
		}
		// All stay open until the last is found, so none repeats.
		defer func() { _ = l.Close() }()
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
