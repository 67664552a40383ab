# Sourced by run: builds on the host what the suites ask for, into $SAPWOOD_BIN, a folder of links. The guest sees the
# host's files at the same paths, so they run in it unchanged.
# shellcheck shell=bash disable=SC2154,SC2034 # variables that run and its other parts set or use

# link_executables FILTER: reads cargo's JSON messages; links each executable whose kind matches, under its target's name.
# A library's unit tests go by the package with -lib behind it.
link_executables() {
    local kind name path
    while read -r kind name path; do
        [[ $kind =~ ^($1)$ ]] || continue
        [[ $kind != lib ]] || name=${name//_/-}-lib
        ln -sfn "$path" "$SAPWOOD_BIN/$name"
    done < <(sed -nE 's/.*"target":\{"kind":\["([a-z-]+)"[^]]*\],"crate_types":\[[^]]*\],"name":"([^"]+)".*"executable":"([^"]+)".*/\1 \2 \3/p')
}

# cargo_links FILTER ARGUMENT...: one cargo call; its messages for people go to stderr.
cargo_links() {
    local filter=$1 messages
    shift
    messages=$(mktemp)
    say "cargo $*"
    if ! (cd "$REPO" && cargo "$@" --locked --message-format=json-render-diagnostics) >"$messages"; then
        rm -f "$messages"
        fail 2 "this failed: cargo $*"
    fi
    link_executables "$filter" <"$messages"
    rm -f "$messages"
}

build_binaries() {
    local name what wanted=() tests=() examples=() library=()
    for name in "${suites[@]}"; do
        read -ra what <<<"$(suite_setting "$name" builds)"
        wanted+=("${what[@]}")
    done
    ((${#wanted[@]})) || return 0
    [[ -n $BUILD ]] || { say "taking the binaries in $SAPWOOD_BIN as they are" && return; }
    command -v cargo >/dev/null || fail 2 "'cargo' is missing: install Rust from https://rustup.rs"
    find "$SAPWOOD_BIN" -type l -delete
    mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)
    for what in "${wanted[@]}"; do
        case $what in
        sapwood) cargo_links bin build --release --bin sapwood ;;
        test:*) tests+=(--test "${what#test:}") ;;
        lib:*) library=(--lib) ;;
        example:*) examples+=(--example "${what#example:}") ;;
        workspace:*) cargo_links bin build --release --manifest-path "${what#workspace:}/Cargo.toml" ;;
        workspace-tests:*) cargo_links "test|lib" test --no-run --release --manifest-path "${what#workspace-tests:}/Cargo.toml" ;;
        *) fail 2 "no suite can ask for '$what' to be built; known: sapwood test:NAME lib:PACKAGE example:NAME workspace:DIR workspace-tests:DIR" ;;
        esac
    done
    # As .ci/run builds them (the whole workspace), so that nothing is built twice.
    tests=("${library[@]}" "${tests[@]}")
    ((${#tests[@]} == 0)) || cargo_links "test|lib" test --no-run --workspace "${tests[@]}"
    ((${#examples[@]} == 0)) || cargo_links "example" build --release "${examples[@]}"
}
