// Package step is the tracker's pure state machine: Partition is a value, and
// Step a function of (state, record). It reads no clock, draws no random number
// and lets no map order show. The same log gives the same bytes, however it is
// divided into batches and wherever a restart falls. Everything else that a step
// reads are the Settings, which stand in the state and change only by a version
// switch in the log. Package tracker owns partitions, publishes what Step
// returns and stores snapshots; archtest keeps it out of here.
//
// A vehicle's fixes are open while they lie in its window. It keeps the filter's
// state after the newest closed fix (base), the open fixes in order, and the
// filter's state after them (live). A fix that is newer than all others steps
// live; one that comes between them makes live anew from base; a fix that
// leaves the window steps base, which yields its final point. So the state is
// always what it would be had all fixes come in order.
package step
