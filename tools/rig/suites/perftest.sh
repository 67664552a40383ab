#!/bin/bash
# `sapwood perf` beside Debian's perftest on the same devices: latency, bandwidth, message rate, system calls, packets.
# rig: builds sapwood 
# rig: timeout 3600
# rig: packets 10000
# rig: slow
#
# Settings (tools/rig/run --set NAME=VALUE): ROUNDS=5; TESTS="write read send atomic"; POINTS="latency bandwidth rate";
# SCALE=1 (multiplies the iterations); COUNTED=1 (0: no counting of system calls and packets); PROGRAMS="perftest sapwood"
# ("perftest" alone: perftest beside itself). Leaves samples.csv, counts.csv and results.json.
set -euo pipefail
. "$RIG/guest/suite.sh"
. "$RIG/perftest/measure.sh"

ROUNDS=${ROUNDS:-5} SCALE=${SCALE:-1} COUNTED=${COUNTED:-1}
read -ra TESTS <<<"${TESTS:-write read send atomic}"
read -ra POINTS <<<"${POINTS:-latency bandwidth rate}"
if [[ -z ${PROGRAMS:-} ]]; then
    PROGRAMS="perftest sapwood"
    "$SAPWOOD_BIN/sapwood" perf --help >/dev/null 2>&1 || PROGRAMS=perftest
fi

steady_clock
place_processes
echo "round,test,point,run,value,average" >samples.csv
echo "test,point,program,iterations,system_calls,packets" >counts.csv

((!COUNTED)) || start_counter
for test in "${TESTS[@]}"; do
    for point in "${POINTS[@]}"; do
        [[ $test-$point != atomic-bandwidth ]] || continue # an atomic has 8 bytes
        if ((COUNTED)); then
            for program in $PROGRAMS; do count "$program" "$test" "$point" >>counts.csv; done
        fi
    done
done
((!COUNTED)) || stop_counter
for ((round = 1; round <= ROUNDS; round++)); do
    began=$SECONDS
    for test in "${TESTS[@]}"; do
        for point in "${POINTS[@]}"; do
            [[ $test-$point != atomic-bandwidth ]] || continue
            # perftest twice in each round: how far its own two runs are apart is the measure. Who begins changes.
            case $PROGRAMS,$((round % 3)) in
            perftest,*) runs="perftest perftest-again" ;;
            *,0) runs="perftest sapwood perftest-again" ;;
            *,1) runs="sapwood perftest perftest-again" ;;
            *,2) runs="perftest perftest-again sapwood" ;;
            esac
            for run in $runs; do
                echo "$round,$test,$point,$run,$(value "${run%-again}" "$test" "$point")" >>samples.csv
            done
        done
    done
    echo "round $round of $ROUNDS: $((SECONDS - began)) s"
done
awk -v placed="$PLACED" -f "$RIG/perftest/table.awk" counts.csv samples.csv
