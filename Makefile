# The one entrance: `make help` lists what can be done.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Always the whole workspace: a narrower selection would unify features differently and compile everything again.
CARGO_BUILD := cargo build --workspace --bins --locked --quiet
BINARIES := target/$(shell rustc -vV | sed -n 's/^host: //p')/debug

include e2e/cluster/cluster.mk contracts/contracts.mk

.PHONY: help prerequisites programs workspace-bin up down status demo image test check generate figures bench-gate bench-placement bench-ledger nightly

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ sub(/:.*/, "", $$1); printf "  %-18s %s\n", $$1, $$2 }'

prerequisites: ## name what this machine lacks, and on Debian as root install it
	@e2e/prerequisites.sh

# Downloads and builds overlap: Go's, npm's and cargo's work side by side.
programs: prerequisites
	@$(MAKE) -j3 --output-sync=line cluster-bin $(BIN)/helm workspace-bin

workspace-bin:
	@$(CARGO_BUILD)

up: programs ## bring the local cluster up, or heal it
	@$(BINARIES)/local up

down: workspace-bin ## take the local cluster down and leave nothing behind
	@$(BINARIES)/local down

status: workspace-bin ## say what of the local cluster runs
	@$(BINARIES)/local status

demo: ## one task from apply to payment, told in words; the cluster stays up
	@cold=$$([ -d target ] && echo 0 || echo 1); started=$$(date +%s%N); $(MAKE) programs; \
	DEMO_COLD=$$cold DEMO_STARTED_NANOSECONDS=$$started $(BINARIES)/demo

image: workspace-bin ## write the container images, reproducibly
	@$(BINARIES)/image

generate: ## write everything that is generated: CRDs, schemas, the reference, the contracts' ABI
	@$(CARGO_BUILD)
	@$(BINARIES)/crdgen
	@$(MAKE) contracts-build

check: prerequisites $(BIN)/helm ## format, lints, generated files, ABI, chart, licences, repetition, stray paths
	@started=$$(date +%s); \
	cargo fmt --all --check; \
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings; \
	$(CARGO_BUILD); \
	$(BINARIES)/crdgen --check; \
	$(MAKE) contracts-check; \
	$(BIN)/helm lint --quiet --strict charts/supercargo; \
	$(BINARIES)/audit; \
	echo "figure bedrock.check_warm $$(( $$(date +%s) - started )) s"

# What the tests print is kept, so that `make figures` can hold it against the targets. A cluster that was not up before is
# not up afterwards.
test: programs contracts-deps ## every test: unit, contracts, and journeys through a real cluster
	@mkdir -p .state; was_up=$$($(BINARIES)/local status > /dev/null && echo yes || echo no); result=0; \
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

nightly: programs contracts-deps ## what is too long for every change: invariants in full, long histories
	@$(MAKE) contracts-nightly
	@PROPTEST_CASES=20000 SUPERCARGO_CRASH_RUNS=10000 SUPERCARGO_HISTORIES=1000000 cargo test --workspace --locked --lib -- histories keep falls parts
	@SUPERCARGO_FUZZ_SEED=$$(date +%s) SUPERCARGO_FUZZ_RUNS=1000000 cargo test --workspace --locked --lib -- --show-output tampered
