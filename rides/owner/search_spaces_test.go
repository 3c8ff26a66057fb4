package owner_test

import "github.com/starling-fleet/starling/rides/owner"

var small = []scenario{
	{name: "a zombie", states: 37402, rides: 1, vehicles: 1, owners: 2, mode: owner.Offer, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 2, proposals: 2}},
	{name: "unknown", states: 9227, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 2, proposals: 2, unknown: 2, streamTicks: 1}},
	{name: "two rides", states: 23393, rides: 2, vehicles: 1, owners: 1, mode: owner.Auto, liveEvery: 100,
		budget: budget{takeovers: 2, proposals: 2, unknown: 1, lost: 1}},
	{name: "crash", states: 3503, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100,
		budget: budget{takeovers: 3, crashes: 1, proposals: 2, clockTicks: 1}},
	{name: "epoch", states: 2830, rides: 1, vehicles: 1, owners: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0}, bound: 1,
		budget: budget{takeovers: 1, raising: 1}},
	{name: "parts", states: 1489, rides: 2, vehicles: 2, owners: 1, mode: owner.Auto, liveEvery: 100, leaders: []int{0}, bound: 2, maxPromisesBytes: 1,
		budget: budget{takeovers: 1, raising: 1, unknown: 1}},
	{name: "partitions", states: 5876, rides: 2, vehicles: 1, owners: 2, partitions: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0, 1}, bound: 1,
		budget: budget{takeovers: 1, proposals: 1, raising: 1}},
	{name: "requests lost", states: 21449, rides: 1, vehicles: 1, owners: 1, mode: owner.Auto, liveEvery: 20, leaders: []int{0}, bound: 1, requestsLost: true,
		budget: budget{takeovers: 2, raising: 1, cancels: 1, crashes: 1}},
	{name: "acts", states: 8135, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100, leaders: []int{0}, bound: 1,
		budget: budget{takeovers: 1, acts: 2, cancels: 1, clockTicks: 1, reports: 1, operators: 1, proposals: 1}},
	{name: "zombie unknown", states: 35975, rides: 1, vehicles: 1, owners: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2, unknown: 1}},
	{name: "repeated", states: 500, rides: 1, vehicles: 1, owners: 1, mode: owner.Offer, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2, repeated: 1, cancels: 1, clockTicks: 1}},
	{name: "back", states: 3561, rides: 1, vehicles: 1, owners: 1, mode: owner.Auto, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 1, repeated: 1, streamTicks: 1, streamBack: 1, cancels: 1}},
	{name: "two vehicles", states: 8128, rides: 1, vehicles: 2, owners: 2, mode: owner.Auto, liveEvery: 100, leaders: []int{0},
		budget: budget{takeovers: 1, proposals: 2}},
}

var large = small
