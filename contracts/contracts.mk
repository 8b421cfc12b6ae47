# The contracts: built and tested with npm's tools; the committed ABI and bytecode are what the Rust crates use.

# Not node_modules/.bin: npm's starters end with 0 whatever the tool ended with, and leave it running when they are killed.
FORGE := node_modules/.native/forge
CONTRACTS := Escrow TestToken

# Not `npm ci`: it wants the packages of every other platform in the lock file too, and they are not there to be locked.
contracts/node_modules/.stamp: contracts/package.json contracts/package-lock.json
	@echo "installing the contracts' tools"
	@cd contracts && npm install --no-save --no-audit --no-fund --loglevel=error; printf '%6d s  the tools are installed\n' $$SECONDS
	@mkdir -p $(@D)/.native && cd $(@D) && for tool in forge anvil; do ln -sf ../$$(echo @foundry-rs/$$tool-*/bin/$$tool) .native/$$tool; \
	  .native/$$tool --version > /dev/null || { echo "$$tool was not installed whole: rm -r contracts/node_modules, and again"; exit 1; }; done
	@touch $@

.PHONY: contracts-deps contracts-build contracts-test contracts-check contracts-nightly contracts-analysis bench-contracts
contracts-deps: contracts/node_modules/.stamp

contracts-build: contracts-deps ## compile the contracts and write what is committed of them: ABI, bytecode, what calls cost
	cd contracts && $(FORGE) build --silent
	@for name in $(CONTRACTS); do node contracts/tools/artifact.js $$name > contracts/abi/$$name.json; done
	@cd contracts && FORGE_SNAPSHOT_CHECK=false FORGE_SNAPSHOT_EMIT=true $(FORGE) test --silent --match-contract Gas

contracts-test: contracts-deps ## the contracts' tests, with the small profile of the invariants
	cd contracts && $(FORGE) test

contracts-check: contracts-deps ## format, and the committed ABI and costs against the sources
	cd contracts && $(FORGE) fmt --check
	cd contracts && $(FORGE) build --silent
	@for name in $(CONTRACTS); do node contracts/tools/artifact.js $$name | cmp - contracts/abi/$$name.json || \
	  { echo "contracts/abi/$$name.json differs from its source: run make contracts-build"; exit 1; }; done
	@cd contracts && $(FORGE) test --silent --match-contract Gas || \
	  { echo "a call's cost differs from contracts/snapshots: run make contracts-build, and see what became dearer"; exit 1; }

bench-contracts: contracts-deps ## what rows, tasks, claims and collections cost, by real receipts
	@cargo test --workspace --locked --quiet --test anvil -- --show-output --test-threads=1 | grep -E '^(figure|skipped)|FAILED|panicked'

contracts-nightly: contracts-deps ## the invariants and fuzz tests in full, coverage, Slither and Halmos
	@mkdir -p .state
	cd contracts && FOUNDRY_PROFILE=nightly $(FORGE) test --no-match-contract Gas | tee ../.state/contracts-nightly.log
	@echo "figure contracts.invariants $$(grep -c '^\[PASS\] invariant_' .state/contracts-nightly.log) invariants"
	@node contracts/tools/coverage.js
	@contracts/tools/analysis.sh

contracts-analysis: contracts-deps ## Slither and Halmos over the contracts (installs both into .state with Python's venv)
	@contracts/tools/analysis.sh
