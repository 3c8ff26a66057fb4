// Package liveindex holds the newest state of every vehicle of a fleet in
// memory and finds the exact nearest of them to a place while they move.
//
// One goroutine at a time writes (a mutex sees to it); any number read. Readers
// never wait for the writer and the writer never waits for readers.
//
// # Shape
//
// A place is its unit vector (geo.Unit), so poles and the antimeridian are
// places like any other. The cube [-1, 1]³ around the sphere is an octree
// (D. Meagher, "Geometric modeling using octree encoding", 1982): a leaf holds
// the entries of the vehicles inside its cube in one flat array, is split when
// more than leafMax are live in it, and is merged back when its siblings run
// low. So a leaf downtown is as full as one in the country, and an ocean costs
// nothing. A cube of maxLevel (12 mm) that is still too full is an overflow cube and is
// split on by three bits of the id after another, first bits first, which puts
// its leaves in the order of ids.
//
// # Why the answer is exact
//
// A search visits cubes in order of the lower bound geo.BoxChord2 of the
// squared chord between the place and anything in the cube. It keeps the k best
// vehicles so far in a heap by (distance, id). Let limit be
// geo.Chord2Bound of the smaller of the search radius and, once there are k,
// the worst distance kept. The search stops at the first cube whose lower bound
// exceeds limit. Nothing is lost:
//
//  1. Every vehicle lies in its leaf's cube, ends included: cube edges are
//     multiples of a power of two, and scaling by a power of two and rounding
//     down are exact.
//  2. The lower bound of a cube does not exceed the computed Chord2 of any
//     vehicle in it, as computed in floating point (geo.BoxChord2), nor the
//     bound of any cube inside it. So every vehicle not yet scanned has a
//     Chord2 at or above the bound of the cube where the search stops.
//  3. A vehicle that belongs in the answer has a distance of at most the worst kept
//     and at most the radius, hence a Chord2 of at most limit
//     (geo.Chord2Bound). Vehicles not scanned have more.
//  4. Ties in distance are not dropped, because the search goes on while the
//     bound equals limit; among them the heap orders by id.
//  5. In an overflow cube the leaves are visited in the order of ids. If all vehicles of
//     the overflow cube stand on exactly one point, all have one distance; when a leaf has
//     an id that comes behind the worst kept at that distance, so have all
//     leaves after it, and they are left out.
//
// When positions are predicted (Query.Ahead), a vehicle is at most the top speed
// times the longest prediction away from its entry's place, so limit allows for
// that much more distance and the argument stands.
//
// The same limit discards entries before their distance is computed.
//
// # One moment
//
// The writer numbers its updates. An entry never changes once it is visible,
// but for its death: an update writes a new entry born at version V, marks the
// vehicle's old entry dead at V and then publishes V. A reader takes the
// published version S and sees the entries with birth <= S < death: the whole
// fleet as it was right after update S, each vehicle exactly once, though
// vehicles cross from leaf to leaf while it looks.
//
// Dead entries are used again only when no reader's S is below their death
// (K. Fraser, "Practical lock-freedom", 2004, describes the scheme as
// epoch-based reclamation). A reader announces itself before it takes S, so the
// writer either sees it or published, before the reader looked, a version that
// covers all the writer is about to reclaim. Leaves that are split, grown or
// merged are copied and the copy takes their place by one pointer; a reader
// that still holds the old one has an S from before, for which the old one is
// as good.
//
// # Cost
//
// An entry is 48 bytes, a state 128 and a vehicle 16, the id's characters come
// on top.
// Attributes are kept once per distinct set. Nothing is swept when vehicles
// grow old: a search's MinFixTimeMS is compared during the scan.
package liveindex
