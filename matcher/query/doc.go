// Package query answers the calls of FleetService that look at the fleet once:
// the nearest vehicles, areas, counts by cell, lists and single vehicles. It holds
// the rules of their requests and writes their answers, which the watching calls
// of matcher/watch share.
package query
