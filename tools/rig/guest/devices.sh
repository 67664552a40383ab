# Sourced in the guest: the two devices. r0 is 10.9.0.1 on v0, r1 is 10.9.0.2 on v1, the ends of a veth pair; GID index 1 is
# the RoCE v2 one with the IPv4 address.
# shellcheck shell=bash

# Room for a path MTU of 4,096 and RoCE's headers; an interface of 1,500 gives 1,024.
VETH_MTU=4200

devices_down() {
    local device
    for device in /sys/class/infiniband/*; do
        [[ -e $device ]] && rdma link delete "${device##*/}" 2>/dev/null
    done
    ip link delete v0 2>/dev/null || ip link delete v1 2>/dev/null
    return 0
}

devices_up() {
    local setting
    for setting in all default; do
        # Both ends are this kernel's own: without these it would drop packets that come from an address of its own.
        echo 1 >/proc/sys/net/ipv4/conf/$setting/accept_local
        echo 0 >/proc/sys/net/ipv4/conf/$setting/rp_filter
    done
    ip link set lo up
    ip link add v0 mtu $VETH_MTU type veth peer name v1 mtu $VETH_MTU || return 1
    ip address add 10.9.0.1/24 dev v0 && ip address add 10.9.0.2/24 dev v1 || return 1
    ip link set v0 up && ip link set v1 up || return 1
    rdma link add r0 type rxe netdev v0 && rdma link add r1 type rxe netdev v1 || return 1
    wait_for_port r0 && wait_for_port r1
}

# The port is active, and the GID table has the IPv4 address.
wait_for_port() {
    local port=/sys/class/infiniband/$1/ports/1 tries
    for ((tries = 0; tries < 100; tries++)); do
        if grep -q ACTIVE "$port/state" 2>/dev/null && grep -q ':ffff:0a09' "$port/gids/1" 2>/dev/null; then
            return 0
        fi
        sleep 0.1
    done
    echo "device $1 did not become active with GID index 1 within 10 s" >&2
    return 1
}

# Packets that both ends have sent since the pair was made; 0 where a suite has removed it.
packets() {
    local sum=0 end one
    for end in v0 v1; do
        one=$(cat /sys/class/net/$end/statistics/tx_packets 2>/dev/null) && sum=$((sum + one))
    done
    echo "$sum"
}
