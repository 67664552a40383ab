#!/usr/bin/env python3
"""Times `sapwood bench` and an MPI library's collectives in turn on the same cores and prints the ratios.

    benches/peers/compare.py [--sapwood PATH] [--ranks 2,4] [--rounds 3] [--most 8388608] [COLLECTIVE ...]

Needs mpicc and mpirun (Debian: openmpi-bin libopenmpi-dev). Rows up to 8 KiB are judged by batches of 1,000 calls, since
the barrier before each single call takes as long as the call; larger ones by the median call. What is printed is the
median over the rounds; above 1 we are slower. A machine that others use meanwhile gives no figures worth keeping.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COLLECTIVES = ["all-gather", "reduce-scatter", "broadcast", "all-to-all", "all-reduce", "barrier"]
HERE = Path(__file__).resolve().parent


def build(folder):
    program = Path(folder) / "collectives"
    subprocess.run(["mpicc", "-O3", "-o", program, HERE / "collectives.c"], check=True)
    return program


def theirs(program, collective, ranks, most):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    command = ["mpirun", "-n", str(ranks)]
    crowded = ranks > os.cpu_count()
    command += ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1"] if crowded else ["--bind-to", "core"]
    if not crowded:
        command += ["--use-hwthread-cpus"]
    command += [str(program), collective, "8", str(most)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    rows = [line.split() for line in said.splitlines() if line and line[0].isdigit()]
    return [(int(size), float(batch) or float(single)) for size, single, batch in rows]


def ours(program, collective, ranks, most):
    command = [program, "bench", collective, "--ranks", str(ranks), "-b", "8", "-e", str(most), "-f", "4"]
    command += ["-n", "200", "-w", "20", "--json", "-"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = [(row["size"], row["out_of_place"]) for row in json.loads(said)["results"]]
    return [(size, figure["batch"] or figure["time"]) for size, figure in figures]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collectives", nargs="*", metavar="COLLECTIVE", help=", ".join(COLLECTIVES))
    parser.add_argument("--sapwood", default=str(HERE.parent.parent / "target/release/sapwood"))
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=8 << 20)
    arguments = parser.parse_args()
    unknown = set(arguments.collectives) - set(COLLECTIVES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(COLLECTIVES)}")
    slower = 0
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        print(f"{'collective':>16} {'ranks':>5} {'size(B)':>9} {'ours(us)':>10} {'theirs(us)':>10} {'ratio':>6}")
        for collective in arguments.collectives or COLLECTIVES:
            for ranks in map(int, arguments.ranks.split(",")):
                times = {}
                for _ in range(arguments.rounds):
                    for side, run in (0, ours), (1, theirs):
                        tool = arguments.sapwood if side == 0 else program
                        for number, (size, time) in enumerate(run(tool, collective, ranks, arguments.most)):
                            times.setdefault(number, (size, [], []))[1 + side].append(time)
                for size, mine, other in times.values():
                    mine, other = statistics.median(mine), statistics.median(other)
                    ratio = mine / other
                    slower += ratio > 1.2
                    mark = " <" if ratio > 1.2 else ""
                    print(f"{collective:>16} {ranks:>5} {size:>9} {mine:>10.3f} {other:>10.3f} {ratio:>6.2f}{mark}", flush=True)
    print(f"{slower} rows are more than 1.2 times slower")
    return slower != 0


if __name__ == "__main__":
    sys.exit(main())
