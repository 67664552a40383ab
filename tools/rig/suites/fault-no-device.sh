#!/bin/bash
# No device, or none of that name: the error says which there are, or how one comes about.
# rig: builds sapwood
# rig: packets 0
set -eu
. "$RIG/guest/faults.sh"

refused "perf on a device that is not there" 'nosuch' 'r0' 'r1' -- \
    "$SAPWOOD" perf write-lat --local --fabric verbs -d nosuch -n 10
refused "demo on a device that is not there" 'nosuch' 'r0' 'r1' -- \
    env SAPWOOD_VERBS_DEVICE=nosuch "$SAPWOOD" demo --fabric verbs --workers 2 --epochs 1
refused "perf on a port that is not there" 'port 7' 'r0' -- \
    "$SAPWOOD" perf write-lat --local --fabric verbs -d r0,r1 -i 7 -n 10

rdma dev set r0 name renamed0
refused "perf on a device that was renamed" '\br0\b' 'renamed0' -- \
    "$SAPWOOD" perf write-lat --local --fabric verbs -d r0,r1 -n 10
"$SAPWOOD" devices | tee said
grep -q renamed0 said || fail "devices does not show the new name"
rdma dev set renamed0 name r0

devices_down
status=0
"$SAPWOOD" devices >said 2>&1 || status=$?
echo "--- devices without any: exit status $status"
sed 's/^/    /' said
grep -qiE 'no (RDMA|verbs) device|no device' said || fail "devices does not say that there is none"
grep -qE 'rdma link add|rdma_rxe' said || fail "devices does not say how one comes about"
refused "perf without any device" 'no (RDMA|verbs) device|no device' 'rdma link add|rdma_rxe|modprobe' -- \
    "$SAPWOOD" perf write-lat --local --fabric verbs -n 10
refused "demo without any device" 'no (RDMA|verbs) device|no device' -- \
    "$SAPWOOD" demo --fabric verbs --workers 2 --epochs 1

rmmod rdma_rxe
refused "perf without the kernel's module" 'no (RDMA|verbs) device|no device' 'modprobe|rdma_rxe' -- \
    "$SAPWOOD" perf write-lat --local --fabric verbs -n 10
done_with_faults
