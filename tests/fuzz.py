"""Mutated inputs: each ends in the right result or in one sentence, never in another exception, and never in silence.

    python tests/fuzz.py                      2000 cases
    python tests/fuzz.py 500 --kind card      so many of one kind
    python tests/fuzz.py --kind card --case 7 that one alone, with its traceback

A case is a kind and a number, from which all that is random about it follows.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path

import fuzz_files
import fuzz_texts
import numpy as np

KINDS = {**fuzz_files.KINDS, **fuzz_texts.KINDS}
LIMIT = 60  # s, after which a case hangs


class Hangs(BaseException):
    """Not an Exception, so that nothing on the way takes it for a bad file."""


def cases(n, kind=None):
    """The first n cases: kinds in the ratio of their weights, each with its numbers from 0."""
    if kind is not None:
        return [(kind, i) for i in range(n)]
    shares = np.array([weight for _, weight in KINDS.values()], float)
    turns = np.random.default_rng(0).choice(len(KINDS), n, p=shares / shares.sum())
    seen = Counter()
    out = []
    for turn in turns:
        name = list(KINDS)[turn]
        out.append((name, seen[name]))
        seen[name] += 1
    return out


def run_case(kind, number, root):
    """Run one case in a folder of its own; a fault raises."""
    folder = root / f"{kind.replace(' ', '_')}-{number}"
    folder.mkdir(parents=True)
    KINDS[kind][0](np.random.default_rng([number, zlib.crc32(kind.encode())]), folder)


def _hangs(*_):
    raise Hangs(f"still at it after {LIMIT} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="?", type=int, default=2000)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--case", type=int)
    args = parser.parse_args()
    warnings.simplefilter("error")
    signal.signal(signal.SIGALRM, _hangs)
    asked = cases(args.cases, args.kind) if args.case is None else [(args.kind, args.case)]
    faults, seconds = [], Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(folder)
        for kind, number in asked:
            started = time.monotonic()
            signal.alarm(LIMIT)
            try:
                run_case(kind, number, root)
            except (Exception, Hangs) as error:
                frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
                at = " > ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[-3:])
                faults.append(kind)
                print(
                    f"{kind} {number}: {type(error).__name__}: {' '.join(str(error).split())[:300]} ({at})", flush=True
                )
                if args.case is not None:
                    traceback.print_exc()
            finally:
                signal.alarm(0)
            seconds[kind] += time.monotonic() - started
    for kind, n in Counter(kind for kind, _ in asked).items():
        print(f"{kind:16}{n:6} cases{faults.count(kind):5} faults{seconds[kind]:8.1f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
