package app

import (
	"encoding/json"
	"net/http"

	dto "github.com/prometheus/client_model/go"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/version"
)

// Status is how a process is, as /status of its admin server returns it and
// `starling status` prints it. What the process's roles do not know is absent.
type Status struct {
	Version string `json:"version"`
	Roles   []Role `json:"roles"`
	// Ready reports whether every role serves, Unready which does not and why;
	// Failure is why the process must end, empty if it need not.
	Ready   bool   `json:"ready"`
	Unready string `json:"unready"`
	Failure string `json:"failure"`
	// Partitions of the log, and its epoch.
	Partitions *int32 `json:"partitions,omitempty"`
	Epoch      *int64 `json:"epoch,omitempty,string"`
	// OwnedPartitions are those that the tracker steps; LagRecords is how many of
	// their records it has not stepped yet.
	OwnedPartitions *int32 `json:"ownedPartitions,omitempty"`
	LagRecords      *int64 `json:"lagRecords,omitempty,string"`
	// Vehicles that the matcher knows, and partitions whose tracker is behind.
	Vehicles        *int64 `json:"vehicles,omitempty,string"`
	StalePartitions *int32 `json:"stalePartitions,omitempty"`
	// Streams of reports that are open at ingest.
	Streams *int64 `json:"streams,omitempty,string"`
}

// status gathers the process's status from its metrics; log is nil at a fan-out.
func (a *App) status(log eventlog.Log, unready string, failure error) (Status, error) {
	s := Status{Version: version.Read().String(), Roles: a.roles, Ready: unready == "" && failure == nil, Unready: unready}
	if failure != nil {
		s.Failure = failure.Error()
	}
	if log != nil {
		partitions, epoch := log.Partitions(), log.Epoch()
		s.Partitions, s.Epoch = &partitions, &epoch
	}
	families, err := a.registry.Gather()
	if err != nil {
		return s, err
	}
	for _, family := range families {
		sum := sumOf(family)
		whole, small := int64(sum), int32(sum)
		switch family.GetName() {
		case "starling_tracker_lag_records":
			owned := int32(len(family.GetMetric()))
			s.OwnedPartitions, s.LagRecords = &owned, &whole
		case "starling_matcher_vehicles":
			s.Vehicles = &whole
		case "starling_matcher_stale_partitions":
			s.StalePartitions = &small
		case "starling_ingest_streams":
			s.Streams = &whole
		}
	}
	if a.has(Tracker) && s.OwnedPartitions == nil { // it owns none
		s.OwnedPartitions, s.LagRecords = new(int32), new(int64)
	}
	return s, nil
}

// sumOf adds up the gauges of a family.
func sumOf(family *dto.MetricFamily) (sum float64) {
	for _, m := range family.GetMetric() {
		sum += m.GetGauge().GetValue()
	}
	return sum
}

// withStatus is what guards the admin server, with /status before its other paths.
func (a *App) withStatus(log eventlog.Log, unready func() string) func(http.Handler) http.Handler {
	return func(others http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", others)
		mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
			var failure error
			if log != nil {
				failure = log.Err()
			}
			s, err := a.status(log, unready(), failure)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(s)
		})
		return a.guardAdmin(mux)
	}
}
