# The contracts: built and tested with npm's tools; the committed ABI and bytecode are what the Rust crates use.

FORGE := cd contracts && node_modules/.bin/forge
CONTRACTS := Escrow TestToken

# Not `npm ci`: it wants the packages of every other platform in the lock file too, and they are not there to be locked.
contracts/node_modules/.stamp: contracts/package.json contracts/package-lock.json
	cd contracts && npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: contracts-deps contracts-build contracts-test contracts-check contracts-nightly
contracts-deps: contracts/node_modules/.stamp

contracts-build: contracts-deps ## compile the contracts and write their committed ABI and bytecode
	$(FORGE) build --silent
	@for name in $(CONTRACTS); do node contracts/tools/artifact.js $$name > contracts/abi/$$name.json; done

contracts-test: contracts-deps ## the contracts' tests, with the small profile of the invariants
	$(FORGE) test

contracts-check: contracts-deps ## format, and the committed ABI against the sources
	$(FORGE) fmt --check
	$(FORGE) build --silent
	@for name in $(CONTRACTS); do node contracts/tools/artifact.js $$name | cmp - contracts/abi/$$name.json || \
	  { echo "contracts/abi/$$name.json differs from its source: run make contracts-build"; exit 1; }; done

contracts-nightly: contracts-deps ## the invariants and fuzz tests in full
	cd contracts && FOUNDRY_PROFILE=nightly node_modules/.bin/forge test
