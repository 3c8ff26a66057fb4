# Every target works from a clean clone with Go, a C compiler and make.
SHELL := /bin/bash -o pipefail
GO ?= go
BIN := $(CURDIR)/bin
MODULE := github.com/starling-fleet/starling
REVISION := $(shell git rev-parse HEAD 2>/dev/null)$(shell git diff --quiet HEAD 2>/dev/null || echo -modified)
LDFLAGS := -X $(MODULE)/internal/version.revision=$(REVISION)
# What go vet looks for is looked for once, before the tests.
TEST_FLAGS ?= -vet=off -timeout 20m

.PHONY: schemas-release help setup build demo test test-short lint proto proto-check docs bench fuzz clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

setup: ## download what the build needs, then build
	$(GO) mod download
	$(MAKE) build

build: ## build bin/starling
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/starling ./cmd/starling

demo: build ## run everything in one process, with a simulated fleet
	$(BIN)/starling demo

test: ## run all tests with the race detector (the Kafka tests need Java and Maven)
	$(GO) vet ./...
	GO=$(GO) ./tools/test.sh $(TEST_FLAGS)

.PHONY: model
model: ## ten thousand seeds that disturb the real roles, judged by a slow model, and every state of small spaces of the reservation protocol (make test runs some, with the race detector)
	$(GO) test -count=1 -timeout 20m ./internal/modeltest ./rides/owner

lint: $(BIN)/golangci-lint $(BIN)/buf ## linters for Go and protobuf, and the breaking-change check
	$(BIN)/golangci-lint run ./...
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against schemas/released.binpb

proto: $(BIN)/buf ## generate Go and the OpenAPI document from schemas/proto
	$(BIN)/buf generate

schemas-release: $(BIN)/buf ## declare the present schemas released: later changes must not break them
	$(BIN)/buf build -o schemas/released.binpb

proto-check: proto ## fail if what is generated is not current
	git diff --exit-code -- schemas/starlingv1 schemas/openapi internal/gateway/handlers

docs: build ## write the generated parts of docs/ anew
	$(GO) test ./ingest -run Docs -update
	$(GO) test ./rides/life -run Docs -update
	$(GO) test ./cmd/starling/cli -run Docs -update
	$(GO) test ./cmd/starling/app -run Docs -update

fuzz: ## run every fuzz target for FUZZTIME
	./tools/fuzz.sh $(or $(FUZZTIME),20s)

bench: build ## Starling beside a baseline pipeline, on the local log and on Kafka
	$(GO) run ./loadtest/cmd/bench pipeline -starling $(BIN)/starling $(BENCH_FLAGS)

clean: ## remove what was built
	rm -rf $(BIN)

