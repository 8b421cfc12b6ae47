#!/bin/bash
# Slither over the sources, and Halmos over what is claimed of their arithmetic. ANALYSIS.md answers what they say.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/../.state/analysis
[ -x "$tools/bin/halmos" ] || { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet slither-analyzer==0.11.6 halmos==0.3.3; }

# A copy, so that what these want of a build doesn't displace the one that the tests use.
copy=out/analysis
rm -rf "$copy" && mkdir -p "$copy/test"
cp -r src tools foundry.toml slither.config.json "$copy/"
cp test/Base.sol test/Symbolic.t.sol "$copy/test/"
ln -s "$PWD/node_modules" "$copy/node_modules"
cd "$copy"
export PATH="$PWD/node_modules/.native:$PATH"
forge build --silent --build-info --ast

"$tools/bin/slither" . --ignore-compile --foundry-out-directory out --config-file slither.config.json --fail-low
"$tools/bin/halmos" --contract SymbolicTest --function testFuzz_ --solver-timeout-assertion 120000 | grep -E '\[(PASS|FAIL|TIMEOUT|ERROR)\]|Counterexample|result'
