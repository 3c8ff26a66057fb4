// Command mutations puts one fault after another into the tracker's step, or into
// the protocol of reservations, and shows that the model test, or the search of
// its states, finds each: a judge that finds nothing proves nothing. It changes no
// file; the compiler is given the changed text in the place of the real one.
//
//	go run ./internal/modeltest/mutations          # all; make model-mutations
//	go run ./internal/modeltest/mutations -only recognition
//	go run ./internal/modeltest/mutations -rides   # make rides-mutations
//
// It exits with 1 when a fault is not found, or no longer fits the text.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// subject is what faults are put into, and what must find them.
type subject struct {
	dir, pkg, tests string
	// foundBy finds in the tests' output what has found a fault.
	foundBy   *regexp.Regexp
	mutations []mutation
}

var step = subject{
	dir: "tracker/step", pkg: "./internal/modeltest", tests: "TestLogs|TestNothingHoldsAVehicle",
	foundBy: regexp.MustCompile(`-run (Test\w+ -seed \d+)`), mutations: mutations,
}

// mutation is a fault: in a file, one text in the place of another that stands
// there once.
type mutation struct {
	name, file, old, new string
}

var mutations = []mutation{
	{"a jump of the stamps is believed at once", "streamtime.go",
		"if stampMS-j.sinceMS < p.settings.ClockSettleMS {", "if false {"},
	{"stamps that come back leave the jump pending", "streamtime.go",
		"		p.jump = jump{}\n		p.streamMS = max(", "		p.streamMS = max("},
	{"a believed jump back moves no vehicle's times", "streamtime.go",
		"			v.shift(shiftMS)\n", ""},
	{"a believed jump ahead makes those silent that reported", "streamtime.go",
		"v.seenMS, v.refreshedMS = stampMS, stampMS", "_ = stampMS"},
	{"no memory over a rebase", "rebase.go",
		"	v.sessions.fenceAll(report)\n", "	v.sessions.fenceAll(report)\n	v.memory = memory{}\n"},
	{"a repeated conflict is a conflict again", "judge.go",
		"			t.Counts.Conflict++\n			p.remember(v, fix, 0)\n", "			t.Counts.Conflict++\n"},
	{"late fixes are not remembered", "judge.go",
		"			t.LateFixes = append(t.LateFixes, *fix)\n			p.remember(v, fix, 0)\n", "			t.LateFixes = append(t.LateFixes, *fix)\n"},
	{"a fix that was set aside takes its time from others", "judge.go",
		"p.remember(v, fix, setAside)", "p.remember(v, fix, 0)"},
	{"mocked=false differs from absent", "memory.go",
		"	x.Has, y.Has = contentHas(a), contentHas(b)\n", ""},
	{"the other session's fixes count", "judge.go",
		"outsider := !at.authoritative &&", "outsider := false &&"},
	{"conflict ignored", "authority.go",
		"		v.conflictUntilMS = p.streamMS + p.settings.SessionSilenceMS\n", "		_ = v\n"},
	{"strangers who open one after another hide the conflict", "authority.go",
		"	if s.entered {\n		return s.untilMS", "	if false {\n		return s.untilMS"},
	{"fixes sent again in a new session are a second phone", "authority.go",
		"same := p.recognise(v, &fixes[i]); !same {", "same := p.recognise(v, &fixes[i]); !same || true {"},
	{"one old report shows that a clock is behind", "device.go",
		"if ahead < 0 && !c.settled && !c.prevSettled {", "if false {"},
	{"an old session returns at once", "authority.go",
		"return !s.entered || p.isSilent(authority) ||", "return true || p.isSilent(authority) ||"},
	{"an old session never returns", "authority.go",
		"return !s.entered || p.isSilent(authority) || authority.aheadMS > tolerance && newestMS <= now.lowMS+tolerance", "_, _ = authority, tolerance\n	return !s.entered"},
	{"a copy of a forgotten session takes over", "authority.go",
		"	return newestMS > v.newestMS || v.newestMS >", "	return true || v.newestMS >"},
	{"availability returns by itself", "authority.go",
		"		v.availability = starlingv1.Availability_AVAILABILITY_UNSPECIFIED\n", "		v.availability = s.availability\n"},
	{"two stamps ahead confirm a clock", "device.go",
		"const confirmations = 3", "const confirmations = 2"},
	{"any three stamps ahead confirm a clock", "device.go",
		"if newestMS <= s.lastFixMS || !p.inLine(aheadMS, s.aheadMS) {", "if newestMS <= s.lastFixMS {"},
	{"a suspect is adopted by a session without authority", "device.go",
		"if !at.authoritative || at.recognised || !p.confirms(", "if at.recognised || !p.confirms("},
	{"what was learned of a clock outlives its device", "authority.go",
		"		v.clock = deviceClock{}\n", "		_ = learned\n"},
	{"the clock is learned from a slow report", "device.go",
		"		c.curMS = max(c.curMS, offsetMS)\n", "		c.curMS = min(c.curMS, offsetMS)\n"},
	{"a vehicle that is held ahead waits", "rebase.go",
		"p.agrees(newestMS, now) && !steady {", "p.agrees(newestMS, now) && !steady && false {"},
	{"a backlog at its recorded pace is a clock set back at once", "rebase.go",
		"return elapsed >= patience && v.lowWatermarkMS-newestMS > patience", "return v.lowWatermarkMS-newestMS > patience"},
	{"set-back evidence moves while a jump is pending", "rebase.go",
		"	case p.jump.pending():\n		return false\n", ""},
	{"a silent vehicle stays dispatchable", "vehicle.go",
		"&& age <= p.settings.DispatchMaxAgeMS", "&& age <= p.settings.DispatchMaxAgeMS+100_000"},
	{"a conflicting vehicle is dispatchable", "vehicle.go",
		"&& !out.Conflicting &&", "&&"},
	{"a full partition refuses who is known", "step.go",
		"if !known && len(p.vehicles) >= p.settings.MaxVehicles {", "if len(p.vehicles) >= p.settings.MaxVehicles {"},
	{"a partition takes one vehicle more than it may", "step.go",
		"len(p.vehicles) >= p.settings.MaxVehicles", "len(p.vehicles) > p.settings.MaxVehicles"},
	{"a copy makes a vehicle one that is remembered for long", "step.go",
		"		v.reports = min(v.reports+1, enoughReports)\n	}\n", "	}\n	v.reports = min(v.reports+1, enoughReports)\n"},
	{"every vehicle is forgotten soon", "timers.go",
		"if v.reports < enoughReports {", "if true {"},
	{"a silent vehicle is published at even intervals", "settings.go",
		"interval = min(2*interval, s.RepeatMaxIntervalMS)", "interval = min(interval, s.RepeatMaxIntervalMS)"},
	{"who was published again is not known after a restart", "checkpoint.go",
		", repeated: p.repeated,", ","},
	{"who waits behind 64 others is not published again", "timers.go",
		"			p.repeated = moment{repeatMS, v.id}\n", "			p.repeated = moment{p.streamMS, v.id}\n"},
	{"a switch publishes nobody again", "versions.go",
		"		p.repeated = moment{}\n", "		_ = differs\n"},
}

