#!/bin/bash
# The demo over verbs: the same weights, bit for bit, as over shared memory; with backup workers, one slow or killed, one process's
# rig: builds sapwood
# rig: timeout 1500
# rig: packets 1000
set -eu
# shellcheck source=/dev/null
. "$RIG/guest/suite.sh"

sapwood=$SAPWOOD_BIN/sapwood
export SAPWOOD_VERBS_DEVICE=r0,r1
# A part of the images: the arithmetic is slow here, and what is to be seen is the exchange.
zcat "$RIG/../data/digits.csv.gz" | head -n 240 >"$TMPDIR/digits.csv"

# figure FILE NAME: one value of a report's JSON.
figure() {
    sed -nE "s/^ *\"$2\": \"?([^\",]*)\"?,?$/\1/p" "$1" | head -n 1
}

# train FABRIC PLAN WORKERS
train() {
    local name=$1-$2-$3
    "$sapwood" demo --fabric "$1" --plan "$2" --workers "$3" --backups 0 --epochs 2 --seed 7 --data "$TMPDIR/digits.csv" \
        --report "$TMPDIR/report-$name" --json "$name.json" >"$name.txt" 2>"$name.err" ||
        { cat "$name.txt" "$name.err" && fail "the demo with $3 workers over $1 by $2"; }
}

for case in "double-binary-tree 4" "binomial-tree 3" "ring 2"; do
    read -r plan workers <<<"$case"
    for fabric in shm verbs; do
        train "$fabric" "$plan" "$workers"
    done
    shm=shm-$plan-$workers.json verbs=verbs-$plan-$workers.json
    [[ $(figure "$verbs" fabric) == verbs ]] || fail "the demo says that it ran over $(figure "$verbs" fabric)"
    digest=$(figure "$verbs" weights_digest)
    [[ -n $digest && $digest == "$(figure "$shm" weights_digest)" ]] ||
        fail "$plan with $workers workers: other weights over verbs ($digest) than over shm ($(figure "$shm" weights_digest))"
    printf '%s, %s workers: weights %.16s…; exchanged %s and %s bytes, copied %s and %s (shm and verbs)\n' "$plan" "$workers" \
        "$digest" "$(figure "$shm" bytes_exchanged)" "$(figure "$verbs" bytes_exchanged)" \
        "$(figure "$shm" bytes_copied)" "$(figure "$verbs" bytes_copied)"
done

# Fewer still: steps are to be many.
head -n 100 "$TMPDIR/digits.csv" >"$TMPDIR/few.csv"

# spared NAME ARGUMENT...: a demo of four workers, one a backup, goes well.
spared() {
    local name=$1
    shift
    "$sapwood" demo --workers 4 --backups 1 --seed 7 --batch 16 --data "$TMPDIR/few.csv" --report "$TMPDIR/report-$name" \
        --json "$name.json" "$@" >"$name.txt" 2>"$name.err" || { cat "$name.txt" "$name.err" && fail "the demo $*"; }
    [[ $(figure "$name.json" replicas_identical) == true ]] || fail "$name: replicas differ"
    [[ $(figure "$name.json" matches_single_process) == true ]] || fail "$name: not what one process makes of the members"
    [[ $(figure "$name.json" dropped_gradients) == "$(figure "$name.json" steps)" ]] ||
        fail "$name: $(figure "$name.json" dropped_gradients) dropped gradients in $(figure "$name.json" steps) steps"
    cat "$name.txt"
}

# Of four workers, over verbs for every pair, and on two hosts with shared memory inside of each.
spared slow-verbs --fabric verbs --epochs 2 --slow 2:1500
[[ $(figure slow-verbs.json fabric) == verbs ]] || fail "it ran over $(figure slow-verbs.json fabric)"
spared slow-hosts --hosts 2 --epochs 2 --slow 2:1500
[[ $(figure slow-hosts.json fabric) == mixed ]] || fail "it ran over $(figure slow-hosts.json fabric)"
for name in slow-verbs slow-hosts; do
    grep 'dropped gradients' "$name.txt" | grep -qE '[1-9][0-9]* of rank 2' || fail "$name: rank 2 is slow, and is not named"
done

# worker RANK: its process.
worker() {
    local process
    for process in $(pgrep -f demo-worker); do
        ! tr '\0' '\n' <"/proc/$process/environ" | grep -qx "SAPWOOD_RANK=$1" || echo "$process"
    done
}

for case in "verbs 1 3" "auto 2 0"; do
    read -r fabric hosts rank <<<"$case"
    name=killed-$fabric
    SAPWOOD_LOG=info spared "$name" --fabric "$fabric" --hosts "$hosts" --epochs 8 --slow 1:500 --slow 2:500 &
    demo=$!
    wait_until 120 "the workers train" grep -qs "all workers train" "$name.err"
    sleep 1
    kill -9 "$(worker "$rank")"
    wait "$demo" || fail "$name: rank $rank was killed, and the others did not go on"
    grep -E '^ *died ' "$name.txt" | grep -q "rank $rank .*was killed by SIGKILL" || fail "$name: it does not say that rank $rank died"
done
if "$sapwood" demo --fabric tcp --backups 1 --report "$TMPDIR/report-tcp" 2>tcp.err; then
    fail "backup workers over tcp"
fi
grep -q 'fabric shm and verbs have backup workers' tcp.err || fail "over tcp: $(cat tcp.err)"
