#!/bin/bash
# The demo over verbs: the same weights, bit for bit, as over shared memory, and how many queue pairs that takes
# rig: builds sapwood
# rig: timeout 900
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
