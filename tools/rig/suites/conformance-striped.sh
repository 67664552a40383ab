#!/bin/bash
# The conformance suite with four queue pairs for each connection, and large writes striped over them.
# rig: builds test:conformance
# rig: timeout 1800
# rig: slow
# rig: packets 100000
set -eu
. "$RIG/guest/suite.sh"

# Rank 0 on one device and rank 1 on the other, so that everything crosses the veth pair. One case at a time: two
# emulated processors are not enough for more, and patience is for these.
export SAPWOOD_VERBS_DEVICE=r0,r1 SAPWOOD_CONFORMANCE_SLOWNESS=6
dmesg -n 1 # soft-RoCE reports every failed request there, and these fail many on purpose
timeout 1750 "$SAPWOOD_BIN/conformance" --test-threads=1 verbs-striped:: | tee cases
grep -qE '^test result: ok. [5-9][0-9] passed' cases || fail "not every case passed"