func main() {
	only := flag.String("only", "", "regular expression of the names to try")
	ofRides := flag.Bool("rides", false, "faults of the protocol of reservations instead of the step's")
	tests := flag.String("test", "", "the tests that must find it, empty for those that are meant to")
	flag.Parse()
	subject := step
	if *ofRides {
		subject = rides
	}
	if *tests != "" {
		subject.tests = *tests
	}
	if err := subject.run(regexp.MustCompile(*only)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (s *subject) run(only *regexp.Regexp) error {
	dir, err := os.MkdirTemp("", "starling-mutations-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var missed error
	tried := 0
	for _, m := range s.mutations {
		if !only.MatchString(m.name) {
			continue
		}
		tried++
		began := time.Now()
		found, err := s.try(m, dir)
		if err != nil {
			missed = errors.Join(missed, fmt.Errorf("%s: %w", m.name, err))
			found = "NOT FOUND: " + err.Error()
		}
		fmt.Printf("%-60s %s (%.0f s)\n", m.name, found, time.Since(began).Seconds())
	}
	fmt.Printf("%d faults tried\n", tried)
	return missed
}

var errSilent = errors.New("the tests pass")

// try runs the tests over the text with the fault and returns what found it.
func (s *subject) try(m mutation, dir string) (string, error) {
	path, err := filepath.Abs(filepath.Join(s.dir, m.file))
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", fmt.Errorf("%s has the text %d times, want once: %q", m.file, n, m.old)
	}
	changed, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o644); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o644); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "test", "-count=1", "-failfast", "-overlay", overlay, s.pkg, "-run", s.tests).CombinedOutput()
	if err == nil {
		return "", errSilent
	}
	by := s.foundBy.FindStringSubmatch(string(out))
	if by == nil {
		return "", fmt.Errorf("the tests fail otherwise: %.2000s", out)
	}
	return by[1], nil
}
