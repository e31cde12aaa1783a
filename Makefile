# Two targets do everything: `make run` and `make test`. The others are parts of them, or take longer.
GO ?= go
TOOL = $(GO) tool -modfile=tools/go.mod
PACKAGES = nginx redis-server curl
export CGO_ENABLED ?= $(if $(shell command -v gcc),1,0)

.PHONY: help run build test check lint race fuzz soak bench cover generate packages
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: build ## try it: a sample backend with a gateway in front
	bin/sluice demo

build: ## bin/sluice, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/sluice ./cmd/sluice

test: packages lint ## all tests, with the race detector; installs nginx and redis-server where missing
	scripts/test

lint: ## gofumpt, go vet, staticcheck
	@test -z "$$($(TOOL) gofumpt -l cmd internal apptest bench *.go | tee /dev/stderr)" || { echo 'make lint: run `make fmt`' >&2; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

fmt: ## format the code
	$(TOOL) gofumpt -w cmd internal apptest bench *.go

generate: ## the config reference and schema from the doc comments
	$(GO) generate ./...

fuzz: ## every fuzz target for FUZZTIME (default 1m) each
	scripts/fuzz

soak: packages ## the long forms of the tests of the whole: 10,000 reloads, 1 GiB bodies, slowhttptest
	scripts/install slowhttptest
	$(GO) test -count=1 -timeout 60m ./apptest -long

bench: ## against nginx, HAProxy, Varnish and Caddy; writes bench/results
	cd bench && $(GO) run ./cmd/bench

cover: ## coverage of the unit tests
	$(GO) test -coverprofile=coverage.out ./internal/... && $(GO) tool cover -func=coverage.out | tail -1

packages:
	@scripts/install $(PACKAGES)
