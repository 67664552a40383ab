# Sourced by suites/perftest.sh: one run of one program at one point, and what it costs in system calls and packets.
# shellcheck shell=bash disable=SC2034,SC2154 # variables that the suite sets or uses

PORT=18600
SERVER_PLACE=() CLIENT_PLACE=() PLACED="not bound to processors"

# perftest turns cycles into time by the clock rates in /proc/cpuinfo, and divides by zero (`inf`) where the processors' differ:
# give all of them the rate that the kernel found for the cycle counter.
steady_clock() {
    local rate
    rate=$(dmesg | sed -nE 's/.*tsc: Detected ([0-9.]+) MHz.*/\1/p' | head -n 1)
    [[ -n $rate ]] || fail "the kernel did not say how fast the cycle counter runs"
    sed -E "s/^(cpu MHz[[:space:]]*: ).*/\1$rate/" /proc/cpuinfo >cpuinfo
    mount --bind cpuinfo /proc/cpuinfo
}

# Both sides spin. With four processors each gets one of its own, and the kernel's soft-RoCE work runs on the others; with two the
# scheduler decides who waits, and latencies fall into two heaps, of some hundred microseconds and of a tick.
place_processes() {
    if (($(nproc) >= 4)); then
        SERVER_PLACE=(taskset -c 2)
        CLIENT_PLACE=(taskset -c 3)
        echo 3 >/sys/devices/virtual/workqueue/cpumask
        PLACED="each side on a processor of its own, soft-RoCE on two others"
    else
        echo "NOTE: with less than 4 processors (--smp 4) both sides and soft-RoCE take them from each other: expect a wide spread"
        PLACED="with $(nproc) processors for both sides and soft-RoCE together"
    fi
}

# command PROGRAM TEST POINT ITERATIONS: the words of the command, one a line; the flags are the same for both programs.
command_words() {
    local program=$1 test=$2 point=$3 iterations=$4 kind=bw size=8
    [[ $point != latency ]] || kind=lat
    [[ $point != bandwidth ]] || size=65536
    if [[ $program == perftest ]]; then
        echo "ib_${test}_$kind"
    else
        printf '%s\n' "$SAPWOOD_BIN/sapwood" perf "$test-$kind" --fabric verbs
    fi
    printf '%s\n' -x 1 -F -p $PORT -n "$iterations"
    [[ $test == atomic ]] || printf '%s\n' -s $size
}

iterations() {
    case $1 in
    latency) echo $((1000 * SCALE)) ;;
    bandwidth) echo $((300 * SCALE)) ;;
    rate) echo $((5000 * SCALE)) ;;
    esac
}

# perftest waits at a TCP port, `sapwood perf` without a secret at an abstract Unix socket named after it.
waits_for_client() { listening $PORT || ss -Hxl | grep -q "@sapwood-pair-0-$PORT "; }

# pair PROGRAM TEST POINT ITERATIONS: a server on r0, a client on r1; the client's output in `client`.
pair() {
    local words server
    PORT=$((PORT + 1))
    mapfile -t words < <(command_words "$@")
    timeout 120 "${SERVER_PLACE[@]}" "${words[@]}" -d r0 >server 2>&1 &
    server=$!
    wait_until 20 "${words[0]} listens on port $PORT ($(tail -n 2 server))" waits_for_client
    timeout 120 "${CLIENT_PLACE[@]}" "${words[@]}" -d r1 10.9.0.1 >client 2>&1 ||
        fail "${words[*]} -d r1 10.9.0.1: $(tail -n 3 client)"
    wait $server || fail "the server's ${words[*]} -d r0: $(tail -n 3 server)"
}

# value PROGRAM TEST POINT: the point's figure, a comma, and for latencies the average (else the bandwidth).
# Latency: the median in microseconds; bandwidth: MiB/s; rate: operations per second.
value() {
    local found
    pair "$1" "$2" "$3" "$(iterations "$3")" >&2
    found=$(awk -v point="$3" '
        $1 ~ /^[0-9]+$/ && $2 ~ /^[0-9]+$/ && NF >= 5 {
            if (point == "latency") print $5 "," $6
            else if (point == "bandwidth") print $4 "," $4
            else printf "%.0f,%s\n", $5 * 1e6, $4
        }' client | tail -n 1)
    [[ $found =~ ^[0-9.]+,[0-9.]+$ ]] || fail "$1 $2 $3 printed no figure: $(tail -n 3 client)"
    echo "$found"
}

# Counts system calls in the kernel, by a histogram of the tracepoint: it disturbs spinning processes far less than
# ptrace does.
TRACING=/sys/kernel/tracing
SYSTEM_CALLS=$TRACING/events/raw_syscalls/sys_enter

COUNT='hist:keys=common_pid.execname:size=16384'

# Switching it on and off rewrites the kernel's code, and an emulated machine with several processors can die of that when
# they are busy: once before everything that is counted, once behind it, and none of the scheduler's tracepoints.
start_counter() {
    [[ -e $SYSTEM_CALLS ]] || mount -t tracefs tracefs $TRACING
    echo 0 >$TRACING/options/record-cmd
    echo "$COUNT" >$SYSTEM_CALLS/trigger
}
stop_counter() { echo "!$COUNT" >$SYSTEM_CALLS/trigger; }

# What has been counted so far: the sum over both sides' processes and threads; what is the suite's own is left out. (A process
# goes by the name that it had first: the two programs are `timeout`, which has started them.)
counted() {
    cp $SYSTEM_CALLS/hist calls
    awk '/hitcount:/ && !/common_pid: (bash|main|modprobe|ss|awk|mawk|sed|tee|sleep|grep|cat|cp|tail|head|mapfile|mount|dmesg|nproc|unshare|stdbuf|kworker|swapper)/ {
        sum += $NF
    } END {print sum + 0}' calls
}

# count PROGRAM TEST POINT: a line for counts.csv, from the difference of two runs, so that setting up does not count.
count() {
    local few more calls=() packets=() before calls_before run
    few=$(($(iterations "$3") / 4)) more=$(iterations "$3")
    for run in "$few" "$more"; do
        before=$(packets)
        calls_before=$(counted)
        pair "$1" "$2" "$3" "$run" >&2
        calls+=($(($(counted) - calls_before)))
        packets+=($(($(packets) - before)))
    done
    echo "$2,$3,$1,$((more - few)),$((calls[1] - calls[0])),$((packets[1] - packets[0]))"
}
