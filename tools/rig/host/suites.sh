# Sourced by run: which suites there are, and what the '# rig:' lines at the head of each ask for.
# shellcheck shell=bash disable=SC2154,SC2034 # variables that run and its other parts set or use

# suite_setting NAME KEY: what the suite's head says after '# rig: KEY', all such lines joined; nothing if it has none.
suite_setting() {
    sed -n "1,30s/^# rig: $2 *//p" "$RIG/suites/$1.sh" | tr '\n' ' ' | sed 's/ *$//'
}

# suite_has NAME KEY: whether the head has a '# rig: KEY' line at all (for settings without a value).
suite_has() {
    sed -n 1,30p "$RIG/suites/$1.sh" | grep -q "^# rig: $2\b"
}

suite_timeout() {
    local own
    own=${SUITE_TIMEOUT:-$(suite_setting "$1" timeout)}
    printf '%s\n' "${own:-300}"
}

# How many packets must cross the veth pair while the suite runs.
suite_packets() {
    local own
    own=$(suite_setting "$1" packets)
    printf '%s\n' "${own:-50}"
}

# One line of the head that is not understood would be ignored in silence: refuse it.
check_head() {
    local line
    while IFS= read -r line; do
        case $line in
        '# rig: timeout '[1-9]* | '# rig: packets '[0-9]* | '# rig: builds '* | '# rig: slow'* | '# rig: needs dmabuf') ;;
        *) fail 2 "suites/$1.sh: '$line' is not understood; known: timeout S, packets N, builds WHAT, slow, needs dmabuf" ;;
        esac
    done < <(sed -n 1,30p "$RIG/suites/$1.sh" | grep '^# rig:' || true)
}

all_suites() {
    local file
    for file in "$RIG"/suites/*.sh; do
        basename "$file" .sh
    done
}

list_suites() {
    local name
    printf '%-22s %8s %8s  %s\n' suite timeout packets notes
    while IFS= read -r name; do
        check_head "$name"
        printf '%-22s %8s %8s  %s\n' "$name" "$(suite_timeout "$name")" "$(suite_packets "$name")" \
            "$(suite_has "$name" slow && echo 'slow ')$(suite_has "$name" needs && echo "needs --$(suite_setting "$name" needs) ")$(
                sed -n 2p "$RIG/suites/$name.sh" | sed 's/^# *//')"
    done < <(all_suites)
}

# Fills `suites`; the suites that need the patched module run last, because the module is exchanged only once.
choose_suites() {
    local name every=() first=() last=()
    mapfile -t every < <(all_suites)
    if ((${#suites[@]} == 0)); then
        for name in "${every[@]}"; do
            [[ -n $FAST ]] && suite_has "$name" slow && continue
            suites+=("$name")
        done
    fi
    for name in "${suites[@]}"; do
        [[ -f $RIG/suites/$name.sh ]] || fail 2 "there is no suite '$name'; there are: ${every[*]}"
        check_head "$name"
        if suite_has "$name" needs; then last+=("$name"); else first+=("$name"); fi
    done
    suites=("${first[@]}" "${last[@]}")
}
