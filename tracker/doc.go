// Package tracker owns partitions of the topic `locations` and turns every
// record into exactly one record of `tracks`. What a record does is decided by
// tracker/step, a pure function of (state, record); this package moves records,
// publishes and checkpoints, and nothing that it does can change what the step
// computes. What a crash leaves behind, step by step:
//
//   - After a record was read and stepped: nothing. The next owner steps it again.
//   - After its track was published: the track. The next owner publishes the same
//     bytes again, and readers drop the repetition by its source offset.
//   - After a snapshot was taken: nothing. It waits in memory until the log has
//     acknowledged every track and dead letter of the records before it.
//   - After the checkpoint was stored: the state of all vehicles and the offset
//     at which to go on, as one. Nothing before that offset is read again.
//
// An owner that has lost its partition without knowing publishes what its
// successor publishes, and its checkpoints are refused.
package tracker
