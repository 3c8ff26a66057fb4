package app

import "fmt"

// Descriptors that a process needs besides those of its log's store and of its
// clients' connections.
const (
	// ownDescriptors are standard streams, listeners, the runtime's, the log's
	// directories and the profiles that an operator takes.
	ownDescriptors = 40
	// peerDescriptors are for connections that the process opens: to brokers, or
	// from a fan-out to matchers.
	peerDescriptors = 64
	// adminConnections are kept for the admin server, so that an operator gets
	// through when clients have taken all others.
	adminConnections = 16
	// leastConnections is what a process must be able to accept to be of use.
	leastConnections = 32

	leastStoreFiles = 160 // below that a store closes and opens tables all the time
	mostStoreFiles  = 1500
)

// descriptors is how the process's file descriptors are shared out.
type descriptors struct {
	storeFiles  int // that the local log's stores keep open
	connections int // that all servers but the admin one accept together
}

// shareDescriptors shares a limit out. At most most connections are accepted;
// zero means as many as fit.
func shareDescriptors(limit int, localLog bool, most int) (descriptors, error) {
	var d descriptors
	left := limit - ownDescriptors - adminConnections
	if localLog {
		d.storeFiles = min(max(limit/3, leastStoreFiles), mostStoreFiles)
		left -= d.storeFiles
	} else {
		left -= peerDescriptors
	}
	if left < leastConnections {
		return d, fmt.Errorf("the process may open %d files (ulimit -n): it needs at least %d, of which the log's store and its own files take %d", limit, limit-left+leastConnections, limit-left)
	}
	d.connections = left
	if most > 0 {
		d.connections = min(most, left)
	}
	return d, nil
}
