# Sourced by run: builds rdma_rxe with dma-buf registration for the guest's kernel, and the library that lets programs use it.
# shellcheck shell=bash disable=SC2154,SC2034 # variables that run and its other parts set or use

# insert FILE AFTER_LINE TEXT: puts the text after the one line that matches; fails if there is none, or more.
insert() {
    [[ $(grep -c -E "$2" "$1") == 1 ]] || fail 2 "$(basename "$1") has not one line that matches '$2': this kernel's soft-RoCE is another one"
    sed -i -E "/$2/a\\
$3" "$1"
}

make_dmabuf() (
    # shellcheck disable=SC2030
    work=$1 image=$(cat "$PACKAGES/kernel-package")
    version=${image#linux-image-}
    base=${version%-amd64}
    series=$(cut -d. -f1,2 <<<"$version")
    mkdir "$work/debs"
    cd "$work/debs" || exit
    own_apt apt-get update >&2 || fail 2 "apt-get could not fetch the package lists"
    has_package "linux-headers-$version" ||
        fail 2 "the archive has no headers for $version any more: 'rm -r $PACKAGES' has the next run fetch a newer kernel"
    say "downloading the source and headers of $version (170 MB) and building rdma_rxe"
    download "linux-source-$series" "linux-headers-$version" "linux-headers-$base-common" "linux-kbuild-$base"
    for deb in linux-headers*.deb linux-kbuild*.deb; do dpkg -x "$deb" "$work/headers"; done
    dpkg-deb --fsys-tarfile linux-source*.deb | tar xf - -O "./usr/src/linux-source-$series.tar.xz" |
        tar xJf - -C "$work" "linux-source-$series/drivers/infiniband/sw/rxe"
    source=$work/linux-source-$series/drivers/infiniband/sw/rxe
    headers=$work/headers/usr/src/linux-headers-$version

    insert "$source/rxe_verbs.h" '^	struct ib_umem		\*umem;$' '	struct dma_buf *dmabuf;\
	struct iosys_map dmabuf_map;'
    insert "$source/rxe_verbs.h" '^#include <linux\/interrupt.h>$' '#include <linux/iosys-map.h>'
    insert "$source/rxe_loc.h" '^void rxe_mr_cleanup\(' 'void rxe_mr_release_dmabuf(struct rxe_mr *mr);\
struct ib_mr *rxe_reg_user_mr_dmabuf(struct ib_pd *pd, u64 offset, u64 length, u64 iova, int fd, int access,\
				     struct uverbs_attr_bundle *attributes);'
    insert "$source/rxe_verbs.c" '^	\.reg_user_mr = rxe_reg_user_mr,$' '	.reg_user_mr_dmabuf = rxe_reg_user_mr_dmabuf,'
    insert "$source/rxe_mr.c" '^	ib_umem_release\(mr->umem\);$' '	rxe_mr_release_dmabuf(mr);'
    cat "$RIG/dmabuf/registration.c" >>"$source/rxe_mr.c"

    # The packages expect to lie under /usr/src; and a vmlinux beside the headers would ask for pahole.
    sed -i "s#^include .*#include $work/headers/usr/src/linux-headers-$base-common/Makefile#" "$headers/Makefile"
    rm -f "$headers/vmlinux"
    make -C "$headers" M="$source" CONFIG_RDMA_RXE=m CC=gcc modules >"$work/make.log" 2>&1 ||
        { tail -n 20 "$work/make.log" >&2; fail 2 "rdma_rxe with dma-buf registration did not build"; }
    strip -g -o "$work/rdma_rxe.ko" "$source/rdma_rxe.ko"
    gcc -O2 -Wall -shared -fPIC -o "$work/preload.so" "$RIG/dmabuf/preload.c" -ldl
    cd "$work" || exit
    rm -rf debs headers "linux-source-$series"
)

# Sets DMABUF_MODULE and DMABUF_PRELOAD.
prepare_dmabuf() {
    local key
    key=$({ cat "$PACKAGES/kernel-package" "$RIG"/dmabuf/*.c && declare -f make_dmabuf insert; } | hash_of)
    cached dmabuf "$key" make_dmabuf
    DMABUF_MODULE=$REPLY/rdma_rxe.ko
    DMABUF_PRELOAD=$REPLY/preload.so
}
