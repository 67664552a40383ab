#!/usr/bin/env python3
"""Times Gloo's all-reduce (f32, sum, in place) between processes of this host, through torch.distributed.

    python3 gloo.py --ranks 2 8 33554432     # sizes in bytes; one JSON object a line, microseconds

Single calls after a barrier, the slowest rank's time of each, and the median of those. Needs PyTorch (Debian:
python3-torch); says so with status 77 where it is not there.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

try:
    import torch
    import torch.distributed as distributed
    import torch.multiprocessing as processes
except ImportError:
    print("gloo: PyTorch is not installed; on Debian: apt-get install python3-torch", file=sys.stderr)
    sys.exit(77)


def work(rank, ranks, sizes, folder):
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank % len(os.sched_getaffinity(0))]})
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    for size in sizes:
        tensor = torch.zeros(size // 4)
        calls = 200 if size <= 1 << 20 else 20
        times = torch.zeros(calls, dtype=torch.float64)
        for call in range(-5, calls):
            distributed.barrier()
            began = time.perf_counter()
            distributed.all_reduce(tensor)
            if call >= 0:
                times[call] = (time.perf_counter() - began) * 1e6
        distributed.all_reduce(times, op=distributed.ReduceOp.MAX)
        if rank == 0:
            print(json.dumps({"size": size, "p50": round(statistics.median(times.tolist()), 2)}), flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("sizes", type=int, nargs="+")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(work, (arguments.ranks, arguments.sizes, folder), nprocs=arguments.ranks)
