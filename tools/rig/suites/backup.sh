#!/bin/bash
# Backup workers over verbs, one and several on each host, stopped and killed at random: no step that N can do fails, all weights agree.
# Killed ones come back, too.
# rig: builds test:backup_processes test:backup_returns
# rig: timeout 1800
# rig: packets 2000
# ROUNDS: how many, 4 without it (2 with returns); TESTS: a part of the names of those that are to run; LIMIT: seconds, for many
set -eu
. "$RIG/guest/suite.sh"

export SAPWOOD_VERBS_DEVICE=r0,r1 SAPWOOD_BACKUP_ROUNDS=${ROUNDS:-4}
timeout "${LIMIT:-1400}" "$SAPWOOD_BIN/backup_processes" --test-threads=1 --nocapture "${TESTS:-verbs}" 2>&1 | tee tests
grep -qE '^test result: ok. [1-9]' tests || fail "a test failed, or none ran"

export SAPWOOD_RETURN_ROUNDS=${ROUNDS:-2}
timeout "${LIMIT:-900}" "$SAPWOOD_BIN/backup_returns" --test-threads=1 --nocapture "${TESTS:-verbs}" 2>&1 | tee returns
grep -qE '^test result: ok.' returns || fail "a test with returns failed"
