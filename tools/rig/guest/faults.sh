# For suites that make a fault: `. "$RIG/guest/faults.sh"` (brings suite.sh with it). They check that a command refuses with a status of
# its own (1 or 2, never a signal, a panic or a time-out) and that what it says has the words that a person needs.
# shellcheck shell=bash

# shellcheck source-path=SCRIPTDIR source=suite.sh
. "$RIG/guest/suite.sh"

SAPWOOD=$SAPWOOD_BIN/sapwood
PATIENCE=90
CASES=0

# refused NAME WORD... -- COMMAND...: each WORD is an extended regular expression, in any case of letters.
refused() {
    local name=$1 words=() status word
    shift
    while [[ $1 != -- ]]; do
        words+=("$1")
        shift
    done
    shift
    timeout --kill-after=5 "$PATIENCE" "$@" >said 2>&1 && status=0 || status=$?
    said "$name" "$status" "${words[@]}"
}

# said NAME STATUS WORD...: the same for a command that has ended already, with its words in the file `said`.
said() {
    local name=$1 status=$2 word
    shift 2
    echo "--- $name: exit status $status"
    sed 's/^/    /' said
    case $status in
    1 | 2) ;;
    0) fail "$name: it succeeded; it should have been refused" ;;
    124 | 137) fail "$name: it was not done after $PATIENCE s; it should have been refused" ;;
    *) fail "$name: exit status $status, neither 1 nor 2" ;;
    esac
    ! grep -q 'panicked at' said || fail "$name: it panicked"
    for word in "$@"; do
        grep -qiE -- "$word" said || fail "$name: what it says lacks '$word'"
    done
    CASES=$((CASES + 1))
}

# works NAME COMMAND...: what must not be refused.
works() {
    local name=$1
    shift
    timeout --kill-after=5 "$PATIENCE" "$@" >said 2>&1 || fail "$name: exit status $?: $(tail -n 5 said)"
    echo "--- $name: works"
    CASES=$((CASES + 1))
}

# under_way JOB COUNT: until so many packets have crossed the veth pair; fails if the job, whose words are in `said`, ends before.
under_way() {
    local before until=$((SECONDS + PATIENCE))
    before=$(packets)
    until moved "$2" "$before"; do
        kill -0 "$1" 2>/dev/null || fail "the job ended before anything was done to it: $(tail -n 5 said)"
        ((SECONDS < until)) || fail "the job moved only $(($(packets) - before)) packets in $PATIENCE s: $(tail -n 5 said)"
        sleep 0.2
    done
}

# As a user without any privilege (the suites use it); the program is copied to where everybody can read it.
# shellcheck disable=SC2034
UNPRIVILEGED=(setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all
    env "HOME=$TMPDIR" "TMPDIR=$TMPDIR")
program_for_everybody() {
    install -m 755 "$(readlink -f "$SAPWOOD")" "$TMPDIR/sapwood"
    SAPWOOD=$TMPDIR/sapwood
}

done_with_faults() {
    ((CASES > 0)) || fail "no case ran"
    echo "$CASES cases"
}
