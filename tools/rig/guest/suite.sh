# For suites: `. "$RIG/guest/suite.sh"`.
# shellcheck shell=bash

# shellcheck source-path=SCRIPTDIR source=devices.sh
. "$RIG/guest/devices.sh" # packets, devices_down, devices_up

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# The suite ends as skipped, with this reason in the table. Only for what a suite cannot help; a missing device is no reason.
skip() {
    echo "skipped: $*"
    exit 77
}

# wait_until SECONDS WHAT COMMAND...: repeats the command until it is true.
wait_until() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < until)) || fail "waited in vain until $what"
        sleep 0.1
    done
}

# moved COUNT BEFORE: whether so many packets have crossed the veth pair since `packets` said BEFORE.
moved() { (($(packets) >= $2 + $1)); }

# listening PORT: whether a process listens on the TCP port.
listening() { ss -Hltn "sport = :$1" | grep -q .; }
