#!/bin/bash
# Every type, field, constant and prototype of the verbs bindings is as the header of the guest's libibverbs says.
# rig: builds workspace:interop/header-check
# rig: timeout 120
# rig: packets 0
set -euo pipefail

"$SAPWOOD_BIN/header-check" | tee summary
grep -q 'facts agree' summary
