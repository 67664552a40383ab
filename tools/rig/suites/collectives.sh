#!/bin/bash
# Every collective over verbs gives the bits of shared memory; pretended hosts mix both; 16 ranks connect to neighbours only.
# rig: builds test:verbs_collectives
# rig: timeout 1500
# rig: packets 2000
set -eu
. "$RIG/guest/suite.sh"

export SAPWOOD_VERBS_DEVICE=r0,r1
timeout 1400 "$SAPWOOD_BIN/verbs_collectives" --test-threads=1 --nocapture 2>&1 | tee tests
grep -qE '^test result: ok. [1-9]' tests || fail "a test failed, or none ran"
