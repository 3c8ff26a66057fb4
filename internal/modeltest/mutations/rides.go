package main

import "regexp"

// rides is the protocol by which vehicles and rides are bound; the search of its
// states prints what is wrong behind FOUND.
var rides = subject{
	dir: ".", pkg: "./rides/owner", tests: "TestSearch|TestRegressions",
	foundBy: regexp.MustCompile(`FOUND (.{1,110})`), mutations: ridesMutations,
}

var ridesMutations = []mutation{
	{"a newer generation's attempt is released", "rides/owner/promises.go",
		"	case me.Before(its):\n		return false // somebody", "	case me.Before(its) && its.Before(me):\n		return false // somebody"},
	{"an event is announced when it is appended", "rides/owner/owner.go",
		"	o.inFlight[e.GetRide()] = true\n", "	o.inFlight[e.GetRide()] = true\n	o.events = append(o.events, e)\n"},
	{"a vehicle is bound whose grant was not read", "rides/owner/promises.go",
		"	granted := held != nil && held.Ride == name && held.Attempt == a.id\n",
		"	granted := true\n	if held == nil {\n		held = &wire.Reservation{}\n	}\n"},
	{"a reservation expires with its proposal", "tracker/reserve/reserve.go",
		"	v.decided = slices.DeleteFunc(slices.Clone(v.decided), over)\n",
		"	for _, d := range v.decided {\n		if over(d) && v.held != nil && v.held.Attempt == d.attempt {\n			v.held = nil\n		}\n	}\n	v.decided = slices.DeleteFunc(slices.Clone(v.decided), over)\n"},
	{"grants don't wait for restatements", "tracker/reserve/assertions.go",
		"{ return len(a.complete) == int(partitions) }", "{ return true }"},
	{"an event counts whatever its sequence", "rides/life/life.go",
		"	if e.GetSequence() != before.Sequence+1 {", "	if false {"},
	{"an event counts whatever its generation", "rides/life/life.go",
		"|| r.GetGeneration() != s.Owner.Generation {", "{"},
	{"an attempt is released while it is being bound", "rides/owner/promises.go",
		"	case o.inFlight[r.Ride]:\n		return false // it may be what is being bound\n", ""},
	{"what was decided is not remembered", "tracker/reserve/reserve.go",
		"	v.remember(decided{p.Ride, p.Attempt, p.DecideByMS})\n", ""},
	{"an unknown append leads to no takeover", "rides/owner/owner.go",
		"			o.nonce, o.leading = 0, false\n		}\n	case a.proposal", "			delete(o.inFlight, a.ride)\n		}\n	case a.proposal"},
	{"a part of a restatement counts as the whole", "tracker/reserve/assertions.go",
		"i < 0 || len(a.pending[i].got) < int(r.Parts)", "i < 0"},
	{"the first part of a restatement that is in the log stands for all", "rides/owner/owner.go",
		"	if at.missing > 0 {\n		return\n	}\n", "	at.missing = 0\n"},
	{"whoever reads a takeover takes over", "rides/owner/owner.go",
		"	case led && o.state", "	case (led || !led) && o.state"},
	{"the watermark passes requests that were not read back", "rides/owner/owner.go",
		"	if len(o.requests) > 0 {\n		return o.requests[0].offset", "	if false {\n		return 0"},
	{"what an older generation holds is never released", "rides/owner/promises.go",
		"	case me.Before(its):\n", "	case me != its && its.Before(life.Owner{Epoch: me.Epoch, Generation: me.Generation}):\n		return false\n	case me.Before(its):\n"},
	{"a restatement that fails is made anew", "rides/owner/owner.go",
		"		o.append(*a.reasserts, a)\n", "		o.reassertTo(a.reasserts.Partition)\n"},
	{"the watermark of an older epoch stands", "rides/life/life.go",
		"			s.RequestsBelow = 0 // offsets", "			_ = 0 // offsets"},
	{"a refused takeover is not tried again", "rides/owner/owner.go",
		"		if failed && a.takeover == o.nonce {", "		if false {"},
}