# The tools have modules of their own, so that their dependencies stay out of ours.
$(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(BIN)/protoc-gen-grpc-gateway $(BIN)/protoc-gen-openapiv2 &: tools/buf/go.sum
	cd tools/buf && GOBIN=$(BIN) $(GO) install tool

$(BIN)/govulncheck: tools/vuln/go.sum
	cd tools/vuln && GOBIN=$(BIN) $(GO) install tool

.PHONY: conformance
conformance: build ## the clients in Go, Python, TypeScript and Kotlin, judged by starling conformance (needs Python 3, npm and Maven)
	GO=$(GO) ./clients/conformance.sh $(CLIENTS)

.PHONY: dashboards dashboards-check
dashboards: ## write Grafana's dashboards anew (deploy/grafana)
	cd tools/dashboards && $(GO) run . ../../deploy/grafana/dashboards

dashboards-check: ## fail if a dashboard is not current or asks for a metric that there is not
	cd tools/dashboards && $(GO) test ./...

.PHONY: vuln
vuln: $(BIN)/govulncheck ## known vulnerabilities in what the binary calls (asks vuln.go.dev)
	$(BIN)/govulncheck ./cmd/starling

$(BIN)/golangci-lint: tools/lint/go.sum
	cd tools/lint && GOBIN=$(BIN) $(GO) install tool

.PHONY: kafka
kafka: ## run a throw-away Kafka on loopback and print its address (needs Java and Maven)
	$(GO) run ./internal/kafkatest/kafka

.PHONY: overload
overload: build ## ten times the sustainable load for a minute, beside hostile clients; the account is closed
	$(GO) run ./loadtest/cmd/bench overload -starling $(BIN)/starling $(OVERLOAD_FLAGS)

.PHONY: bench-nearest
bench-nearest: build ## searches for the nearest of a moving fleet, beside Redis (apt-get install redis-server)
	$(GO) run ./loadtest/cmd/bench nearest -starling $(BIN)/starling $(NEAREST_FLAGS)

.PHONY: bench-watchers
bench-watchers: build ## 10,000 calls that watch areas: how long a change takes to them, and memory for each
	$(GO) run ./loadtest/cmd/bench watchers -starling $(BIN)/starling $(WATCHERS_FLAGS)

.PHONY: bench-ride-events
bench-ride-events: build ## 10,000 subscribers of rides: how long a position takes to them, and what each costs (apt-get install redis-server)
	$(GO) run ./loadtest/cmd/bench ride-events -starling $(BIN)/starling $(EVENTS_FLAGS)

# The version is pinned here: Centrifugo is measured beside Starling and is no part of it.
$(BIN)/centrifugo:
	GOBIN=$(BIN) $(GO) install github.com/centrifugal/centrifugo/v6@v6.9.1

.PHONY: bench-ride-events-centrifugo
bench-ride-events-centrifugo: build $(BIN)/centrifugo ## the same in turns with Centrifugo, on the same Redis and cores (builds it: minutes)
	$(GO) run ./loadtest/cmd/bench ride-events -starling $(BIN)/starling -centrifugo $(BIN)/centrifugo -rounds 3 $(EVENTS_FLAGS)

.PHONY: drill-clocks
drill-clocks: build ## a Kafka whose clock is set wrong, devices with wrong clocks and second phones; the account is closed (docs/drills.md)
	$(GO) run ./loadtest/cmd/bench drill -starling $(BIN)/starling -log clocks -rate 1000 -fixes-per-report 2 -partitions 6 -streams 16 -duration 5m $(DRILL_FLAGS)

.PHONY: golden-arm64
golden-arm64: ## the step's, the filter's and the cells' golden tests on arm64, cross-built and run under qemu
	./tools/golden-arm64.sh

.PHONY: model-mutations
model-mutations: ## faults that are put into the tracker's step, each of which the model test must find
	$(GO) run ./internal/modeltest/mutations

.PHONY: rides-search
rides-search: ## every state of the reservation protocol in larger spaces, and random walks (make test visits those of small ones)
	STARLING_LONG=1 $(GO) test -count=1 -v -timeout 6h ./rides/owner -run 'TestSearch|TestWalks'

.PHONY: rides-mutations
rides-mutations: ## faults that are put into the reservation protocol, each of which the search must find
	$(GO) run ./internal/modeltest/mutations -rides

.PHONY: drill
drill: build ## random kills under load, and a check of the account (docs/drills.md)
	$(GO) run ./loadtest/cmd/bench drill -starling $(BIN)/starling $(DRILL_FLAGS)

.PHONY: drill-rides
drill-rides: build ## 2,000,000 proposals of riders who fight for a few vehicles, owners and trackers killed; the log is judged (docs/drills.md)
	$(GO) run ./loadtest/cmd/bench rides-drill -starling $(BIN)/starling -proposals 2000000 -limit 2h -kill-every 25s $(DRILL_FLAGS)

.PHONY: drill-ride-events
drill-ride-events: build ## 400 followers of rides whose connections break, nodes and Redis killed; what each was sent is judged (docs/drills.md)
	$(GO) run ./loadtest/cmd/bench ride-events-drill -starling $(BIN)/starling $(DRILL_FLAGS)

.PHONY: bench-rides
bench-rides: build ## from a ride's request to its assignment, at 200 rides/s over 10,000 moving vehicles (docs/rides.md)
	$(GO) run ./loadtest/cmd/bench rides-latency -starling $(BIN)/starling $(RIDES_FLAGS)

.PHONY: drill-stop
drill-stop: build ## stop `starling up` twenty times under 20,000 fixes/s; the account is closed (docs/drills.md)
	$(GO) run ./loadtest/cmd/bench drill -starling $(BIN)/starling -stop -kills 20 -duration 4m $(DRILL_FLAGS)

.PHONY: recovery
recovery: build ## how soon a killed fleet of 100,000 is served again
	$(GO) run ./loadtest/cmd/bench recovery -starling $(BIN)/starling $(RECOVERY_FLAGS)

.PHONY: soak
soak: build ## memory and disk over 20 minutes at half of saturation and 20 of a silent fleet (SOAK_FLAGS="-duration 5m" for less)
	$(GO) run ./loadtest/cmd/bench soak -starling $(BIN)/starling $(SOAK_FLAGS)

.PHONY: drill-corruption
drill-corruption: ## damage the log of a killed process in every way, and take its file descriptors (make test runs a short form)
	STARLING_LONG=1 $(GO) test -count=1 -timeout 60m ./internal/locallog/... -run 'Damage|Missing|Older|PowerCut|Repair|Check'
	STARLING_LONG=1 $(GO) test -count=1 -timeout 60m ./loadtest/corruption

.PHONY: drill-hostile
drill-hostile: build ## hostile clients by raw frames against a whole process, beside an honest one; what each costs (docs/hostility.md)
	$(GO) run ./loadtest/cmd/bench hostile -starling $(BIN)/starling $(HOSTILE_FLAGS)

.PHONY: history-readback
history-readback: build ## a lake of history, read by DuckDB, pyarrow, GeoPandas and MovingPandas as docs/history.md has it (needs Python 3)
	./tools/history-readback/run.sh

.PHONY: drill-history
drill-history: build ## a recording through gRPC into the lake and ClickHouse, both killed twenty times; every fix is checked (DATA= a recording)
	$(GO) run ./loadtest/cmd/bench history-drill -starling $(BIN)/starling -data $(or $(DATA),$(or $(STARLING_DATA),../shared/data)/fleet/capmetro.csv.gz) $(DRILL_FLAGS)

.PHONY: history-pictures
history-pictures: build ## draw the heat map and the track of docs/history.md anew, from recordings (STARLING_DATA= their directory)
	STARLING_DATA=$(or $(STARLING_DATA),../shared/data) ./tools/history-pictures/run.sh

.PHONY: rides-sim
rides-sim: build ## matchers compared on the recorded demand, held to docs/matching.md (DEMAND= a file of trips, RIDES_FLAGS= more flags)
	$(BIN)/starling simulate --rides --demand $(or $(DEMAND),$(or $(STARLING_DATA),../shared/data)/demand/nyc_taxi_2015-01-10.csv.gz) --picture docs/matching.svg $(RIDES_FLAGS)
	STARLING_LONG=1 $(GO) test -count=1 -v -timeout 60m ./internal/ridesim -run TestBars
