#!/bin/bash
# A dma-buf on stock soft-RoCE: the refusal, by a type of its own.
# rig: builds test:verbs_dmabuf
# rig: timeout 60
# rig: packets 0
set -eu
. "$RIG/guest/suite.sh"

[[ -e /dev/udmabuf ]] || modprobe udmabuf || fail "there is no /dev/udmabuf"
timeout 50 "$SAPWOOD_BIN/verbs_dmabuf" --test-threads=1 --nocapture 2>&1 | tee tests

grep -qE '^test result: ok. 1 passed' tests || fail "not exactly the refusal was tested"
