// Package ingest is the gRPC server for driver apps: it validates
// reports, appends what is good to the log and acknowledges what the log holds.
//
// It keeps no state of its own. What it has read and not yet acknowledged is in
// flight, bounded for each stream and for the server; a crash loses it, and the
// clients send it again.
//
// Memory is bounded by the limits: server_bytes for all reports in flight, and
// for each of at most max_streams streams the HTTP/2 window of 64 KiB and one
// message of at most twice max_message_bytes that gRPC has read ahead, and as
// much as 64 KiB of acknowledgements that the client leaves unread. A silent
// stream takes less than 20 kB, and its connection some 30 kB more.
package ingest
