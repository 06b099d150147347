"""Size of a results folder, and the time to write, read and sum it.

    python benchmarks/results_folder.py [--datasets 18] [--variations 21] [--models 3] [--regions 3] [--events 20000] [--seed 1]

Histograms are those of the search for semivisible jets: five observables and `ad_logp` of each model over cells and variations, and
the mass against the score of each model, nominal. Every dataset has so many events, with weights of its own in every variation, so
that no two numbers are alike and little can be compressed. "JSON" is the same as `histograms.json` of the former folders.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import hist
import numpy as np
import uhi.io.json
from rich.console import Console
from rich.table import Table

from coffea_ad import histograms
from coffea_ad.results.folder import load_results, save_results
from coffea_ad.results.root_export import write_root
from coffea_ad.scoring import regions
from coffea_ad.scoring.specs import RegionSpec

_TOP = {"mt": 5000.0, "mjj": 5000.0, "met": 1500.0, "ht": 4000.0, "msoftdrop": 400.0}


def filled(
    rng: np.random.Generator, n: int, variations: list[str], cells: dict[str, list[str]], k: int
) -> dict[str, hist.Hist]:
    """Return the histograms of one dataset."""
    everything = [cell for of in cells.values() for cell in of]
    places = {p: np.array(of)[regions.cells_of(rng.choice(k + 1, (n, 2), p=grades(k)), k)] for p, of in cells.items()}
    weight = {v: rng.normal(1, 0.1, n) for v in variations}
    logp = {f"{p or 'ad_'}logp": rng.exponential(0.43, n) for p in cells}
    out = {}
    for name, top in {**_TOP, **dict.fromkeys(logp, 4.4)}.items():
        axis = hist.axis.Regular(50 if name in _TOP else 44, 0, top, name=name)
        out[name] = histograms.book([axis], everything, variations)
        for variation, w in weight.items():
            x = logp[name] if name in logp else rng.exponential(top / 6, n)
            for place in places.values():
                histograms.fill(out[name], place, variation, {name: x}, w)
    for name, score in logp.items():
        axes = [hist.axis.Regular(50, 0, _TOP["mt"], name="mt"), hist.axis.Regular(44, 0, 4.4, name=f"{name}_min")]
        plane = out[f"mt-{name}_min"] = histograms.book(axes, everything, ["nominal"])
        x = {"mt": rng.exponential(800, n), f"{name}_min": score}
        for place in places.values():
            histograms.fill(plane, place, "nominal", x, weight["nominal"])
    return out


def grades(k: int) -> list[float]:
    """Return how often a jet of background passes 0 … k thresholds of efficiencies 10⁻¹ … 10⁻ᵏ."""
    eps = [10.0**-i for i in range(k + 1)]
    return [a - b for a, b in zip(eps, [*eps[1:], 0.0], strict=True)]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("datasets", 18),
        ("variations", 21),
        ("models", 3),
        ("regions", 3),
        ("events", 20000),
        ("seed", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    rng, k = np.random.default_rng(args.seed), args.regions
    variations = ["nominal", *(f"s{i // 2}{('Up', 'Down')[i % 2]}" for i in range(args.variations - 1))]
    cells = {
        p: [p + c for c in regions.cell_names(k, jets=True)]
        for p in ["", *(f"ad{i}_" for i in range(2, args.models + 1))]
    }
    spec = [
        RegionSpec(
            name=f"wp{i}", efficiency=10.0**-i, thresholds=(float(i),), error=0, n_effective=99, derived_from="toy"
        )
        for i in range(1, k + 1)
    ]
    named = {p + r: sorted(p + c for c in of) for p in cells for r, of in regions.definitions(spec, jets=True).items()}
    content = {f"d{i}": filled(rng, args.events, variations, cells, k) for i in range(args.datasets)}
    entry = {
        "metadata": {"is_mc": True, "xsec": 1.0},
        "sumw": 1.0,
        "events": 1,
        "lumi": 1.0,
        "files": {},
        "failed": [],
        "regions": named,
    }
    report = {"datasets": dict.fromkeys(content, entry), "lumi": 1.0, "notes": [], "throughput": {}, "key": {}}
    table = Table(
        "",
        "s",
        "CPU s",
        "MB",
        title=f"{args.datasets} datasets × {len(variations)} variations × {args.models} models, {args.events} events each",
    )
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name) / "r", Path(name) / "shapes.root"
        for what, work in (
            ("write the folder", lambda: save_results(content, report, folder)),
            ("read it", lambda: load_results(folder)),
            ("read it and sum all regions", lambda: load_results(folder).in_regions),
            ("export mt to ROOT", lambda: write_root(load_results(folder), root, observables=["mt"])),
        ):
            start, cpu = time.perf_counter(), time.process_time()
            work()
            seconds = (f"{time.perf_counter() - start:.2f}", f"{time.process_time() - cpu:.2f}")
            size = (
                sum(p.stat().st_size for p in folder.iterdir())
                if "write" in what
                else root.stat().st_size
                if "ROOT" in what
                else 0
            )
            table.add_row(what, *seconds, f"{size / 1e6:.1f}" if size else "")
    start, cpu = time.perf_counter(), time.process_time()
    text = json.dumps(content, default=uhi.io.json.default)
    table.add_row(
        "the same as JSON",
        f"{time.perf_counter() - start:.2f}",
        f"{time.process_time() - cpu:.2f}",
        f"{len(text) / 1e6:.1f}",
    )
    Console().print(table)


if __name__ == "__main__":
    main()
