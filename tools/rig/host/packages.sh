# Sourced by run: fetches the guest's kernel and tools, and packs the file system that it boots from. Everything is kept
# in $CACHE, in folders named after a hash of what made them, so that a changed recipe makes a new one.
# shellcheck shell=bash disable=SC2154,SC2034 # variables that run and its other parts set or use

# Kernels in the order of preference; soft-RoCE must be among their modules (Debian's cloud kernels have none).
KERNELS="linux-image-6.12-amd64 linux-image-amd64"

# What the guest has over the host's own file system. `a|b`: the first that the release has; `?a`: where there is one.
GUEST_PACKAGES="busybox-static iproute2 rdma-core ibverbs-providers ibverbs-utils rdmacm-utils perftest strace
    libibverbs-dev libibverbs1 librdmacm1|librdmacm1t64 libibumad3 libnl-3-200 libnl-route-3-200 libpci3 libelf1|libelf1t64 libbpf1
    libmnl0 libcap2 libxtables12 libtirpc3|libtirpc3t64 libdb5.3|libdb5.3t64 libbsd0 libmd0 libunwind8"

# Kernel modules that the guest loads, besides those that they depend on.
GUEST_MODULES="rdma_rxe ib_uverbs rdma_ucm rdma_cm veth dummy sch_netem sch_tbf 9p 9pnet_virtio overlay virtio_pci
    crc32c_generic crc32_generic"

hash_of() { sha256sum | cut -c1-16; }

# The release matters: its packages run on its own C library, which is the host's.
release() { sed -n 's/^\(ID\|VERSION_ID\)=//p' /etc/os-release; }

# An apt with lists of its own: needs no root, and leaves the machine's alone.
own_apt() {
    local tool=$1 state=$CACHE/apt
    shift
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    "$tool" -qq -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state" -o APT::Sandbox::User=root \
        -o Acquire::Retries=3 -o Acquire::http::Timeout=60 "$@"
}

# download PACKAGE...: the .deb files into the current folder.
download() {
    own_apt apt-get download "$@" >apt.log 2>&1 || { cat apt.log >&2; fail 2 "could not download: $*"; }
    rm -f apt.log
}

has_package() { own_apt apt-cache show "$1" >/dev/null 2>&1; }

# first_of A|B: the first name that the release has.
first_of() {
    local name names
    IFS='|' read -ra names <<<"$1"
    for name in "${names[@]}"; do
        has_package "$name" && echo "$name" && return
    done
    fail 2 "this release has no package $1 (its sources: /etc/apt/sources.list, /etc/apt/sources.list.d)"
}

fetch_packages() {
    local wanted name metapackage image work=$1
    mkdir -p "$work/debs" "$work/guest/usr/bin" "$work/guest/usr/sbin" "$work/guest/usr/lib"
    cd "$work/debs" || return
    own_apt apt-get update >&2 || fail 2 "apt-get could not fetch the package lists"
    wanted=()
    for name in $GUEST_PACKAGES; do wanted+=("$(first_of "$name")"); done
    for metapackage in $KERNELS; do
        image=$(own_apt apt-cache depends "$metapackage" 2>/dev/null | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
        [[ -z $image ]] || break
    done
    [[ -n $image ]] || fail 2 "this release has none of the kernels $KERNELS"
    say "downloading $image and ${#wanted[@]} packages for the guest"
    download "$image" "${wanted[@]}"
    echo "$image" >"$work/kernel-package"
    mkdir "$work/kernel"
    dpkg -x "$image"_*.deb "$work/kernel"
    rm "$image"_*.deb
    for name in *.deb; do dpkg -x "$name" "$work/guest"; done
    # A real folder /bin, /sbin or /lib would hide the host's links of these names.
    for name in bin sbin lib; do
        [[ -d $work/guest/$name && ! -L $work/guest/$name ]] || continue
        cp -a "$work/guest/$name/." "$work/guest/usr/$name/"
        rm -rf "${work:?}/guest/$name"
    done
    cd "$REPO" || return
    rm -rf "$work/debs"
}

# pack_initramfs KERNEL_TREE OUT: busybox, guest/init, the modules in the order of loading.
pack_initramfs() (
    tree=$1 out=$2
    version=$(basename "$tree"/lib/modules/*)
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root"/{bin,dev,proc,sys,mnt,modules}
    cp "$PACKAGES/guest/usr/bin/busybox" "$root/bin/busybox"
    install -m 755 "$RIG/guest/init" "$root/init"
    depmod -b "$tree" "$version"
    for module in $GUEST_MODULES; do
        modprobe -d "$tree" -S "$version" --show-depends --ignore-install "$module" ||
            say "the kernel has no module $module" # or it is built in: then the guest does without loading it
    done 2>/dev/null | awk '/^insmod/ && !seen[$2]++ {print $2}' >"$root/files"
    while IFS= read -r file; do
        name=$(basename "${file%.xz}")
        case $file in *.xz) xz -dc "$file" >"$root/modules/$name" ;; *) cp "$file" "$root/modules/" ;; esac
        echo "$name" >>"$root/modules/order"
    done <"$root/files"
    rm "$root/files"
    cd "$root" || exit
    find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0 | gzip -1 >"$out"
)

# cached KIND KEY MAKE: the folder $CACHE/KIND-KEY, made by `MAKE FOLDER` if it is not there; its path in $REPLY.
cached() {
    local folder=$CACHE/$1-$2 old
    REPLY=$folder
    if [[ -e $folder/complete ]]; then
        touch "$folder/complete"
        return
    fi
    rm -rf "$folder".making
    mkdir -p "$folder".making
    "$3" "$folder".making
    rm -rf "$folder"
    mv "$folder".making "$folder"
    touch "$folder/complete"
    # What no run has used for two weeks goes.
    while IFS= read -r old; do rm -rf "${old%/complete}"; done < <(
        find "$CACHE" -mindepth 2 -maxdepth 2 -name complete -path "*/$1-*" -mtime +14)
}

make_boot() {
    pack_initramfs "$PACKAGES/kernel" "$1/initramfs.gz"
    cp "$PACKAGES"/kernel/boot/vmlinuz-* "$1/vmlinuz"
}

# Sets PACKAGES (the guest's tools) and BOOT (kernel and initramfs), and with --dmabuf what host/dmabuf.sh makes.
prepare_packages() {
    mkdir -p "$CACHE"
    exec 8>"$CACHE/lock"
    flock -n 8 || { say "another run prepares the kernel and the packages; waiting for it" && flock -w 900 8; } ||
        fail 2 "another run has held $CACHE/lock for 15 minutes"
    local packages_key boot_key
    packages_key=$({ release && echo "$KERNELS" "$GUEST_PACKAGES" && declare -f fetch_packages download own_apt; } | hash_of)
    cached packages "$packages_key" fetch_packages
    PACKAGES=$REPLY
    boot_key=$({ echo "$packages_key" "$GUEST_MODULES" && cat "$RIG/guest/init" && declare -f pack_initramfs make_boot; } | hash_of)
    cached boot "$boot_key" make_boot
    BOOT=$REPLY
    [[ -z $DMABUF ]] || prepare_dmabuf
    flock -u 8
}
