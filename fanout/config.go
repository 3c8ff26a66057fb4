package fanout

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/valid"
)

// maxTimeout is what matcher.Config.RegionGrace allows for.
const maxTimeout = 5 * time.Second

// Config sets the fan-out.
type Config struct {
	Replicas    []string      `koanf:"replicas" help:"Matchers that are limited to regions, each as REGION=HOST:PORT; several of one region stand in for each other. Every region of matcher.regions needs one."`
	Timeout     time.Duration `koanf:"timeout" help:"Longest time that a search waits for the matchers it asks; at most 5s, which matcher.region_grace allows for."`
	MaxCalls    int           `koanf:"max_calls" help:"Largest number of searches and other calls that are answered at the same time; more are refused."`
	MaxWatchers int           `koanf:"max_watchers" help:"Largest number of watch calls at the same time; one of an area holds what it shows, about 1 kB for each vehicle."`
}

// DefaultConfig returns the configuration that Starling ships with.
func DefaultConfig() Config {
	return Config{Timeout: 2 * time.Second, MaxCalls: 1000, MaxWatchers: 5000}
}

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	var faults valid.Faults
	for _, r := range c.Replicas {
		_, _, err := split(r)
		faults.Add(err)
	}
	valid.Between(&faults, "timeout", c.Timeout, 10*time.Millisecond, maxTimeout)
	valid.Between(&faults, "max_calls", c.MaxCalls, 1, 1_000_000)
	valid.Between(&faults, "max_watchers", c.MaxWatchers, 1, 1_000_000)
	return faults.Err()
}

// ValidateFor returns what is wrong with c for a process that has the role, given
// matcher.Config's regions, or nil.
func (c Config) ValidateFor(regions []string) error {
	earth, err := region.Parse(regions)
	if err != nil {
		return fmt.Errorf("matcher: regions: %w", err)
	}
	if _, err := c.addresses(earth); err != nil {
		return fmt.Errorf("fanout: %w", err)
	}
	return nil
}

// split takes an entry of Replicas apart.
func split(entry string) (name, address string, err error) {
	name, address, ok := strings.Cut(entry, "=")
	if _, _, err := net.SplitHostPort(address); !ok || err != nil {
		return "", "", fmt.Errorf("replicas is %q: must be REGION=HOST:PORT", entry)
	}
	return strings.TrimSpace(name), address, nil
}

// addresses returns the replicas' addresses by region.
func (c Config) addresses(regions *region.Map) ([][]string, error) {
	names := regions.Names()
	out := make([][]string, len(names))
	var errs []error
	for _, r := range c.Replicas {
		name, address, err := split(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		number := regions.Number(name)
		if number < 0 {
			errs = append(errs, fmt.Errorf("replicas: %q: matcher.regions has no region %q", r, name))
			continue
		}
		out[number] = append(out[number], address)
	}
	for number, addresses := range out {
		if len(addresses) == 0 {
			errs = append(errs, fmt.Errorf("replicas: region %s has none", names[number]))
		}
	}
	return out, errors.Join(errs...)
}
