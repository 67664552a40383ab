# Reads counts.csv and samples.csv of suites/perftest.sh; prints the table and writes results.json.
# `spread`: the smallest and the largest ratio of perftest's second run to its first in the same round.
# `verdict`: `better` or `within` (the median lies between the medians' ratios that perftest has with itself) or `worse`.
BEGIN { FS = ","; json = "results.json" }

FILENAME == "counts.csv" {
    if (FNR > 1) {
        calls[$1, $2, $3] = $5 / $4
        packets[$1, $2, $3] = $6 / $4
    }
    next
}
FNR == 1 { next }
{
    key = $2 SUBSEP $3
    if (!(key in seen)) {
        seen[key] = 1
        keys[++count] = key
    }
    samples[key, $4, ++number[key, $4]] = $5
    by_round[key, $4, $1] = $5
    averages[key, $4, number[key, $4]] = $6
    if ($1 > rounds) rounds = $1
    if ($4 == "sapwood") sapwood = 1
}

function median(key, run, values,    i, j, n, t, sorted) {
    n = number[key, run]
    for (i = 1; i <= n; i++) sorted[i] = values[key, run, i] + 0
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && sorted[j - 1] > sorted[j]; j--) { t = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = t }
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}

function per_operation(table, test, point, program) {
    return (test, point, program) in table ? sprintf("%.2f", table[test, point, program]) : "-"
}
function json_number(text) { return text == "-" ? "null" : text }

function list(key, run,    i, text) {
    for (i = 1; i <= number[key, run]; i++) text = text (i > 1 ? ", " : "") samples[key, run, i]
    return "[" text "]"
}

END {
    print ""
    printf "%d rounds, %s; medians; one boot, the programs in turns, the same flags\n", rounds, placed
    printf "%-7s %-9s %-5s %10s %10s %13s", "test", "point", "unit", "perftest", "again", "spread"
    if (sapwood) printf " %10s %6s %-7s", "sapwood", "ratio", "verdict"
    printf " %15s %15s\n", "calls/operation", "packets/operat."
    printf "{\"rounds\": %d, \"placement\": \"%s\", \"results\": [", rounds, placed >json
    for (k = 1; k <= count; k++) {
        key = keys[k]
        split(key, part, SUBSEP)
        test = part[1]; point = part[2]
        unit = point == "latency" ? "us" : point == "bandwidth" ? "MiB/s" : "op/s"
        first = median(key, "perftest", samples)
        again = median(key, "perftest-again", samples)
        low = 0; high = 0
        for (r = 1; r <= rounds; r++) {
            ratio = by_round[key, "perftest-again", r] / by_round[key, "perftest", r]
            # Either of the two may stand above the other.
            if (ratio < 1) ratio = 1 / ratio
            if (ratio > high) high = ratio
        }
        low = 1 / high
        printf "%-7s %-9s %-5s %10.1f %10.1f   %4.2f - %4.2f", test, point, unit, first, again, low, high
        printf "%s\n  {\"test\": \"%s\", \"point\": \"%s\", \"unit\": \"%s\", \"perftest\": %s, \"perftest_again\": %s, \"spread\": [%.4f, %.4f]", \
            (k > 1 ? "," : ""), test, point, unit, list(key, "perftest"), list(key, "perftest-again"), low, high >json
        if (sapwood) {
            mine = median(key, "sapwood", samples)
            ratio = mine / ((first + again) / 2)
            better = point == "latency" ? ratio < 1 : ratio > 1
            verdict = better ? "better" : ratio >= low && ratio <= high ? "within" : "WORSE"
            printf " %10.1f %6.2f %-7s", mine, ratio, verdict
            printf ", \"sapwood\": %s, \"ratio\": %.4f, \"verdict\": \"%s\"", list(key, "sapwood"), ratio, verdict >json
        }
        c = per_operation(calls, test, point, "perftest"); p = per_operation(packets, test, point, "perftest")
        printf ", \"perftest_calls_per_operation\": %s, \"perftest_packets_per_operation\": %s", json_number(c), json_number(p) >json
        if (sapwood) {
            mine_c = per_operation(calls, test, point, "sapwood"); mine_p = per_operation(packets, test, point, "sapwood")
            printf ", \"calls_per_operation\": %s, \"packets_per_operation\": %s", json_number(mine_c), json_number(mine_p) >json
            c = mine_c " (" c ")"; p = mine_p " (" p ")"
        }
        printf "}" >json
        printf " %15s %15s\n", c, p
    }
    printf "\n]}\n" >json
    if (sapwood) print "calls and packets: both sides together, Sapwood (perftest)"
    else print "perftest beside itself; calls and packets: both sides together"
}
