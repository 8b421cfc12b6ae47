# The one entrance: `make help` lists what can be done.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Always the whole workspace: a narrower selection would unify features differently and compile everything again.
# With as many jobs as there are processors, however many things make does at once.
CARGO_BUILD := e2e/cargo.sh build --workspace --bins --locked
BINARIES := target/$(shell rustc -vV 2> /dev/null | sed -n 's/^host: //p')/debug

# What tests and the demo talk to is on this machine, whatever proxy there is for the rest of the world.
comma := ,
export NO_PROXY := $(if $(NO_PROXY),$(NO_PROXY)$(comma))localhost,127.0.0.1,10.0.0.0/8

ifneq ($(words $(CURDIR)),1)
$(error the path "$(CURDIR)" has a space in it: move the checkout)
endif

# With `make -j`, only what a recipe itself asks for in parallel is: npm and cargo don't bear two of themselves in a folder.
ifeq ($(MAKELEVEL),0)
.NOTPARALLEL:
endif

include e2e/cluster/cluster.mk contracts/contracts.mk

.PHONY: help prerequisites machine lintable analysable programs workspace-bin up down status demo image test check generate figures bench-gate bench-placement bench-ledger bench-metering bench-settlement nightly nightly-histories nightly-fuzz nightly-faults nightly-payouts nightly-image nightly-truth

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ sub(/:.*/, "", $$1); printf "  %-18s %s\n", $$1, $$2 }'

prerequisites: ## name what this machine lacks, and on Debian as root install it
	@e2e/prerequisites.sh

# Before the long build, for what needs the local cluster.
machine:
	@e2e/prerequisites.sh cluster

# Downloads overlap with what is built. Cargo and Go each keep all processors busy: side by side they would only be in each
# other's way, and take half as long again.
programs: prerequisites
	@$(MAKE) -j3 workspace-bin cluster-sources $(BIN)/anvil
	@$(MAKE) cluster-bin

workspace-bin:
	@$(CARGO_BUILD)

up: machine programs ## bring the local cluster up, or heal it
	@$(BINARIES)/local up

# These compile nothing where the program is there, of whatever version: what is up was brought up by it.
down: | $(BINARIES)/local ## take the local cluster down and leave nothing behind
	@$(BINARIES)/local down

status: | $(BINARIES)/local ## say what of the local cluster runs
	@$(BINARIES)/local status

$(BINARIES)/local:
	@$(CARGO_BUILD)

demo: ## one task from apply to payment, told in words; the cluster stays up
	@cold=$$([ -d target ] && [ -e $(BIN)/kube ] && echo 0 || echo 1); started=$$(date +%s%N); \
	$(MAKE) machine; $(MAKE) programs; \
	DEMO_COLD=$$cold DEMO_STARTED_NANOSECONDS=$$started $(BINARIES)/demo

image: prerequisites workspace-bin ## write the container images, reproducibly
	@$(BINARIES)/image

generate: prerequisites ## write everything that is generated: CRDs, schemas, the reference, the contracts' ABI, Go modules' licences
	@$(CARGO_BUILD)
	@$(BINARIES)/crdgen
	@$(BINARIES)/audit --write-licences
	@$(MAKE) contracts-build

analysable:
	@e2e/prerequisites.sh analysis

lintable:
	@e2e/prerequisites.sh lints

check: lintable $(BIN)/helm ## format, lints, generated files, ABI, chart, licences, repetition, stray paths
	@started=$$(date +%s); kind=$$([ -d target ] && echo warm || echo cold); \
	cargo fmt --all --check; \
	e2e/cargo.sh clippy --workspace --all-targets --locked -- -D warnings; \
	$(CARGO_BUILD); \
	$(BINARIES)/crdgen --check; \
	$(MAKE) contracts-check; \
	$(BIN)/helm lint --quiet --strict charts/supercargo; \
	$(BINARIES)/audit; \
	$(BINARIES)/figures tell bedrock.check_$$kind $$(( $$(date +%s) - started )) s

