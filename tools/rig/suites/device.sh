#!/bin/bash
# Choice, registration, queue-pair states and device events of the verbs fabric, on its own parts.
# rig: builds lib:sapwood
# rig: timeout 240
set -eu
. "$RIG/guest/suite.sh"

# One after the other: one of them takes a port down.
timeout 200 "$SAPWOOD_BIN/sapwood-lib" --ignored --test-threads=1 fabric::verbs:: | tee tests
grep -qE '^test result: ok. [1-9]' tests || fail "no test ran"
