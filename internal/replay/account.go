package replay

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Account counts what became of every row.
type Account struct {
	// Files were read; SkippedFiles were left out by their name.
	Files        []string `json:"files"`
	SkippedFiles []string `json:"skipped_files,omitempty"`
	// Vehicles is how many vehicles the rows name.
	Vehicles int `json:"vehicles"`
	// Rows is how many rows the files have below their headers.
	Rows int64 `json:"rows"`
	// Unreadable rows could not be sent, by reason.
	Unreadable map[string]int64 `json:"unreadable"`
	// Acknowledged is how many rows ingest acknowledged, refused ones included.
	Acknowledged int64 `json:"acknowledged"`
	// Refused rows, by the server's reason.
	Refused map[string]int64 `json:"refused"`
	// Rejected rows were in reports that the server refused as a whole.
	Rejected int64 `json:"rejected"`
	// Unacknowledged rows were read, but the playback ended before the server
	// had answered.
	Unacknowledged int64 `json:"unacknowledged"`

	// What the fleet counts of the rows: new, there before, there before with
	// other content, and behind the reorder window.
	Accepted   int64 `json:"accepted"`
	Duplicates int64 `json:"duplicates"`
	Conflicts  int64 `json:"conflicts"`
	Late       int64 `json:"late"`

	// Resent is how many fixes were sent again after a broken stream. Copies
	// of them that the log holds are in Copies, and among Duplicates or Late.
	Resent int64 `json:"resent"`
	Copies int64 `json:"copies"`

	// Settled is true when the fleet showed everything acknowledged before
	// SettleTimeout.
	Settled bool `json:"settled"`

	// Shortened is what MaxGap took out of the longest file's silence.
	Shortened time.Duration `json:"shortened_ns"`

	BrokenStreams  int64         `json:"broken_streams"`
	SendDuration   time.Duration `json:"send_duration_ns"`
	SettleDuration time.Duration `json:"settle_duration_ns"`
}

// Consumed is how many fixes the fleet shows.
func (a Account) Consumed() int64 { return a.Accepted + a.Duplicates + a.Conflicts + a.Late }

// FixesPerSecond is the rate at which rows were acknowledged.
func (a Account) FixesPerSecond() float64 {
	if a.SendDuration <= 0 {
		return 0
	}
	return float64(a.Acknowledged) / a.SendDuration.Seconds()
}

// Check returns an error if the account does not close: every row is in exactly
// one class, and what ingest acknowledged is what the fleet has consumed.
func (a Account) Check() error {
	refused := sum(a.Refused)
	switch {
	case !a.Settled:
		return fmt.Errorf("not settled yet: ingest acknowledged %d good fixes, the fleet shows %d", a.Acknowledged-refused, a.Consumed())
	case a.Copies < 0 || a.Copies > a.Resent:
		return fmt.Errorf("the fleet shows %d fixes more than were acknowledged, but only %d were sent again", a.Copies, a.Resent)
	}
	classes := sum(a.Unreadable) + refused + a.Rejected + a.Unacknowledged + a.Consumed() - a.Copies
	if a.Rows != classes {
		return fmt.Errorf("%d rows, but the classes add up to %d", a.Rows, classes)
	}
	return nil
}

// Lines is the account as a table of text, one class a line.
func (a Account) Lines() []string {
	var lines []string
	add := func(name string, n int64) { lines = append(lines, fmt.Sprintf("%-34s %12d", name, n)) }
	add("rows", a.Rows)
	add("  accepted", a.Accepted)
	add("  duplicates", a.Duplicates)
	add("  conflicts", a.Conflicts)
	add("  late", a.Late)
	for _, reason := range slices.Sorted(maps.Keys(a.Refused)) {
		add("  refused: "+reason, a.Refused[reason])
	}
	for _, reason := range slices.Sorted(maps.Keys(a.Unreadable)) {
		add("  unreadable: "+reason, a.Unreadable[reason])
	}
	for _, rare := range []struct {
		name string
		n    int64
	}{
		{"  rejected with their report", a.Rejected},
		{"  unacknowledged", a.Unacknowledged},
		{"  less copies of resent fixes", -a.Copies},
	} {
		if rare.n != 0 {
			add(rare.name, rare.n)
		}
	}
	return lines
}

// String is the table.
func (a Account) String() string { return strings.Join(a.Lines(), "\n") }

func sum(m map[string]int64) int64 {
	var n int64
	for _, v := range m {
		n += v
	}
	return n
}
