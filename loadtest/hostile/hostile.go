// Package hostile attacks a whole `starling up` by raw HTTP/2 frames and by HTTP
// beside an honest client that must be served, and compares what each attack costs
// the process with what it may cost.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/process"
)

// Options set a run.
type Options struct {
	// Starling is the binary and what comes before its arguments.
	Starling []string
	// WorkDir is where the local log is put; empty means the system's temporary
	// folder.
	WorkDir string
	// Fleet is how many vehicles the matcher knows.
	Fleet int
	// Short attacks one process, whose deadlines are short, with fewer and smaller
	// attacks; otherwise each
	// attack has a process of its own, so that none is measured in the memory that
	// another has left.
	Short bool
	// Only names the attacks to run, all if it is empty.
	Only []string
	// Progress receives a line for each step. It may be nil.
	Progress func(string)
}

// DefaultOptions are those of the goals.
func DefaultOptions() Options { return Options{Fleet: 10_000, Progress: func(string) {}} }

// Validate names every fault.
func (o *Options) Validate() error {
	var faults []error
	if len(o.Starling) == 0 {
		faults = append(faults, errors.New("starling: no command"))
	}
	if o.Fleet < 1 || o.Fleet > 1_000_000 {
		faults = append(faults, fmt.Errorf("fleet is %d: must be between 1 and 1000000", o.Fleet))
	}
	for _, name := range o.Only {
		if !slices.ContainsFunc(attacks(), func(a attack) bool { return a.name == name }) {
			faults = append(faults, fmt.Errorf("only has %q: there is no such attack", name))
		}
	}
	return errors.Join(faults...)
}

// Outcome is what one attack cost, and what it may.
type Outcome struct {
	Attack string `json:"attack"`
	// Before is what outsiders measured before there were limits.
	Before string `json:"before"`
	// GrownBytes is how much the process's resident memory grew at most, and
	// CPU the time that it used while the attack was under way, with the honest
	// client's calls. MaxBytes and MaxCPU bound them; zero means no bound.
	GrownBytes int64         `json:"grown_bytes"`
	MaxBytes   int64         `json:"max_bytes"`
	CPU        time.Duration `json:"cpu_ns"`
	MaxCPU     time.Duration `json:"max_cpu_ns"`
	// PerCall is the CPU time of one call, for attacks by cost.
	PerCall    time.Duration `json:"per_call_ns,omitempty"`
	MaxPerCall time.Duration `json:"max_per_call_ns,omitempty"`
	// Took is how long the attack lasted, until the server had ended what it had
	// to end.
	Took    time.Duration `json:"took_ns"`
	MaxTook time.Duration `json:"max_took_ns"`
	// What describes what was done and what came of it.
	What string `json:"what"`
	// The honest client's calls meanwhile.
	HonestCalls  int           `json:"honest_calls"`
	HonestFailed int           `json:"honest_failed"`
	HonestP99    time.Duration `json:"honest_p99_ns"`
	FirstFailure string        `json:"first_failure,omitempty"`
	maxHonestP99 time.Duration
	// Faults are the goals that were missed.
	Faults []string `json:"faults,omitempty"`
}

// Result is what all attacks showed.
type Result struct {
	Fleet    int       `json:"fleet"`
	Outcomes []Outcome `json:"outcomes"`
}

// Misses implements report.Result.
func (r *Result) Misses() []string {
	var all []string
	for _, o := range r.Outcomes {
		for _, f := range o.Faults {
			all = append(all, o.Attack+": "+f)
		}
	}
	return all
}

// String implements report.Result.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "A matcher with %d vehicles; memory is resident beyond the start's, CPU is the whole process's.\n\n", r.Fleet)
	b.WriteString("| attack | before | limit | now | honest calls | p99 | failed |\n|---|---|---|---|---|---|---|\n")
	for _, o := range r.Outcomes {
		fmt.Fprintf(&b, "| %s: %s | %s | %s | %s | %d | %s | %d |\n", o.Attack, o.What, o.Before, o.limits(), o.figures(), o.HonestCalls, o.HonestP99.Round(100*time.Microsecond), o.HonestFailed)
	}
	return b.String()
}

func (o *Outcome) limits() string {
	var parts []string
	if o.MaxBytes > 0 {
		parts = append(parts, mib(o.MaxBytes))
	}
	if o.MaxCPU > 0 {
		parts = append(parts, o.MaxCPU.String()+" CPU")
	}
	if o.MaxPerCall > 0 {
		parts = append(parts, o.MaxPerCall.String()+" a call")
	}
	if o.MaxTook > 0 {
		parts = append(parts, "ended in "+o.MaxTook.String())
	}
	return strings.Join(parts, ", ")
}

func (o *Outcome) figures() string {
	parts := []string{mib(o.GrownBytes), o.CPU.Round(10*time.Millisecond).String() + " CPU"}
	if o.MaxPerCall > 0 {
		parts = append(parts, o.PerCall.Round(10*time.Microsecond).String()+" a call")
	}
	return strings.Join(append(parts, o.Took.Round(100*time.Millisecond).String()), ", ")
}

func mib(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }

// Honest clients must be served: none of their calls may fail, and 99 in 100 must
// end within this, on a machine that the attackers share.
const maxHonestP99 = 2 * time.Second

