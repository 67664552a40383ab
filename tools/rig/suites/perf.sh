#!/bin/bash
# sapwood perf and sapwood devices over both devices: every test with its data checked, server and client, what goes wrong.
# rig: builds sapwood
# rig: timeout 900
# rig: packets 5000
set -eu
. "$RIG/guest/suite.sh"
export PATH="$SAPWOOD_BIN:$PATH"

# perf NAME ARGUMENT...: both sides, server on r0 and client on r1; the table in NAME.txt, the document in NAME.json.
perf() {
    local name=$1
    shift
    timeout 120 sapwood perf "$@" --local -d r0,r1 --json "$name.json" >"$name.txt" 2>"$name.err" ||
        fail "sapwood perf $*: $(cat "$name.txt" "$name.err")"
    sed -n '/^ #bytes/,/^---/p' "$name.txt" | grep -v '^---'
    grep -q '"fabric": "verbs"' "$name.json" || fail "$name did not run over verbs"
}
has() { grep -qE -- "$2" "$1" || fail "no '$2' in $1: $(cat "$1")"; }
hasnt() { ! grep -qE -- "$2" "$1" || fail "'$2' in $1: $(cat "$1")"; }
# refused STATUS PART COMMAND...
refused() {
    local wanted=$1 part=$2 status=0
    shift 2
    timeout 60 "$@" >refused.out 2>refused.err || status=$?
    [[ $status == "$wanted" ]] || fail "$*: status $status instead of $wanted: $(cat refused.out refused.err)"
    has refused.err "$part"
}

echo "== devices"
sapwood devices --counters --json devices.json | tee devices.txt
has devices.txt '^\*  r[01] +1 +ACTIVE +Ethernet'
has devices.txt '^\*  r[01] +1 +1 +RoCE v2 +10\.9\.0\.[12]'
has devices.txt 'r1 .* v1'
has devices.json '"name": "r0"'
has devices.json '"gid_index": 1'
has devices.json '"active_mtu": 4096'

echo "== every test, its data checked"
for test in write-lat read-lat send-lat atomic-lat write-bw read-bw send-bw atomic-bw; do
    perf "$test" "$test" -n 50 --data_validation
    has "$test.json" '"wrong_bytes": 0'
    has "$test.json" '"device": "r1"'
    has "$test.txt" 'Data validation : [0-9]+ bytes, all right'
    has "$test.txt" 'GID index       : 1'
    has "$test.txt" 'Mtu             : 4096\[B\]'
done
has write-lat.txt 'the last byte in memory'

echo "== flags"
perf imm write-lat --write_with_imm -n 50 --data_validation
has imm.json '"noticed_by": "receive"'
perf swap atomic-bw -A CMP_AND_SWAP -n 50 --data_validation
perf both write-bw -b -q 3 -n 50 -s 4K --data_validation
has both.json '"n_iterations": 150'
perf list send-bw -l 8 -n 160 -s 64 -b --data_validation
perf list-imm write-bw --write_with_imm -l 8 -n 160 -s 64 --data_validation
perf events send-lat -e -n 50
perf events-bw read-bw -e -n 50 -s 4K
perf time write-bw -D 2 -s 64 --report_gbits
has time.json '"bandwidth_unit": "Gb/sec"'
perf time-lat send-lat -D 2
perf sweep write-bw -a -n 5
has sweep.json '"MsgSize": 8388608'
perf path send-bw -n 50 -m 1024 -S 3 -u 18 -x 1 -i 1 --tclass 106 --flow_label 0x12345,77 -q 2 --data_validation
has path.txt 'Mtu             : 1024\[B\]'
perf inline send-lat -I 64 -n 50 -s 32 --data_validation

echo "== server and client"
head -c 32 /dev/urandom >secret && chmod 600 secret
timeout 120 sapwood perf send-lat -d r0 -n 100 --secret-file secret >server.txt 2>&1 &
server=$!
timeout 120 sapwood perf send-lat -d r1 -n 100 --secret-file secret 10.9.0.1 >client.txt 2>&1 || fail "client: $(cat client.txt server.txt)"
wait $server || fail "server: $(cat server.txt)"
for side in server client; do
    has $side.txt '^ +2 +100 '
done
has server.txt 'Waiting for client to connect on port 18515'

echo "== what goes wrong"
refused 2 'no GID at index 40' sapwood perf write-lat -d r0 -x 40 --local
refused 2 'there is no RDMA device "r9"; there is r0; r1' sapwood perf write-lat -d r9 --local
refused 2 'has no port 2' sapwood perf write-lat -d r0 -i 2 --local
timeout 120 sapwood perf write-lat -d r0 -n 10 >server.txt 2>&1 &
server=$!
refused 1 '-n is 20 on the client and 10 on the server' sapwood perf write-lat -d r1 -n 20 localhost
! wait $server || fail "the server took a client with other settings"
has server.txt '-n is 10 on the server and 20 on the client'
for test in write-lat send-bw; do
    timeout 120 sapwood perf $test -d r0 -D 100 >server.txt 2>&1 &
    server=$!
    timeout 120 sapwood perf $test -d r1 -D 100 localhost >client.txt 2>&1 &
    client=$!
    wait_until 30 "the client measures" grep -q '^ #bytes' client.txt
    sleep 1
    pkill -KILL -P $server sapwood
    begun=${EPOCHREALTIME/./}
    ! wait $client || fail "the client of a killed server succeeded"
    echo "$test: the client ended $((${EPOCHREALTIME/./} - begun)) us after its server was killed"
    has client.txt 'the server \(process [0-9]+\) died'
    wait $server || true
done
