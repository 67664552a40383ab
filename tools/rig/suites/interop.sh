#!/bin/bash
# A queue pair of ours and one of the ibverbs crate: sends both ways, and ours writes, reads and updates theirs.
# rig: builds workspace:interop/ibverbs-peer
# rig: timeout 300
# rig: packets 5000
# rig: slow
set -euo pipefail

"$SAPWOOD_BIN/ibverbs-peer" ours r0 r1 1 | tee log.ours
grep -q 'ibverbs-peer: all passed' log.ours
