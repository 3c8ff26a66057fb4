// Package fanout serves starling.v1.FleetService from matchers that are limited
// to regions, each of which knows a part of the fleet. It keeps nothing but open
// calls: any number of fan-outs may stand side by side.
//
// # Why an answer is exact
//
// Matchers read `tracks` at different moments, so a vehicle that crosses from one
// region into another may be known to both of their matchers for an instant, or,
// if each kept just who is inside, to neither. Therefore a matcher keeps a
// vehicle that has left its region for Config.RegionGrace on the partition's
// clock, and goes on following it. Take one partition, the matchers that were
// asked, and the record that the one which has read least has read last: m.
//
// Claim: every vehicle of the partition either is held by a matcher that was
// asked, in a view at least as new as the vehicle's newest up to m, or its newest
// view up to m lies in a region that was not asked.
//
// Proof: let R be the region of the newest view up to m, and let R's matcher be
// asked. It has read m. If the vehicle has not left R in what it has read since,
// it holds the vehicle. If it has, then behind m: the clock at which it left, T,
// is at least that of m. The matcher that has read least names its partition as
// stale unless, when it answered, T was less than StaleAfter ago. R's matcher
// answered at most Config.Timeout from then, at which time the partition's clock,
// which follows the wall clock, had not passed T by more than StaleAfter, Timeout
// and what the machines' clocks disagree by, together less than RegionGrace. So
// it has not dropped the vehicle. (A vehicle without a position is in all
// regions.)
//
// So where no partition is named as stale, an answer counts every vehicle at one
// of the views that it has had between what the slowest matcher asked has read
// and what the fastest has. A single matcher that lags as the slowest does could
// return no more. When all have read the same, the answer is that of a matcher that
// knows the whole fleet. What a matcher is stale in, the answer names; and it
// fails with UNAVAILABLE, naming the region, when no matcher of a region that it
// needs can be asked.
//
// # The nearest
//
// Each matcher's answer has its k nearest. A vehicle that several return counts in
// the newest view returned. The k nearest of all that were returned are then the truth if
// none of them is further than the last of any answer that was truncated at k:
// whatever was not returned is further still. They nearly always are. If not, because
// a newer view took a vehicle further away than what its other matcher has returned
// every vehicle counts where it is returned as nearest, which is always complete:
// each answer truncated at k has k vehicles no further than its last.
//
// Regions at a distance are not asked: first those whose lower bound
// (region.Map.DistanceM) is zero, then those whose bound is within the radius and
// not beyond the k-th vehicle returned so far. By the claim a vehicle that none of
// those asked holds was, in the slowest one's view, in a region whose vehicles
// are all further away. Where positions are predicted, all are asked, because a
// vehicle is not where its region is.
package fanout
