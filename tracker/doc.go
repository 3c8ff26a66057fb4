// Package tracker owns partitions of the topic `locations` and turns every
// record into exactly one record of `tracks`: it recognises what it has seen,
// orders fixes within a window, filters them, finds the H3 cell of the live
// position and says what time has done to the vehicles that are silent.
//
// # The pure part
//
// Partition is a value and Step a function of (state, record): it reads no
// clock, draws no random number and lets no map order show. The same log gives
// the same bytes, however it is cut into batches and wherever a restart falls.
// The clock is the largest append time that the log has stamped. Everything
// else that a step reads are the Settings, which stand in the state and change
// only by a version switch in the log.
//
// A vehicle's fixes are open while they lie in its window. It keeps the filter's
// state after the newest closed fix (base), the open fixes in order, and the
// filter's state after them (live). A fix that is newer than all others steps
// live; one that comes between them makes live anew from base; a fix that
// leaves the window steps base, which yields its final point. So the state is
// always what it would be had all fixes come in order.
//
// # The role
//
// Tracker moves records, publishes and checkpoints; nothing that it does can
// change what Step answers. What a crash leaves behind, step by step:
//
//   - After a record was read and stepped: nothing. The next owner steps it again.
//   - After its track was published: the track. The next owner publishes the same
//     bytes again, and readers drop the repetition by its source offset.
//   - After a cut was taken: nothing. It waits in memory until the log has taken
//     every track and dead letter of the records before it.
//   - After the checkpoint was stored: the state of all vehicles and the offset
//     at which to go on, as one. Nothing before that offset is read again.
//
// An owner that has lost its partition without knowing publishes what its
// successor publishes, and its checkpoints are refused.
package tracker
