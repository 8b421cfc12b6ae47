#!/bin/bash
# Runs cargo with these arguments, and shows that it goes on: cargo by itself is silent for minutes or lists hundreds of
# crates. Where nothing has to be compiled it says nothing.
set -euo pipefail
crates=0
# What make tells its children of jobs is not for cargo.
env -u MAKEFLAGS -u MFLAGS cargo "$@" 2>&1 | {
  while IFS= read -r line; do
    case $line in
      *" Compiling "* | *" Checking "*)
        [ $((crates % 50)) != 0 ] || echo "cargo $1: crate $((crates + 1))"
        crates=$((crates + 1))
        ;;
      *" Finished "*)
        [ $crates = 0 ] || printf '%6d s  cargo %s: %d crates are done\n' $SECONDS "$1" $crates
        ;;
      *" Updating "* | *" Locking "* | *" Downloading "* | *" Downloaded "*) ;;
      *) printf '%s\n' "$line" >&2 ;;
    esac
  done
}
