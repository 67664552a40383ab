# Sourced by run: what this machine must have, and how to get it; the out folder.
# shellcheck shell=bash disable=SC2154,SC2034 # variables that run and its other parts set or use

# Debian packages that the host itself lacks.
missing_packages() {
    command -v qemu-system-x86_64 >/dev/null || echo qemu-system-x86
    command -v depmod >/dev/null || [[ -x /sbin/depmod ]] || echo kmod
    command -v cpio >/dev/null || echo cpio
    command -v xz >/dev/null || echo xz-utils
    command -v unshare >/dev/null || echo util-linux
    if [[ -n $DMABUF ]]; then
        command -v gcc >/dev/null || echo gcc
        command -v make >/dev/null || echo make
    fi
}

check_machine() {
    local missing
    [[ $(uname -sm) == "Linux x86_64" ]] || fail 2 "the guest is an x86-64 Linux; this machine is $(uname -sm)"
    command -v apt-get >/dev/null ||
        fail 2 "apt-get is missing: the guest's kernel and tools are Debian packages; use a Debian-like machine or container"
    PATH=$PATH:/usr/sbin:/sbin
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]})); then
        local mend="apt-get install -y --no-install-recommends ${missing[*]}"
        if [[ -n $CHECK ]]; then
            fail 2 "missing: ${missing[*]}; to mend it: $mend"
        elif ((EUID == 0)); then
            say "installing ${missing[*]}"
            DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 update >&2 || true
            # shellcheck disable=SC2086
            DEBIAN_FRONTEND=noninteractive $mend -qq -o DPkg::Lock::Timeout=600 >"$(mktemp -t sapwood-rig-apt.XXXXXX)" 2>&1 ||
                fail 2 "this failed: $mend"
        elif [[ -n $INSTALL ]]; then
            # shellcheck disable=SC2086
            sudo $mend || fail 2 "this failed: sudo $mend"
        else
            fail 2 "missing: ${missing[*]}; to mend it: sudo $mend (or: tools/rig/run --install)"
        fi
        mapfile -t missing < <(missing_packages)
        ((${#missing[@]} == 0)) || fail 2 "still missing after the installation: ${missing[*]}"
    fi
}

# The out folder is emptied, so it must be one that this program made, or new, or empty.
prepare_out() {
    mkdir -p "$OUT"
    OUT=$(cd "$OUT" && pwd -P)
    case $OUT in *,* | *' '*) fail 2 "QEMU does not take a folder whose name has a comma or a space: $OUT" ;; esac
    if [[ ! -e $OUT/.sapwood-rig && -n $(ls -A "$OUT") ]]; then
        fail 2 "$OUT is not empty and not an out folder of the rig; choose another --out"
    fi
    touch "$OUT/.sapwood-rig"
    exec 9>"$OUT/.sapwood-rig"
    flock -n 9 || fail 2 "another run uses $OUT; give this one an --out of its own"
    find "$OUT" -mindepth 1 -maxdepth 1 ! -name .sapwood-rig ! -name bin -exec rm -rf {} +
    SAPWOOD_BIN=$OUT/bin
    mkdir -p "$SAPWOOD_BIN"
}
