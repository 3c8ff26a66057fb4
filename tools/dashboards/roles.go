package main

var ingest = board{
	name: "ingest", title: "ingest",
	description: "Reports of drivers: what comes, what is acknowledged, what is refused and why.",
	rows: []row{
		{"Traffic", []panel{
			{"Fixes", "cps", "Received, accepted by validation and acknowledged.", []query{
				rate("starling_ingest_fixes_received_total", "", "received"),
				rate("starling_ingest_fixes_accepted_total", "", "accepted"),
				rate("starling_ingest_fixes_acknowledged_total", "", "acknowledged"),
			}},
			{"Reports", "cps", "Received, resent ones included, and acknowledged.", []query{
				rate("starling_ingest_reports_received_total", "", "received"),
				rate("starling_ingest_reports_acknowledged_total", "", "acknowledged"),
			}},
			{"Time until durable", "s", "From handing a report to the log to its being durable.", quantiles("starling_ingest_append_seconds")},
		}},
		{"Refused", []panel{
			{"Fixes refused by rule", "cps", "docs/validation.md has the rules.", []query{rate("starling_ingest_fixes_refused_total", "reason", "{{reason}}")}},
			{"Reports rejected by rule", "cps", "As a whole.", []query{rate("starling_ingest_reports_rejected_total", "rule", "{{rule}}")}},
			{"Appends that failed", "cps", "The log refused or did not confirm; clients send again.", []query{rate("starling_ingest_append_failures_total", "reason", "{{reason}}")}},
		}},
		{"Load", []panel{
			{"Open streams", "short", "Report streams by process.", []query{gauge("starling_ingest_streams", "instance", "{{instance}}")}},
			{"Bytes in flight", "bytes", "Read and neither acknowledged nor given up; ingest.limits.server_bytes is the most.", []query{gauge("starling_ingest_in_flight_bytes", "instance", "{{instance}}")}},
			{"Streams ended by code", "cps", "", []query{rate("starling_ingest_streams_ended_total", "code", "{{code}}")}},
		}},
		{"Clocks", []panel{
			{"Clock against the log and the devices", "s", "By how much each is ahead of this server's clock.", []query{{`starling_ingest_clock_skew_seconds{` + of + `}`, "{{instance}} {{against}}"}}},
			{"Clock in doubt", "short", "1 while the server is not ready because of it.", []query{gauge("starling_ingest_clock_in_doubt", "instance, by", "{{instance}} {{by}}")}},
			{"Reports kept back", "cps", "They wait until the clock is not in doubt.", []query{rate("starling_ingest_reports_kept_back_total", "instance", "{{instance}}")}},
		}},
	},
}

var tracker = board{
	name: "tracker", title: "tracker",
	description: "Owners of partitions: what became of fixes, lag, checkpoints, stream time.",
	rows: []row{
		{"Work", []panel{
			{"Fixes by what became of them", "cps", "docs/step.md has the results.", []query{rate("starling_tracker_fixes_total", "result", "{{result}}")}},
			{"Records by kind", "cps", "Records of locations that were stepped.", []query{rate("starling_tracker_records_total", "kind", "{{kind}}")}},
			{"Lag", "short", "Records of locations that are durable and not stepped.", []query{gauge("starling_tracker_lag_records", "instance", "{{instance}}")}},
		}},
		{"Vehicles", []panel{
			{"Vehicles known", "short", "", []query{gauge("starling_tracker_vehicles", "instance", "{{instance}}")}},
			{"Conflicting, or with a clock that is off", "short", "Two phones for one vehicle; a device's clock off by more than tracker.ahead_tolerance.", []query{
				gauge("starling_tracker_conflicting_vehicles", "", "conflicting"),
				gauge("starling_tracker_device_clock_off_vehicles", "", "clock off"),
			}},
			{"Refused after they were acknowledged", "cps", "Whole reports, by reason; partitions that are full.", []query{
				rate("starling_tracker_refused_reports_total", "reason", "{{reason}}"),
				gauge("starling_tracker_full_partitions", "", "full partitions"),
			}},
		}},
		{"Ownership and checkpoints", []panel{
			{"Partitions owned", "short", "", []query{gauge("starling_tracker_partitions", "instance", "{{instance}}")}},
			{"Checkpoints", "s", "Time from the snapshot to the stored checkpoint.", quantiles("starling_tracker_checkpoint_duration_seconds")},
			{"Bytes of checkpoints", "Bps", "", []query{rate("starling_tracker_checkpoint_bytes_total", "instance", "{{instance}}")}},
			{"Loading a partition", "s", "From its checkpoints.", quantiles("starling_tracker_load_duration_seconds")},
			{"Claimed again", "cps", "Because the log failed.", []query{rate("starling_tracker_retries_total", "instance", "{{instance}}")}},
			{"Stream time behind now", "s", "The partition that is furthest behind, by process.", []query{{`time() - min by (instance) (starling_tracker_stream_time_timestamp_seconds{` + of + `})`, "{{instance}}"}}},
		}},
	},
}

