#!/bin/bash
# The rig itself: both devices are there, and a ping-pong of rdma-core's own crosses the veth pair.
# rig: timeout 60
# rig: packets 2000
set -eu
. "$RIG/guest/suite.sh"

ibv_devinfo | tee devinfo
for device in r0 r1; do
    grep -q "hca_id:.*$device" devinfo || fail "ibv_devinfo does not show $device"
done
[[ $(grep -c PORT_ACTIVE devinfo) == 2 ]] || fail "the two ports are not active"

timeout 40 ibv_rc_pingpong -d r0 -g 1 -n 500 >server 2>&1 &
server=$!
wait_until 10 "the ping-pong's server listens" listening 18515
timeout 40 ibv_rc_pingpong -d r1 -g 1 -n 500 127.0.0.1 | tee client
wait $server || fail "the ping-pong's server failed: $(cat server)"
grep -q '500 iters' client || fail "the ping-pong did not do its 500 rounds"
