# Sourced by run: boots the guest, watches it, prints the table.
# shellcheck shell=bash disable=SC2154,SC2034 # variables that run and its other parts set or use

QEMU='' FOLLOWER='' GUEST_DIED=''
BOOTS=3  # attempts
DEATHS=2 # of guests in which suites ran, after which the rest is not tried again

stop_guest() {
    [[ -z $QEMU ]] || kill -9 "$QEMU" 2>/dev/null || true
    [[ -z $FOLLOWER ]] || kill "$FOLLOWER" 2>/dev/null || true
}

# start_guest ACCELERATOR...
start_guest() {
    rm -f "$OUT/.rig/events" "$OUT/.rig/output" "$OUT/console.log"
    : >"$OUT/.rig/events"
    : >"$OUT/.rig/output"
    : >"$OUT/qemu.log"
    chmod 666 "$OUT/.rig/events" "$OUT/.rig/output"
    qemu-system-x86_64 "$@" -cpu max,la57=off -smp "$SMP" -m "$MEMORY" -nodefaults -nographic -no-reboot \
        -serial "file:$OUT/console.log" -monitor none -kernel "$BOOT/vmlinuz" -initrd "$BOOT/initramfs.gz" \
        -append "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off tsc=reliable no_timer_check" \
        -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap" \
        -virtfs "local,path=$PACKAGES/guest,mount_tag=packages,security_model=none,readonly=on" \
        -virtfs "local,path=$OUT,mount_tag=out,security_model=none" </dev/null >"$OUT/qemu.log" 2>&1 8>&- 9>&- &
    QEMU=$!
    disown "$QEMU" # its death is watched here; bash need not report it
}

running() { kill -0 "$QEMU" 2>/dev/null; }

# wait_for_boot SECONDS: until the guest says so, it is dead, or the time is over.
wait_for_boot() {
    local until=$((SECONDS + $1))
    while ((SECONDS < until)) && running; do
        grep -q '^booted' "$OUT/.rig/events" && return
        ! grep -q 'KVM internal error' "$OUT/qemu.log" || return 1
        sleep 0.2
    done
    grep -q '^booted' "$OUT/.rig/events"
}

# What the guest's kernel and QEMU said last.
show_console() {
    tail -n "${1:-15}" "$OUT/qemu.log" | sed 's/^/qemu | /' >&2
    [[ ! -e $OUT/console.log ]] || tail -n "${1:-15}" "$OUT/console.log" | tr -d '\r' | sed 's/^/console | /' >&2
}

boot() {
    local emulated=(-accel "tcg,thread=multi,tb-size=512") began=$SECONDS how=emulated
    # A container may have a /dev/kvm with which nothing boots: that is found out once for each boot of this machine.
    local useless=$CACHE/kvm-boots-nothing machine
    machine=$(cat /proc/sys/kernel/random/boot_id)
    if [[ -z $EMULATE && -r /dev/kvm && -w /dev/kvm && $(cat "$useless" 2>/dev/null) != "$machine" ]]; then
        how="with /dev/kvm"
        start_guest -accel kvm
        if ! wait_for_boot 30; then
            kill -9 "$QEMU" 2>/dev/null || true
            say "/dev/kvm is there, but no guest boots with it within 30 s; emulating"
            echo "$machine" >"$useless"
            how=emulated
            start_guest "${emulated[@]}"
        fi
    else
        start_guest "${emulated[@]}"
    fi
    # Emulated processors that run while the kernel rewrites its own code die of that now and then, most often in the boot.
    local tries
    for ((tries = 1; tries < BOOTS; tries++)); do
        wait_for_boot "$BOOT_TIMEOUT" || running || {
            say "the guest died while it booted (attempt $tries of $BOOTS); once more"
            start_guest "${emulated[@]}"
        }
    done
    if ! wait_for_boot "$BOOT_TIMEOUT"; then
        show_console 40
        if running; then fail 1 "the guest did not boot within $BOOT_TIMEOUT s"; else fail 1 "the guest died while it booted"; fi
    fi
    say "the guest runs $(sed -n 's/^booted //p' "$OUT/.rig/events"), $how, $SMP processors, booted in $((SECONDS - began)) s"
}

# Until the guest has finished; ends it where it died, or does not end a suite that is over its time (it should itself).
watch_guest() {
    local last='' suite began=$SECONDS limit
    while running; do
        suite=$(tail -n 1 "$OUT/.rig/events")
        [[ $suite != finished ]] || break
        if [[ $suite != "$last" ]]; then
            last=$suite
            began=$SECONDS
        fi
        case $suite in
        "start "*) limit=$(($(suite_timeout "${suite#start }") + 120)) ;;
        *) limit=120 ;;
        esac
        if ((SECONDS - began > limit)); then
            say "the guest has been at '$suite' for $limit s and does not answer: ending it"
            GUEST_DIED=1
            kill -9 "$QEMU" 2>/dev/null || true
        fi
        sleep 0.3
    done
    local tries
    for ((tries = 0; tries < 50; tries++)); do
        running || break
        sleep 0.1
    done
    kill -9 "$QEMU" 2>/dev/null || true
    QEMU=''
    grep -q '^finished' "$OUT/.rig/events" || GUEST_DIED=1
}

