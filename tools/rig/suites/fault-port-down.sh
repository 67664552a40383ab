#!/bin/bash
# A port that is down, before a job and while it runs: the error names device and port and how it comes up.
# rig: builds sapwood
# rig: timeout 400
set -eu
. "$RIG/guest/faults.sh"

ip link set v0 down
refused "perf on a port that is down" 'r0' 'port 1' 'down' 'ip link set v0 up' -- \
    "$SAPWOOD" perf write-lat --local --fabric verbs -d r0,r1 -n 10
refused "demo on a port that is down" 'r0' 'down' 'ip link set v0 up' -- \
    env SAPWOOD_VERBS_DEVICE=r0,r1 "$SAPWOOD" demo --fabric verbs --workers 2 --epochs 1
"$SAPWOOD" devices >said 2>&1 || echo "devices: exit status $?"
grep -qi down said || fail "devices does not say that the port is down: $(cat said)"

ends_within() {
    timeout "$2" tail --pid="$1" -f /dev/null || fail "the job does not end within $2 s after its port went down: $(tail -n 3 said)"
}

for command in "perf write-bw --local --fabric verbs -d r0,r1 -s 16K -t 16 -D 300" "demo --fabric verbs --workers 2 --epochs 50"; do
    read -ra words <<<"$command"
    devices_down
    devices_up
    SAPWOOD_VERBS_DEVICE=r0,r1 "$SAPWOOD" "${words[@]}" >said 2>&1 &
    job=$!
    under_way $job 300
    ip link set v0 down
    ends_within $job 90
    status=0
    wait $job || status=$?
    said "${words[0]} whose port goes down" "$status" 'r[01]' 'port' 'down|PORT_ERR|not active'
done
done_with_faults
