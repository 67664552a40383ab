#!/bin/bash
# A dma-buf of ordinary memory on a patched soft-RoCE: writes, reads and atomics land in it. Nothing about GPU memory.
# rig: builds test:verbs_dmabuf
# rig: needs dmabuf
# rig: timeout 120
# rig: packets 20
set -eu
. "$RIG/guest/suite.sh"

[[ -e /dev/udmabuf ]] || modprobe udmabuf || fail "there is no /dev/udmabuf"
LD_PRELOAD=$DMABUF_PRELOAD timeout 100 "$SAPWOOD_BIN/verbs_dmabuf" --test-threads=1 --nocapture 2>&1 | tee tests
grep -qE '^test result: ok. 2 passed' tests || fail "the patched module's two cases did not pass"
