#!/bin/bash
# Choice, registration, queue-pair states and device events of the verbs fabric, on its own parts.
# rig: builds lib:sapwood test:verbs_device
# rig: timeout 420
# rig: packets 10
set -eu
. "$RIG/guest/suite.sh"

# One after the other: some take a port down.
timeout 200 "$SAPWOOD_BIN/sapwood-lib" --ignored --test-threads=1 fabric::verbs:: 2>&1 | tee tests
grep -qE '^test result: ok. [1-9]' tests || fail "a test failed, or none ran"

SAPWOOD_TEST_FAULTS=1 timeout 200 "$SAPWOOD_BIN/verbs_device" --test-threads=1 --nocapture 2>&1 | tee faults
grep -qE '^test result: ok. [1-9]' faults || fail "a test failed, or none ran"
