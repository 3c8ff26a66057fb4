// Package limits holds the bounds of the protocol that clients and servers
// share and that no setting moves. It imports nothing of ours, so that every
// package may use it.
package limits

import "unicode"

const (
	// MaxVehicleIDBytes is the length of the longest vehicle id.
	MaxVehicleIDBytes = 64
	// VehicleIDRule is the rule of ValidVehicleID in words.
	VehicleIDRule = "1 to 64 of the characters A-Z a-z 0-9 - _ . ~, but neither . nor .."
	// VehicleNamePrefix comes before the vehicle id in a resource name.
	VehicleNamePrefix = "vehicles/"

	// MaxUnacknowledgedReports is how many reports of one vehicle and session
	// a client may have unacknowledged at a time. The tracker recognises a
	// resend among as many sequence numbers below a session's highest.
	MaxUnacknowledgedReports = 64

	// MaxFixesPerReport is how many fixes a report may carry; a server's
	// configuration may allow fewer.
	MaxFixesPerReport = 1000
	// MaxReportBytes is the largest encoded size of a report's fixes and
	// attributes that every server takes. A thousand fixes have about 50 KB.
	MaxReportBytes = 120 << 10

	// MaxLabelChars is the length of the longest vehicle type and of the
	// longest tag, in characters.
	MaxLabelChars = 32
	// LabelRule is the rule of VisibleLabel in words.
	LabelRule = "without control characters and others that show nothing"
	// MaxTags is how many tags a vehicle may have, and a filter may name.
	MaxTags = 16
	// MaxSeats is the largest number of seats.
	MaxSeats = 1000
)

// ValidVehicleID reports whether id keeps VehicleIDRule. The characters are the
// unreserved ones of RFC 3986: an id needs no escaping in a resource name. The
// segments . and .. are refused because clients and proxies remove them from a
// path (RFC 3986, section 5.2.4), so that such a vehicle could not be asked for.
func ValidVehicleID[T string | []byte](id T) bool {
	if len(id) == 0 || len(id) > MaxVehicleIDBytes {
		return false
	}
	for i := range len(id) {
		if !unreserved[id[i]] {
			return false
		}
	}
	return id[0] != '.' || len(id) > 2 || len(id) == 2 && id[1] != '.'
}

var unreserved = func() (is [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~" {
		is[c] = true
	}
	return is
}()

// VisibleLabel reports whether a vehicle type or a tag keeps LabelRule: a label
// is printed, and what terminals take for commands or hide does not belong there.
func VisibleLabel(label string) bool {
	for _, r := range label {
		if !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}