# print_table: from the events; its status is 1 if a suite failed or did not run.
print_table() {
    local name word seconds packets why total=0 bad=0 moving=0 should=''
    printf '\n%-22s %-8s %8s %10s\n' suite result seconds packets
    for name in "${suites[@]}"; do
        why=''
        if ! read -r _ _ word seconds packets why < <(grep "^end $name " "$OUT/.rig/ended"); then
            word=failed seconds=- packets=-
            if [[ ${died_in[*]} == *" $name "* ]]; then why="the guest died in it"; else why="it did not run"; fi
        fi
        [[ $word != failed ]] || bad=1
        [[ $word == skipped || $(suite_packets "$name") == 0 ]] || should=1
        [[ $packets == - ]] || moving=$((moving + packets))
        [[ $seconds == - ]] || total=$((total + seconds))
        printf '%-22s %-8s %8s %10s%s\n' "$name" "$word" "$seconds" "$packets" "${why:+  $why}"
    done
    printf '%-22s %-8s %8s %10s\n' "" "" "$total" "$moving"
    if [[ -n $should && $moving == 0 ]]; then
        say "FAILED: no packet crossed the veth pair: nothing of this was tested on the devices"
        bad=1
    fi
    if [[ -n $GUEST_DIED ]]; then
        say "FAILED: the guest died"
        bad=1
    elif ((${#died_in[@]})); then
        say "NOTE: a guest died in:${died_in[*]}(passed in the next one)"
    fi
    return $bad
}

# run_in_a_guest SUITE...
run_in_a_guest() {
    local name
    for name; do
        printf '%s %s %s %s\n' "$name" "$(suite_timeout "$name")" "$(suite_packets "$name")" "$(suite_setting "$name" needs)"
    done >"$OUT/.rig/suites"
    GUEST_DIED=''
    boot
    tail -n +1 -s 0.2 -f "$OUT/.rig/output" 8>&- 9>&- &
    FOLLOWER=$!
    watch_guest
    sleep 0.5
    kill "$FOLLOWER" 2>/dev/null || true
    wait "$FOLLOWER" 2>/dev/null || true
    FOLLOWER=''
}

# Emulation dies of itself now and then, a suite that kills the guest does it again: what has not ended is tried once more,
# and the table says so. Fills `left` and `died_in`; its status is 1 where trying again is pointless.
after_a_death() {
    local name last
    last=$(sed -n 's/^start //p' "$OUT/.rig/events" | tail -n 1)
    show_console 40
    left=()
    for name in "${suites[@]}"; do
        grep -q "^end $name " "$OUT/.rig/ended" || left+=("$name")
    done
    [[ ${died_in[*]} != *" $last "* ]] || { died_in+=(" $last ") && return 1; }
    died_in+=(" $last ")
    ((${#left[@]})) && ((${#died_in[@]} < DEATHS + 1)) || return 1
    [[ ! -e $OUT/$last ]] || { rm -rf "$OUT/$last.died" && mv "$OUT/$last" "$OUT/$last.died"; }
    say "the guest died in '$last': once more, in another guest, with what has not ended (its log is kept in $OUT/$last.died)"
}

boot_and_watch() {
    local name bad=0
    mkdir -p "$OUT/.rig"
    {
        printf 'RIG=%q\nREPO=%q\nOUT=%q\nSAPWOOD_BIN=%q\n' "$RIG" "$REPO" "$OUT" "$SAPWOOD_BIN"
        printf 'DMABUF_MODULE=%q\nDMABUF_PRELOAD=%q\n' "${DMABUF_MODULE:-}" "${DMABUF_PRELOAD:-}"
        for name in "${variables[@]}"; do printf 'export %s=%q\n' "${name%%=*}" "${name#*=}"; done
    } >"$OUT/.rig/guest"
    : >"$OUT/.rig/ended"
    trap stop_guest EXIT
    trap 'exit 130' INT TERM
    local died_in=() left=("${suites[@]}")
    while :; do
        run_in_a_guest "${left[@]}"
        grep '^end ' "$OUT/.rig/events" >>"$OUT/.rig/ended" || true
        [[ -n $GUEST_DIED ]] || break
        after_a_death || break
    done
    print_table || bad=1
    if grep -qE 'BUG:|Oops|general protection|RIP:' "$OUT/console.log"; then
        say "the guest's kernel complained; see $OUT/console.log"
    fi
    ((bad == 0)) || say "logs and results: $OUT/SUITE"
    exit "$bad"
}
