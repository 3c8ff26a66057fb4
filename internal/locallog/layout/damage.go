package layout

import (
	"fmt"
	"strings"

	"github.com/starling-fleet/starling/internal/locallog/ends"
)

// Finding is one thing that is not as it was acknowledged.
type Finding struct {
	// Store is the store or the file that it concerns.
	Store string `json:"store"`
	// Topic is empty if it concerns no partition.
	Topic     string `json:"topic,omitempty"`
	Partition int32  `json:"partition"`
	// From is the first offset that is missing or unreadable, To the one behind
	// the last; equal if no offset is known to be missing.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// What reports what was found.
	What string `json:"what"`
}

func (f Finding) String() string {
	switch {
	case f.Topic == "":
		return fmt.Sprintf("%s: %s", f.Store, f.What)
	case f.To > f.From:
		return fmt.Sprintf("%s partition %d: offsets %d to %d (%d records): %s", f.Topic, f.Partition, f.From, f.To-1, f.To-f.From, f.What)
	}
	return fmt.Sprintf("%s partition %d: %s", f.Topic, f.Partition, f.What)
}

// DamageError reports that a log does not hold what it has acknowledged.
type DamageError struct {
	Directory string
	Findings  []Finding
}

func (e *DamageError) Error() string {
	var b strings.Builder
	b.WriteString("the log does not hold everything that was acknowledged; nothing was changed and nothing is served:")
	for _, f := range e.Findings {
		b.WriteString("\n  " + f.String())
	}
	fmt.Fprintf(&b, "\n`starling log check --data %s` reads everything and reports it; `starling log repair --data %s` keeps what is readable, declares the rest lost and raises the epoch", e.Directory, e.Directory)
	return b.String()
}

// AllMissing names every acknowledged offset.
func AllMissing(a *ends.Account) []Finding {
	var out []Finding
	for p, place := range a.Places {
		if place.Next > 0 {
			topic, partition := a.Topic(uint16(p/a.Partitions+1)), int32(p%a.Partitions)
			out = append(out, Finding{Store: ends.Records.String(), Topic: topic, Partition: partition, To: place.Next, What: "those of them that retention has kept were acknowledged and are missing"})
		}
	}
	return out
}
