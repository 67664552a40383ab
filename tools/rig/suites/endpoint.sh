#!/bin/bash
# Verbs endpoints: dropped at any moment under load, ended by events of the device, explained to people.
# rig: builds test:verbs_endpoint
# rig: timeout 600
# rig: packets 1000
set -eu
. "$RIG/guest/suite.sh"

# One after the other: some take a port down.
export SAPWOOD_VERBS_DEVICE=r0,r1 SAPWOOD_TEST_FAULTS=1
dmesg -n 1
timeout 560 "$SAPWOOD_BIN/verbs_endpoint" --test-threads=1 --nocapture 2>&1 | tee tests
grep -qE '^test result: ok. [1-9]' tests || fail "a test failed, or none ran"
