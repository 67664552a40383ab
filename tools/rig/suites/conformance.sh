#!/bin/bash
# Verbs endpoints pass every case of the fabric contract's conformance suite, as threads and as processes.
# rig: builds test:conformance
# rig: timeout 1500
# rig: packets 100000
set -eu
. "$RIG/guest/suite.sh"

# Rank 0 on one device and rank 1 on the other, so that everything crosses the veth pair. One case at a time: two
# emulated processors are not enough for more, and patience is for these.
export SAPWOOD_VERBS_DEVICE=r0,r1 SAPWOOD_CONFORMANCE_SLOWNESS=6
dmesg -n 1 # soft-RoCE reports every failed request there, and these fail many on purpose
timeout 1450 "$SAPWOOD_BIN/conformance" --test-threads=1 --skip mixed-verbs:: verbs:: | tee cases
grep -qE '^test result: ok. [5-9][0-9] passed' cases || fail "not every case passed"