# What the tests print is kept, so that `make figures` can hold it against the targets. A cluster that was not up before is
# not up afterwards.
test: machine programs contracts-deps ## every test: unit, contracts, and journeys through a real cluster
	@mkdir -p .state; was_up=$$([ -e .state/cluster/cluster.json ] && echo yes || echo no); result=0; \
	$(BINARIES)/local check; \
	$(BINARIES)/tests | tee .state/test.log || result=$$?; \
	if [ $$was_up = no ]; then $(BINARIES)/local down > /dev/null; fi; \
	exit $$result

figures: workspace-bin ## hold the figures of the last `make test` against their targets
	@$(BINARIES)/figures < .state/test.log

bench-placement: ## how fast placement decides, with 100,000 offers
	@cargo bench --workspace --locked --profile dev --bench placement --bench plan

bench-gate: ## how fast and how small the gate is, on one core
	@cargo bench --workspace --locked --profile dev --bench gate

bench-ledger: ## how fast and how small the books are, on SQLite and PostgreSQL, with ten million entries
	@cargo bench --workspace --locked --profile dev --bench books

bench-metering: ## what the books bill while everything around them fails, beside what others would measure
	@cargo bench --workspace --locked --profile dev --bench metering

bench-settlement: contracts-deps ## what it costs the operator to pay 10,000 tasks of 100 providers on a chain
	@cargo bench --workspace --locked --profile dev --bench settlement

# Each part runs whatever became of the ones before, and the last line counts them.
NIGHTLY := contracts-nightly nightly-histories nightly-fuzz nightly-faults nightly-payouts nightly-truth nightly-image bench-contracts bench-placement bench-gate bench-ledger bench-metering bench-settlement

nightly: machine analysable programs contracts-deps ## what is too long for every change: invariants in full, long histories, benches
	@mkdir -p .state; was_up=$$([ -e .state/cluster/cluster.json ] && echo yes || echo no); \
	for part in $(NIGHTLY); do \
	  echo "== $$part"; \
	  $(MAKE) $$part || echo "part failed: $$part"; \
	done 2>&1 | tee .state/nightly.log; \
	if [ $$was_up = no ]; then $(BINARIES)/local down > /dev/null; fi; \
	failed=$$(grep -c "^part failed: " .state/nightly.log || true); \
	echo "$$(( $(words $(NIGHTLY)) - failed )) passed, $$failed failed"; \
	[ $$failed = 0 ]

nightly-histories:
	@PROPTEST_CASES=20000 SUPERCARGO_CRASH_RUNS=10000 SUPERCARGO_HISTORIES=1000000 cargo test --workspace --locked --lib -- --show-output histories keep falls parts

# In the local cluster, which is brought up if it is not: the operator killed after each of its writes, the API server away,
# a node lost.
nightly-faults: machine programs
	@cargo test --workspace --locked --test alone -- --ignored --show-output --test-threads=1

# In the local cluster: what 200 containers are billed for against containerd's own times.
nightly-truth: machine programs
	@SUPERCARGO_REAL_CONTAINERS=200 cargo test --workspace --locked --test truth -- --show-output

nightly-payouts: contracts-deps
	@SUPERCARGO_KILLS=200 SUPERCARGO_LEADER_SECONDS=600 cargo test --workspace --locked --test payouts

# Another checkout, at another place: what it builds has the same digest.
nightly-image: image
	@place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; git clone --quiet . "$$place/elsewhere"; \
	digest() { awk '$$1 ~ /operator/ { print $$2 }'; }; \
	ours=$$($(BINARIES)/image | digest); \
	theirs=$$($(MAKE) -C "$$place/elsewhere" image | digest); \
	echo "here $$ours, elsewhere $$theirs"; [ -n "$$ours" ] && [ "$$ours" = "$$theirs" ]

nightly-fuzz:
	@SUPERCARGO_FUZZ_SEED=$$(date +%s) SUPERCARGO_FUZZ_RUNS=1000000 cargo test --workspace --locked --lib -- --show-output tampered
