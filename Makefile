# Manycast. `make help` lists what there is.
SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin
# Under sudo the tree may belong to somebody else: git would refuse to tell Go its version.
export GOFLAGS := -buildvcs=false

PREFIX ?= /usr
SYSCONFDIR ?= /etc
DURATION ?= 20s
CLIENTS ?= 60
FUZZTIME ?= 4s
DAEMONS := $(patsubst %/main.go,%,$(wildcard igmpd/main.go lbd/main.go dnsd/main.go tdpd/main.go))
PRIVILEGED := ^Test(Net|VM|Boot)
# What go vet finds is in make lint.
GOTEST := go test -vet=off
# The packages whose tests have such a line: to build the tests of all others takes longer than to run these.
with = $(shell grep -rlE --include='*_test.go' '$(1)' . | xargs -n1 dirname | sort -u)
# The concurrent packages.
RACED := ./internal/bus ./internal/control/... ./internal/daemon ./igmpd/internal/... ./lbd/internal/... ./lbd/migrate/... ./dnsd/internal/... ./tdpd/internal/...
# What test-race and test-packaging test as a whole, for no test in there asks whether it is to do less; and the rest, UNIT of make test.
WHOLE = comm -23 <(go list $(RACED) ./tools/packaging | sort) <(go list $(call with,testing\.Short) | sort)
REST = comm -23 <(go list ./... | sort) <($(WHOLE)) | xargs
UNIT ?= ./...
# Where users may not wait, and bulk data has to keep up: nothing else is to keep this machine busy then.
ALONE := ./internal/lab/scenario ./lbd ./lbd/internal/repair
LINT := go tool -modfile=tools/lint/go.mod golangci-lint

.PHONY: help setup build install uninstall test-packaging generate generate-check lint test test-unit test-race test-fuzz test-net test-vm demo failures bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

build: ## binaries in bin/
	@tools/setup build
	@mkdir -p bin
	go build -o bin/manycast ./cli
	@for d in $(DAEMONS); do echo "go build -o bin/$$d ./$$d"; go build -o bin/$$d ./$$d || exit 1; done

install: ## what bin/ has, units, users, configurations, completions: PREFIX=/usr SYSCONFDIR=/etc DESTDIR=
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" tools/packaging/install install

uninstall: ## all of that but configurations
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" tools/packaging/install uninstall

generate: ## protobuf and BPF objects (clang, protoc: tools/setup test)
	go generate ./...

generate-check: ## fails where regenerating changes what is checked in
	@tools/generate-check

lint: ## golangci-lint, pinned in tools/lint/go.mod; the daemons' borders
	$(LINT) run ./...

test: ## everything, as root
	@tools/setup test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory test-unit UNIT="$$($(REST))"
	@$(MAKE) --no-print-directory test-packaging test-race test-fuzz test-net test-vm

test-unit: ## tests that need no privilege
	$(GOTEST) -skip '$(PRIVILEGED)' $(UNIT)

test-packaging: ## make install below a directory; what systemd says of the units, and how exposed they are
	$(GOTEST) -count=1 -v ./tools/packaging

test-race: ## the concurrent packages under the race detector, with fewer runs of the random tests
	$(GOTEST) -race -short -skip '$(PRIVILEGED)' $(RACED)

test-fuzz: ## every fuzz target for FUZZTIME
	@tools/fuzz $(FUZZTIME)

test-net: ## tests in network namespaces, as root
	@tools/setup test
	@mkdir -p bin
	$(GOTEST) -p 3 -parallel 4 -count=1 -run '^TestNet' $(filter-out $(ALONE),$(call with,^func TestNet))
	$(GOTEST) -p 1 -parallel 4 -count=1 -run '^TestNet' $(ALONE)

test-vm: ## tests on a kernel with MPLS: this one where it has it, else in user-mode Linux, else in QEMU (docs/testing.md)
	@tools/setup test
	go build -o bin/manycast ./cli
	$(GOTEST) -count=1 -timeout 20m -run '^TestBoot' ./tools/vmtest
	@tools/vm

demo: ## three servers behind one address, in network namespaces, as root
	@tools/setup demo
	@$(MAKE) --no-print-directory build
	bin/manycast lab run multicast --name demo --duration $(DURATION) --clients $(CLIENTS) --report report.json

failures: ## everything that can fail, in turn, under users at work, as root; five minutes
	@tools/setup test
	@$(MAKE) --no-print-directory build
	bin/manycast lab run failures --name failures --clients 24 --report failures.json

bench: build ## table and bench.json, as root
	@tools/setup test
	CGO_ENABLED=0 go build -o bin/vmtest ./tools/vmtest
	go run ./tools/bench

clean: ## what the build made
	rm -rf bin bench.json report.json failures.json
