#!/bin/bash
# Memory lock limit of 8 MiB, as a plain user: the error says the limit and what raises it; what fits works.
# rig: builds sapwood
set -eu
. "$RIG/guest/faults.sh"
program_for_everybody

limit=(prlimit --memlock=8388608:8388608)
refused "perf with 64 MiB" '8388608|8 MiB|8192' 'memlock' 'ulimit -l' -- \
    "${limit[@]}" "${UNPRIVILEGED[@]}" "$SAPWOOD" perf write-bw --local --fabric verbs -d r0,r1 -s 64M -n 5
works "perf with 64 KiB" \
    "${limit[@]}" "${UNPRIVILEGED[@]}" "$SAPWOOD" perf write-bw --local --fabric verbs -d r0,r1 -s 64K -n 20
done_with_faults
