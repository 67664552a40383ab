#!/bin/bash
# Backup workers over verbs, stopped and killed at random moments: no step fails that N can do, all weights are the same bits.
# rig: builds test:backup_processes
# rig: timeout 1500
# rig: packets 2000
# ROUNDS: how many, 4 without it
set -eu
. "$RIG/guest/suite.sh"

export SAPWOOD_VERBS_DEVICE=r0,r1 SAPWOOD_BACKUP_ROUNDS=${ROUNDS:-4}
timeout 1400 "$SAPWOOD_BIN/backup_processes" --test-threads=1 --nocapture verbs 2>&1 | tee tests
grep -qE '^test result: ok. [1-9]' tests || fail "a test failed, or none ran"
