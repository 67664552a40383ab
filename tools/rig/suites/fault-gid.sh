#!/bin/bash
# A GID index that is empty or not there: the error lists what can be used.
# rig: builds sapwood
# rig: packets 0
set -eu
. "$RIG/guest/faults.sh"

refused "perf with a GID index beyond the entries" 'GID' '\b9\b' 'r0' '10\.9\.0\.1|\b1\b' -- \
    "$SAPWOOD" perf write-lat --local --fabric verbs -d r0,r1 -x 9 -n 10
refused "demo with a GID index beyond the entries" 'GID' '\b9\b' -- \
    env SAPWOOD_VERBS_GID_INDEX=9 "$SAPWOOD" demo --fabric verbs --workers 2 --epochs 1
refused "a GID index that is no number" 'SAPWOOD_VERBS_GID_INDEX' 'nine' -- \
    env SAPWOOD_VERBS_GID_INDEX=nine "$SAPWOOD" demo --fabric verbs --workers 2 --epochs 1
refused "a subnet that no address is in" '192\.168\.7\.0/24' -- \
    env SAPWOOD_VERBS_SUBNET=192.168.7.0/24 "$SAPWOOD" demo --fabric verbs --workers 2 --epochs 1
done_with_faults
