"""A search of nine windows and five folds, 45 trainings, with one and with two workers: the same scores, and the time of each.

python benchmarks/trainings.py                  # CATHODE on toy dijets
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import resonant_toys as toys

from coffea_ad import resonant
from coffea_ad.running.clusters.config import load_cluster


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="cathode")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    data = toys.data(args.rows, 300, seed=1)
    windows = [w.model_copy(update={"outer_low": 2500}) for w in resonant.windows_of("lhco")]
    tasks = resonant.tasks_of(args.method, resonant.Settings(), windows, k=5, salt="s", seed=1, template_rows=4000)
    results, seconds = {}, {}
    for workers in args.workers:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            trained, left_out = resonant.search(
                tasks, {"data": data}, Path(folder), cluster=load_cluster("local", workers=workers)
            )
            seconds[workers] = time.perf_counter() - start
        assert not trained.failed, trained.failed
        assert not left_out, left_out
        results[workers] = trained.members
        print(f"{len(trained.members)} trainings with {workers} worker(s): {seconds[workers]:.1f} s", flush=True)
    first = results[args.workers[0]]
    for workers in args.workers[1:]:
        same = all(
            np.array_equal(first[n].score, m.score) and first[n].data == m.data for n, m in results[workers].items()
        )
        print(f"{workers} workers against {args.workers[0]}: {'the same' if same else 'OTHER'} scores and graphs, "
              f"{seconds[args.workers[0]] / seconds[workers]:.2f} times as fast")  # fmt: skip


if __name__ == "__main__":
    main()
