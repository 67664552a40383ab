#!/bin/bash
# MTUs that differ: the smaller one is used; one that the port does not carry is refused; packets lost to it are explained.
# rig: builds sapwood
# rig: timeout 400
set -eu
. "$RIG/guest/faults.sh"

# r0's port now carries 1,024 bytes, r1's 4,096.
ip link set v0 mtu 1500
before=$(packets)
works "perf between a port of 1024 and one of 4096" \
    "$SAPWOOD" perf write-bw --local --fabric verbs -d r0,r1 -s 64K -n 20 --data_validation
moved $((20 * 64)) "$before" || fail "20 messages of 64 KiB took only $(($(packets) - before)) packets, so they had more than 1,024 bytes"
# An MTU asked for is an upper bound (that is said in --help), or refused with both numbers: never more than a port carries.
before=$(packets)
if timeout "$PATIENCE" "$SAPWOOD" perf write-bw --local --fabric verbs -d r0,r1 -m 4096 -s 64K -n 20 >said 2>&1; then
    moved $((20 * 64)) "$before" || fail "-m 4096 sent larger packets than r0's port carries"
    echo "--- perf with -m 4096: went on with the smaller one"
else
    said "perf with an MTU that one port does not carry" $? 'MTU' '4096' '1024'
fi
ip link set v0 mtu 4200

# The interface of one side shrinks under a running job: its peer's packets of 4,096 bytes are dropped, small ones pass.
"$SAPWOOD" perf write-bw --local --fabric verbs -d r0,r1 -s 16K -t 16 -D 60 >said 2>&1 &
job=$!
under_way $job 300
ip link set v0 mtu 1500
status=0
timeout 120 tail --pid=$job -f /dev/null || fail "the job does not end after its packets do not pass any more"
wait $job || status=$?
if ((status == 0)); then
    # The veth pair may go on carrying what its own end sends; then nothing was lost, and there is nothing to explain.
    echo "--- the running job was not disturbed"
else
    said "perf whose packets do not pass any more" "$status" 'MTU' 'r[01]'
fi
done_with_faults