var matcher = board{
	name: "matcher", title: "matcher",
	description: "The live fleet: how current it is, what is asked, who watches.",
	rows: []row{
		{"How current", []panel{
			{"Append to searchable", "s", "From a record's append to tracks until it was searchable.", quantiles("starling_matcher_apply_lag_seconds")},
			{"Stale partitions", "short", "", []query{gauge("starling_matcher_stale_partitions", "instance", "{{instance}}")}},
			{"Ready", "short", "1 when the fleet has been rebuilt.", []query{gauge("starling_matcher_ready", "instance", "{{instance}}")}},
			{"Vehicles", "short", "In the live fleet.", []query{gauge("starling_matcher_vehicles", "instance", "{{instance}}")}},
			{"Records", "cps", "That counted, that were there before, and that lie behind a gap.", []query{
				rate("starling_matcher_records_total", "", "counted"),
				rate("starling_matcher_repeats_total", "", "repeats"),
				rate("starling_matcher_skipped_total", "", "behind a gap"),
			}},
			{"Faults", "cps", "Gaps, views that break a rule, records of an ended epoch.", []query{
				rate("starling_matcher_gaps_total", "", "gaps"),
				rate("starling_matcher_invalid_views_total", "", "invalid views"),
				rate("starling_matcher_outdated_total", "", "outdated"),
			}},
		}},
		{"Asked", []panel{
			{"Nearest search in the index", "s", "", quantiles("starling_matcher_search_seconds")},
			{"Watchers", "short", "Open calls that watch a vehicle, an area, counts.", []query{
				gauge("starling_matcher_watchers", "", "vehicles"),
				gauge("starling_matcher_area_watchers", "", "areas"),
				gauge("starling_matcher_count_watchers", "", "counts"),
			}},
			{"Budget of area watches", "bytes", "matcher.watch_bytes is the most.", []query{gauge("starling_matcher_area_watch_bytes", "instance", "{{instance}}")}},
		}},
		{"Positions in Redis", []panel{
			{"Written", "cps", "", []query{rate("starling_redis_positions_written_total", "instance", "{{instance}}")}},
			{"Wait until written", "s", "", quantiles("starling_redis_positions_lag_seconds")},
			{"Calls that failed", "cps", "", []query{rate("starling_redis_positions_failures_total", "instance", "{{instance}}")}},
		}},
	},
}

var fanout = board{
	name: "fanout", title: "fan-out",
	description: "Answers from matchers of regions.",
	rows: []row{{"Calls", []panel{
		{"Calls at work and watchers", "short", "", []query{gauge("starling_fanout_calls", "instance", "{{instance}} calls"), gauge("starling_fanout_watchers", "instance", "{{instance}} watchers")}},
		{"Asked by region", "cps", "Calls to matchers.", []query{rate("starling_fanout_asked_total", "region", "{{region}}")}},
		{"Failed by region", "cps", "Another replica was asked, or the answer names the region.", []query{rate("starling_fanout_failed_total", "region", "{{region}}")}},
		{"Older views returned", "cps", "Matchers were not equally far.", []query{rate("starling_fanout_older_views_total", "instance", "{{instance}}")}},
	}}},
}

var rides = board{
	name: "rides", title: "rides",
	description: "Matching, promises and events of rides.",
	rows: []row{
		{"Matching", []panel{
			{"Proposals", "cps", "Vehicles that were asked, and refused.", []query{
				rate("starling_rides_proposals_total", "", "asked"),
				rate("starling_rides_proposals_refused_total", "", "refused"),
			}},
			{"A round of matching", "s", "That proposed something, without the searches.", quantiles("starling_rides_match_seconds")},
			{"Estimates that failed", "cps", "Candidates were ranked by distance.", []query{rate("starling_rides_estimates_failed_total", "instance", "{{instance}}")}},
		}},
		{"Events", []panel{
			{"Events by kind", "cps", "That were read back.", []query{rate("starling_rides_events_total", "kind", "{{kind}}")}},
			{"Subscribers", "short", "", []query{gauge("starling_rides_subscribers", "instance", "{{instance}}")}},
			{"Where missed events came from", "cps", "", []query{rate("starling_rides_resumes_total", "source", "{{source}}"), rate("starling_rides_events_found_total", "", "found by comparison")}},
			{"Store of events", "cps", "Calls of Redis that failed, events it was not given, owners that did not answer.", []query{
				rate("starling_rides_store_failures_total", "", "failed calls"),
				rate("starling_rides_unpublished_events_total", "", "not given"),
				rate("starling_rides_comparison_failures_total", "", "owners silent"),
			}},
		}},
		{"Ownership", []panel{
			{"Partitions owned", "short", "", []query{gauge("starling_rides_owned_partitions", "instance", "{{instance}}")}},
			{"Records by verdict", "cps", "Voided are those of owners that had been replaced.", []query{rate("starling_rides_records_total", "verdict", "{{verdict}}")}},
			{"Dead letters", "cps", "Requests that could not be decoded.", []query{rate("starling_rides_dead_letters_total", "instance", "{{instance}}")}},
		}},
	},
}

var history = board{
	name: "history", title: "history",
	description: "Rows written to sinks of history, and how far behind they are.",
	rows: []row{{"Sinks", []panel{
		{"Rows", "cps", "", []query{rate("starling_history_rows_total", "instance", "{{instance}}")}},
		{"Behind", "s", "Age of the oldest record that has been read and is not written.", []query{gauge("starling_history_lag_seconds", "instance", "{{instance}}")}},
		{"Bytes", "Bps", "", []query{rate("starling_history_written_bytes_total", "instance", "{{instance}}")}},
		{"Batches and files", "cps", "", []query{rate("starling_history_batches_total", "", "batches"), rate("starling_history_files_total", "", "files")}},
		{"Failures and gaps", "cps", "Writes that are tried again; ranges that are lost to history.", []query{rate("starling_history_write_failures_total", "", "failed writes"), rate("starling_history_gaps_total", "", "gaps")}},
		{"Partitions owned", "short", "", []query{gauge("starling_history_owned_partitions", "instance", "{{instance}}")}},
	}}},
}
