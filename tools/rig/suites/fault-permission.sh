#!/bin/bash
# A user without permission on /dev/infiniband: the error names the file and what to do.
# rig: builds sapwood
# rig: packets 0
set -eu
. "$RIG/guest/faults.sh"
program_for_everybody

chmod 600 /dev/infiniband/uverbs*
refused "perf without permission" 'permission' '/dev/infiniband/uverbs[0-9]' 'group|chmod|udev|root' -- \
    "${UNPRIVILEGED[@]}" "$SAPWOOD" perf write-lat --local --fabric verbs -d r0,r1 -n 10
refused "demo without permission" 'permission' '/dev/infiniband/uverbs[0-9]' -- \
    "${UNPRIVILEGED[@]}" "$SAPWOOD" demo --fabric verbs --workers 2 --epochs 1
"${UNPRIVILEGED[@]}" "$SAPWOOD" devices >said 2>&1 || echo "devices: exit status $?"
sed 's/^/    /' said
grep -qi permission said || fail "devices does not say that it may not open them"

chmod 666 /dev/infiniband/uverbs*
works "perf with permission again" "${UNPRIVILEGED[@]}" "$SAPWOOD" perf write-lat --local --fabric verbs -d r0,r1 -n 10
done_with_faults