func (o *Outcome) judge() {
	miss := func(broken bool, format string, args ...any) {
		if broken {
			o.Faults = append(o.Faults, fmt.Sprintf(format, args...))
		}
	}
	miss(o.MaxBytes > 0 && o.GrownBytes > o.MaxBytes, "memory grew by %s, at most %s is allowed", mib(o.GrownBytes), mib(o.MaxBytes))
	miss(o.MaxCPU > 0 && o.CPU > o.MaxCPU, "%s of CPU, at most %s is allowed", o.CPU, o.MaxCPU)
	miss(o.MaxPerCall > 0 && o.PerCall > o.MaxPerCall, "%s a call, at most %s is allowed", o.PerCall, o.MaxPerCall)
	miss(o.MaxTook > 0 && o.Took > o.MaxTook, "it took %s until the server had ended it, at most %s is allowed", o.Took, o.MaxTook)
	miss(o.HonestFailed > 0, "%d of %d honest calls failed, the first with: %s", o.HonestFailed, o.HonestCalls, o.FirstFailure)
	miss(o.HonestP99 > o.maxHonestP99, "honest calls took %s (p99), at most %s is allowed", o.HonestP99, o.maxHonestP99)
	miss(o.HonestCalls == 0, "no honest call was answered")
}

// target is the process that is attacked.
type target struct {
	*process.Up
	json string
	// command is the binary and what comes before its arguments.
	command []string
	conns   conns.Set
	tokens  *tokens
	// attacker is the token of who attacks, who may report and see everything.
	attacker string
	// front is a fan-out before the process, for attacks on one; else nil.
	front     *process.Process
	frontAddr string
}

// shortDeadlines have a short run wait less; limits of size are those of a first
// start.
func shortDeadlines() []string {
	return []string{
		"--server-grpc-read-timeout", "2s", "--server-grpc-send-timeout", "3s", "--server-grpc-handshake-timeout", "2s",
		"--json-read-timeout", "2s", "--json-write-timeout", "3s",
	}
}

// startTarget starts a process and has it know the fleet.
func startTarget(ctx context.Context, o *Options) (*target, error) {
	addrs, err := freeport.Addrs(1)
	if err != nil {
		return nil, err
	}
	t := &target{json: addrs[0], command: o.Starling}
	if t.tokens, err = newTokens(o.WorkDir); err != nil {
		return nil, err
	}
	if t.attacker, err = t.tokens.of("attacker", "report dispatch"); err != nil {
		return nil, err
	}
	operator, err := t.tokens.of("operator", "operate")
	if err != nil {
		return nil, err
	}
	args := append(t.tokens.args(), "--server-json-listen", t.json)
	if o.Short {
		args = append(args, shortDeadlines()...)
	}
	t.Up, err = process.StartUp(ctx, o.Starling, o.WorkDir, args...)
	if err != nil {
		t.tokens.remove()
		return nil, err
	}
	t.Authorize(operator)
	if err := t.fill(ctx, o.Fleet); err != nil {
		return nil, errors.Join(err, t.end())
	}
	return t, nil
}

func (t *target) end() error {
	t.conns.Close()
	defer t.tokens.remove()
	return errors.Join(t.endFront(), t.End(time.Minute))
}

// Run attacks.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Result{Fleet: o.Fleet}
	var shared *target
	for _, a := range attacks() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, a.name) || o.Short && a.long {
			continue
		}
		o.Progress(a.name)
		t := shared
		if t == nil {
			var err error
			if t, err = startTarget(ctx, &o); err != nil {
				return r, err
			}
			if o.Short {
				shared = t
				defer func() { _ = shared.end() }()
			}
		}
		out, err := t.suffer(ctx, &a, o.Short)
		if !o.Short {
			err = errors.Join(err, t.end())
		}
		r.Outcomes = append(r.Outcomes, out)
		if err != nil {
			return r, fmt.Errorf("%s: %w", a.name, err)
		}
		o.Progress("  " + out.figures() + "; " + out.What)
	}
	return r, ctx.Err()
}

// suffer lets the target be attacked once.
func (t *target) suffer(ctx context.Context, a *attack, short bool) (Outcome, error) {
	out := Outcome{Attack: a.name, Before: a.before, MaxBytes: a.maxBytes, MaxCPU: a.maxCPU, MaxPerCall: a.maxPerCall, MaxTook: a.maxTook, maxHonestP99: maxHonestP99}
	if short {
		// CI's machine is shared: what is compared with the goals is the long form.
		out.MaxPerCall *= 3
		out.maxHonestP99 *= 3
	}
	if a.front {
		if err := t.startFront(ctx); err != nil {
			return out, err
		}
		defer func() { _ = t.endFront() }()
	}
	honest, err := t.honest(ctx)
	if err != nil {
		return out, err
	}
	watch, err := t.watch()
	if err != nil {
		return out, err
	}
	begun := time.Now()
	at := &assault{target: t, short: short}
	out.What, err = a.run(ctx, at)
	out.Took = time.Since(begun)
	at.leave()
	grown, cpu, werr := watch.end()
	out.GrownBytes, out.CPU, out.PerCall = grown, cpu, at.perCall
	honest.end(&out)
	out.judge()
	return out, errors.Join(err, werr)
}
