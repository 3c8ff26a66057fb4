package owner_test

import "github.com/starling-fleet/starling/rides/owner"

var small = []scenario{
	{name: "a zombie", states: 39260, rides: 1, vehicles: 1, owners: 2, mode: owner.Offer, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 2, proposals: 2}},
	{name: "unknown", states: 9205, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 2, proposals: 2, unknown: 2, streamTicks: 1}},
	{name: "two rides", states: 19635, rides: 2, vehicles: 1, owners: 1, mode: owner.Auto, liveEvery: 100,
		budget: budget{takeovers: 2, proposals: 2, unknown: 1, lost: 1}},
	{name: "crash", states: 3503, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100,
		budget: budget{takeovers: 3, crashes: 1, proposals: 2, clockTicks: 1}},
	{name: "epoch", states: 2830, rides: 1, vehicles: 1, owners: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0}, bound: 1,
		budget: budget{takeovers: 1, raising: 1}},
	{name: "parts", states: 1489, rides: 2, vehicles: 2, owners: 1, mode: owner.Auto, liveEvery: 100, leaders: []int{0}, bound: 2, maxPromisesBytes: 1,
		budget: budget{takeovers: 1, raising: 1, unknown: 1}},
	{name: "partitions", states: 5876, rides: 2, vehicles: 1, owners: 2, partitions: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0, 1}, bound: 1,
		budget: budget{takeovers: 1, proposals: 1, raising: 1}},
	{name: "requests lost", states: 21564, rides: 1, vehicles: 1, owners: 1, mode: owner.Auto, liveEvery: 20, leaders: []int{0}, bound: 1, requestsLost: true,
		budget: budget{takeovers: 2, raising: 1, cancels: 1, crashes: 1}},
	{name: "acts", states: 8135, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100, leaders: []int{0}, bound: 1,
		budget: budget{takeovers: 1, acts: 2, cancels: 1, clockTicks: 1, reports: 1, operators: 1, proposals: 1}},
	{name: "zombie unknown", states: 40182, rides: 1, vehicles: 1, owners: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2, unknown: 1}},
	{name: "repeated", states: 500, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2, repeated: 1, cancels: 1, clockTicks: 1}},
	{name: "back", states: 3561, rides: 1, vehicles: 1, owners: 1, mode: owner.Auto, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 1, repeated: 1, streamTicks: 1, streamBack: 1, cancels: 1}},
	{name: "two vehicles", states: 9092, rides: 1, vehicles: 2, owners: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2}},
}

// large are the spaces of make rides-search, with two owners of a partition of
// which one is a zombie, where it is not said otherwise.
var large = []scenario{
	{name: "two by two", rides: 2, vehicles: 2, owners: 2, mode: owner.Auto, liveEvery: 2000, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2}},
	{name: "crash and zombie", rides: 1, vehicles: 1, owners: 2, mode: owner.Offer, liveEvery: 2000, leaders: []int{0},
		budget: budget{takeovers: 2, proposals: 2, crashes: 1}},
	{name: "raised under a zombie", rides: 1, vehicles: 1, owners: 2, mode: owner.Auto, liveEvery: 2000, leaders: []int{0}, bound: 1,
		budget: budget{takeovers: 2, proposals: 1, raising: 1}},
	{name: "cancelled while raised", rides: 1, vehicles: 1, owners: 2, mode: owner.Auto, liveEvery: 2000, leaders: []int{0}, bound: 1,
		budget: budget{takeovers: 1, raising: 1, cancels: 1, unknown: 1}},
	{name: "partitions and operator", rides: 2, vehicles: 1, owners: 2, partitions: 2, mode: owner.Auto, liveEvery: 2000, leaders: []int{0, 1}, bound: 1,
		budget: budget{takeovers: 2, proposals: 2, raising: 1, operators: 1}},
	{name: "drivers", rides: 2, vehicles: 2, owners: 1, mode: owner.Offer, liveEvery: 2000, leaders: []int{0}, bound: 1,
		budget: budget{takeovers: 1, proposals: 2, crashes: 1, acts: 2, clockTicks: 1, operators: 1}},
	{name: "offline", rides: 1, vehicles: 2, owners: 1, mode: owner.Offer, liveEvery: 2000, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2, crashes: 1, cancels: 1, clockTicks: 1, reports: 2, streamTicks: 1}},
	{name: "failing appends", rides: 2, vehicles: 1, owners: 1, mode: owner.Auto, liveEvery: 2000,
		budget: budget{takeovers: 3, proposals: 2, unknown: 2, lost: 1, repeated: 1, cancels: 1}},
	{name: "unknown under a zombie", rides: 1, vehicles: 1, owners: 2, mode: owner.Auto, liveEvery: 2000, leaders: []int{0},
		budget: budget{takeovers: 2, proposals: 2, unknown: 1, repeated: 1, cancels: 1}},
	{name: "parts of a restatement", rides: 2, vehicles: 2, owners: 1, mode: owner.Auto, liveEvery: 2000, leaders: []int{0}, bound: 2, maxPromisesBytes: 1,
		budget: budget{takeovers: 2, proposals: 1, raising: 1, unknown: 1, lost: 1, cancels: 1, crashes: 1}},
}
