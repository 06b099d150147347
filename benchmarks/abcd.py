"""Does the ABCD estimate close on simulated QCD, tt̄, W and Z? In pseudo-experiments, as simulated and without correlation.

    python benchmarks/abcd.py                        # simulates 38 000 events on the first call, about ten minutes
    python benchmarks/abcd.py --lumi 1 --seed 2

pT-hat of at least 350 GeV (QCD) or 250 GeV; the search `semivisible_jets` without cuts on missing momentum and its direction, since that is the second
variable here. An experiment draws data as Poisson numbers in each cell and bin, and a simulation of its own with as many
effective events as the simulated sample has. Uncorrelated: the expected numbers of each cell have
the spectrum of all. Corrected: by κ of the simulation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import hist
import numpy as np

from coffea_ad.results import Results, load_results
from coffea_ad.running import run
from coffea_ad.search.abcd import abcd
from coffea_ad.search.abcd_counts import Yield, estimate
from coffea_ad.search.abcd_scan import scan_cuts
from coffea_ad.simulation import simulate

SAMPLES = {"qcd": (20_000, 350.0), "ttbar": (8_000, 250.0), "wjets": (5_000, 250.0), "zjets": (5_000, 250.0)}
LOOSER = ["met_min=null", "rt_min=null", "dphi_max=null", "triggers=[]", "top_events=0", "jet_scale=0"]
PLANES = (("loose_1tag", 90.0), ("loose_1tag", 150.0), ("loose_2tag", 60.0), ("medium_1tag", 90.0))
MODEL = Path(__file__).parents[1] / "tests" / "data" / "wnae.onnx"


def searched(folder, model, seed):
    """Return the results of the search at 1/fb; what is there already is not made again."""
    if not (folder / "results" / "report.json").exists():
        fileset = {}
        for i, (process, (n, pthat)) in enumerate(SAMPLES.items()):
            path, record_of = folder / f"{process}.root", folder / f"{process}.json"
            if not record_of.exists():
                record = simulate(process, n, path, seed=seed + i, parameters={"pthat_min": pthat})
                record_of.write_text(json.dumps(record))
            xsec = json.loads(record_of.read_text())["cross_section"]
            fileset[process] = {
                "files": {str(path.resolve()): "Events"},
                "metadata": {"is_mc": True, "xsec": xsec, "year": "2018"},
            }
        run(fileset, "semivisible_jets", model=model, executor="iterative", output=folder / "results", lumi=1.0,
            overrides=LOOSER, force=True)  # fmt: skip
    return load_results(folder / "results")


def toy(of_processes, regions, lumi, rng, truth):
    """Return results of one pseudo-experiment: data, and a simulation that fluctuates as the simulated samples do."""
    axes = next(iter(of_processes.values())).axes
    views = {name: h.view(flow=True) for name, h in of_processes.items()}
    expected = {name: np.maximum(view["value"], 0) for name, view in views.items()}
    total = sum(expected.values())
    content = {}
    if truth == "uncorrelated":  # each cell has the spectrum and the processes of all
        independent = total.sum(axis=0, keepdims=True) * total.sum(axis=2, keepdims=True) / total.sum()
        expected = {name: independent * value.sum() / total.sum() for name, value in expected.items()}
        total = independent
    for name, value in expected.items():
        events, variance = np.maximum(views[name]["value"], 0), views[name]["variance"]
        mean = variance.sum() / events.sum()  # of bins without events, and where processes are mixed
        own = truth != "uncorrelated"
        weight = np.divide(variance, events, out=np.full_like(events, mean), where=(events > 0) & own)
        simulated = rng.poisson(value / weight) * weight
        content[name] = (lumi * simulated, lumi**2 * simulated * weight)
    counts = rng.poisson(total * lumi)
    histograms = {}
    for name, (value, variance) in {"data": (counts, counts), **content}.items():
        h = hist.Hist(*axes, storage=hist.storage.Weight())
        h.view(flow=True)["value"], h.view(flow=True)["variance"] = value, variance
        histograms[name] = {"met": h}
    entry = {"lumi": 1e-3, "sumw": 1.0, "events": 1, "files": {}, "failed": [], "regions": regions}
    datasets = {name: {**entry, "metadata": {"is_mc": name != "data", "xsec": 1.0}} for name in histograms}
    return Results(histograms, {"datasets": datasets, "lumi": 1e-3, "processor": "toy", "models": []})


def coverage(rng, experiments=20_000):
    """Print how often the statistical interval holds the truth."""
    for lam in ((4, 5, 10), (10, 12, 40), (100, 80, 400)):
        e = estimate(*(Yield.of(rng.poisson(x, experiments)) for x in lam))
        true = lam[0] * lam[1] / lam[2]
        part = np.mean((e.low <= true) & (true <= e.high))
        error = np.sqrt(part * (1 - part) / experiments)
        print(f"  {', '.join(map(str, lam))} events expected in B, C, D: {part:.4f} ± {error:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/abcd"))
    parser.add_argument("--model", type=Path, default=MODEL, help="with regions loose and medium")
    parser.add_argument("--lumi", type=float, default=0.1, help="1/fb, of the pseudo-experiments")
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    results = searched(args.output, args.model, args.seed)
    of_processes = {d: results.histograms[d]["met"] * results.norm(d) for d in results.histograms}
    assert all(list(h.axes["variation"]) == ["nominal"] for h in of_processes.values())
    regions = {name: sorted(cells) for name, cells in results.regions.items()}
    print("1σ of statistics holds the truth:")
    coverage(np.random.default_rng(args.seed))
    print("simulation at 1/fb, cuts in met:")
    for region in dict.fromkeys(name for name, _ in PLANES):
        for p in scan_cuts(results, "met", region, (60, 90, 150)):
            print(
                f"  {region:<12} {p.cut:>4g}  N_A = {p.simulated:8.1f}  N_B N_C/N_D = {p.expected:8.1f}  "
                f"κ = {p.kappa.value:.2f} ± {p.kappa.error:.2f}"
            )
    print(f"{args.experiments} pseudo-experiments at {args.lumi:g}/fb, seed {args.seed}:")
    for truth, correct in (("uncorrelated", False), ("as simulated", False), ("as simulated", True)):
        for region, cut in PLANES:
            rng = np.random.default_rng(args.seed)
            out, said = [], []
            for _ in range(args.experiments):
                e = abcd(
                    toy(of_processes, regions, args.lumi, rng, truth), "met", region, cut, correct=correct, unblind=True
                )
                value, low, high = (float(x) for x in (e.estimate.value, e.estimate.low, e.estimate.high))
                statistical = np.hypot(high - value if e.observed > value else value - low, np.sqrt(value))
                closure = np.log1p(e.closure_errors[1])
                out.append((e.significance, (e.observed - value) / statistical, closure, e.observed, value))
                said.append(any(c.significant for c in e.correlations))
            z, pull, closure, observed, value = np.array(out).T
            n = len(z)
            within = np.mean(np.abs(z) < 2)
            print(
                f"  {truth + (', corrected' if correct else ''):<23} {region:<12} {cut:>4g}  observed {observed.mean():7.1f}, estimate {np.nanmean(value):7.1f}, closure "
                f"{np.nanmean(closure):.2f};  |Z| < 2: {within:.3f} ± {np.sqrt(within * (1 - within) / n):.3f}, < 1: "
                f"{np.mean(np.abs(z) < 1):.3f};  statistics alone < 2: {np.mean(np.abs(pull) < 2):.3f};  "
                f"called correlated: {np.mean(said):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
