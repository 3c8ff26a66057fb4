package main

var logs = board{
	name: "log", title: "log",
	description: "The partitioned log: the local one, or the client of Kafka's brokers.",
	rows: []row{
		{"Local", []panel{
			{"Appended", "Bps", "", []query{rate("starling_locallog_appended_bytes_total", "instance", "{{instance}}")}},
			{"Commit of a group", "s", "From its gathering to its durability.", quantiles("starling_locallog_commit_latency_seconds")},
			{"Free disk", "bytes", "", []query{gauge("starling_locallog_free_bytes", "instance", "{{instance}}")}},
			{"Bytes that wait for their commit", "bytes", "", []query{gauge("starling_locallog_buffered_bytes", "instance", "{{instance}}")}},
			{"Faults", "cps", "Appends refused for want of disk, failed ones, background errors, stalls.", []query{
				rate("starling_locallog_refused_records_total", "", "refused"),
				rate("starling_locallog_failed_records_total", "", "failed"),
				rate("starling_locallog_background_errors_total", "", "background errors"),
				rate("starling_locallog_write_stalls_total", "", "stalls"),
			}},
			{"Read from disk", "cps", "Batches that were not in memory.", []query{rate("starling_locallog_disk_reads_total", "instance", "{{instance}}")}},
			{"Clock", "s", "By how much the wall clock is ahead of the log's.", []query{{`starling_locallog_clock_skew_seconds{` + of + `}`, "{{instance}}"}}},
		}},
		{"Kafka", []panel{
			{"Acknowledged by topic", "cps", "", []query{rate("starling_kafkalog_appended_records_total", "topic", "{{topic}}")}},
			{"Read by topic", "cps", "", []query{rate("starling_kafkalog_fetched_records_total", "topic", "{{topic}}")}},
			{"A produce request", "s", "", quantiles("starling_kafkalog_produce_request_seconds")},
			{"A checkpoint's transaction", "s", "", quantiles("starling_kafkalog_checkpoint_seconds")},
			{"Appends that failed by class", "cps", "", []query{rate("starling_kafkalog_append_errors_total", "class", "{{class}}")}},
			{"Bytes that wait for brokers", "bytes", "", []query{gauge("starling_kafkalog_buffered_bytes", "instance", "{{instance}}")}},
			{"Partitions owned", "short", "", []query{gauge("starling_kafkalog_owned_partitions", "instance", "{{instance}}")}},
		}},
	},
}

var processes = board{
	name: "processes", title: "processes and callers",
	description: "Processor and memory, connections, calls by code, refusals, identity.",
	rows: []row{
		{"Processes", []panel{
			{"Processors in use", "short", "", []query{rate("process_cpu_seconds_total", "instance", "{{instance}}")}},
			{"Resident memory", "bytes", "", []query{gauge("process_resident_memory_bytes", "instance", "{{instance}}")}},
			{"Goroutines", "short", "", []query{gauge("go_goroutines", "instance", "{{instance}}")}},
			{"Builds", "short", "Processes of each build.", []query{{`count by (version, revision) (starling_build_info{` + of + `})`, "{{version}} {{revision}}"}}},
			{"Connections", "short", "", []query{gauge("starling_server_connections", "instance, server", "{{instance}} {{server}}")}},
			{"Panics", "cps", "", []query{rate("starling_rpc_panics_total", "method", "{{method}}"), rate("starling_http_panics_total", "server", "{{server}}")}},
		}},
		{"Calls", []panel{
			{"gRPC calls by method", "cps", "", []query{rate("grpc_server_handled_total", "grpc_method", "{{grpc_method}}")}},
			{"gRPC calls that failed by code", "cps", "", []query{{`sum by (grpc_code) (rate(grpc_server_handled_total{grpc_code!="OK",` + of + `}[$__rate_interval]))`, "{{grpc_code}}"}}},
			{"gRPC calls, p99 by method", "s", "Of calls with one answer.", []query{{`histogram_quantile(0.99, sum by (le, grpc_method) (rate(grpc_server_handling_seconds_bucket{grpc_type="unary",` + of + `}[$__rate_interval])))`, "{{grpc_method}}"}}},
			{"JSON requests by status", "cps", "", []query{rate("starling_json_requests_total", "status", "{{status}}")}},
			{"JSON requests, p99 by method", "s", "", []query{{`histogram_quantile(0.99, sum by (le, method) (rate(starling_json_request_seconds_bucket{` + of + `}[$__rate_interval])))`, "{{method}}"}}},
			{"Estimated cost of dear calls", "short", "Processors.", []query{rate("starling_rpc_call_cost_seconds_total", "server", "{{server}}")}},
		}},
		{"Limits and identity", []panel{
			{"Calls refused by reason", "cps", "", []query{rate("starling_rpc_refused_calls_total", "server, reason", "{{server}} {{reason}}")}},
			{"Answers not read", "bytes", "", []query{gauge("starling_rpc_unread_bytes", "instance, server", "{{instance}} {{server}}")}},
			{"Clients disconnected, requests unfinished, connections refused", "cps", "", []query{
				rate("starling_rpc_disconnected_clients_total", "reason", "disconnected: {{reason}}"),
				rate("starling_rpc_unfinished_requests_total", "", "unfinished"),
				rate("starling_server_refused_connections_total", "reason", "connections: {{reason}}"),
			}},
			{"Callers refused by reason", "cps", "", []query{rate("starling_auth_refusals_total", "reason", "{{reason}}")}},
			{"Age of the keys of tokens", "s", "", []query{gauge("starling_auth_keys_age_seconds", "instance", "{{instance}}")}},
			{"Certificate expires in", "s", "", []query{{`starling_tls_certificate_expiry_timestamp_seconds{` + of + `} - time()`, "{{instance}}"}}},
		}},
	},
}
