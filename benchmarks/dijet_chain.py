"""The resonant search from files to a significance: QCD dijets with an injected W' → skim → trainings on dask → m_JJ against its expectation.

    python benchmarks/dijet_chain.py --files FOLDER        # with qcd_*.root and signal.root, else they are simulated
    python benchmarks/dijet_chain.py --methods cathode --seeds 4 5 --signal-only --keep FOLDER

All steps but the simulation are those of the command line. Data are 50 000 QCD events with p̂T above 850 GeV and, with signal,
so many events of W' → X Y of 2.4 TeV that S = 2 √B in its window before any cut; seeds choose these events and all trainings,
and the first one is also searched without signal.
Shown for every window and region: events, what the template leads one to expect, corrected by how it does in the sidebands, and the
significance; beside it the same count with the best single cut on an input, at the efficiency of the same template. The
exit code is 1 unless the window of the signal has more than 4σ in a region with signal, and nothing else has 3σ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import awkward as ak
import numpy as np
import uproot

import coffea_ad as ad
from coffea_ad.evaluation.counting import count_significance
from coffea_ad.plotting import canvas
from coffea_ad.resonant.calibrating import excess_of
from coffea_ad.resonant.members import Member
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.reading import load_skim

FIGURE = Path(__file__).parent.parent / "docs" / "images" / "dijet_resonance.png"
EDGES = (2200, 2500, 2900)  # of the windows; the signal is in the first
OUTER = (1900, 3800)  # below, the cut on p̂T shapes the jets
RIGHT = 0
FILES, EVENTS = 5, 10_000
# for a few thousand rows: sidebands in which jets are still alike, and a density that does not learn them by heart
SETTINGS = {
    "cwola": {"short_sidebands": 150},
    "cathode": {"flow": {"hidden": [32], "transforms": 2, "bins": 5, "epochs": 25, "batch_size": 256}},
}
FOLDS = 5
EFFICIENCIES = (0.1, 0.05, 0.01)
FEATURE = {"inputs": "baseline", "delta_eta_max": 1.3}
COLUMNS = ("mjj", "mj1", "delta_mj", "tau21_j1", "tau21_j2")
WINDOWS = list(itertools.pairwise(EDGES))


def simulated(folder):
    """Make the files, two minutes of one core for each of QCD."""
    from coffea_ad.simulation import simulate

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, FILES + 1):
        if not (folder / f"qcd_{i}.root").exists():
            options = {"pthat_min": 850.0, "bias_power": 0.0}
            simulate("lhco_qcd", EVENTS, folder / f"qcd_{i}.root", seed=30 + i, parameters=options)
    if not (folder / "signal.root").exists():
        options = {"m_res": 2400.0, "m_x": 400.0, "m_y": 80.0}
        simulate("lhco_wprime", 500, folder / "signal.root", seed=5, parameters=options)
    return folder


def some_events(source, path, places):
    """Write some events of a file to another one."""
    with uproot.open(source) as old, uproot.recreate(path) as new:
        arrays = old["Events"].arrays()[places]
        names = ak.fields(arrays)
        jagged = [n[1:] for n in names if n[0] == "n" and any(k.startswith(n[1:] + "_") for k in names)]
        owner = {k: n for n in jagged for k in names if k.startswith(n + "_")}
        columns = {n: ak.zip({k[len(n) + 1 :]: arrays[k] for k in owner if owner[k] == n}) for n in jagged}
        columns |= {k: np.asarray(arrays[k]) for k in names if k not in owner and k[1:] not in jagged}
        types = {k: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for k, v in columns.items()}
        new.mktree("Events", types).extend(columns)


def command(*words):
    """Run a verb of the command line, and return how long it took, s."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from coffea_ad.cli import main; sys.exit(main())", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"coffea-ad {' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - start


def fileset(path, files):
    entry = {"files": {str(file.resolve()): "Events" for file in files}, "metadata": {"is_mc": False}}
    path.write_text(json.dumps({"data": entry}))
    return path


def skimmed(folder, files):
    """Make the skim of some files, and return how long it took."""
    asked = fileset(folder / "fileset.json", files)
    return command("run", "skim_events", "--config", "skim_events/dijet.yaml", "--fileset", asked, "--executor", "futures",
                   "--workers", 2, "-o", folder / "skims")  # fmt: skip


def masses(folder):
    return load_skim(folder / "skims", "dijet", FEATURE, weights="none").x[:][:, 0]


def searched(folder, source, method, seed):
    """Train in all windows on two workers, run the processor with all models, and return the times."""
    windows = [{"low": a, "high": b, "outer_low": OUTER[0], "outer_high": OUTER[1]} for a, b in WINDOWS]
    out = folder / method
    out.mkdir()
    times = {}
    times["train"] = command(
        "run", "resonant", f"data={source / 'skims'}", "datasets=[data]", f"method={method}", f"options={json.dumps(FEATURE)}",
        f"windows={json.dumps(windows)}", f"settings={json.dumps(SETTINGS.get(method, {}))}", f"folds={FOLDS}", f"seed={seed}", "template_rows=20000",
        f"efficiencies={list(EFFICIENCIES)}", "--executor", "dask", "--workers", 2, "-o", out / "search.onnx",
    )  # fmt: skip
    models = [out / f"search_{a}_{b}.onnx" for a, b in WINDOWS]
    times["run"] = command(
        "run", "dijet_resonance", "--fileset", source / "fileset.json", *(w for m in models for w in ("--model", m)),
        "--unblind", "--lumi", 1, "--executor", "dask", "--workers", 2, "--no-figures", "-o", out / "results",
    )  # fmt: skip
    return models, ad.load_results(out / "results"), times


def counts(models, results):
    """Yield window, region, observed, expected, error and significance of the m_JJ histograms."""
    for i, (model, window) in enumerate(zip(models, WINDOWS, strict=True)):
        for region in OnnxScorer(model).card.regions:
            name = region.name if i == 0 else f"ad{i + 1}_{region.name}"
            n, b = (total(results, what, name).sum() for what in ("mjj", "mjj_expected"))
            error = b * region.expectation.uncertainty / region.expectation.expected
            yield window, region.efficiency, n, b, error, count_significance(n, b, error)


def total(results, what, region):
    """Return the contents of a histogram of the data in a region."""
    histogram = results.data(what, region)
    if "variation" in histogram.axes.name:
        histogram = histogram[{"variation": "nominal"}]
    return histogram.values(flow=True)


def trivial(folder, source, method):
    """Return the largest significance of single cuts in each window, {(window, efficiency): (name, significance)}."""
    rows = load_skim(source / "skims", "dijet", FEATURE, weights="none")
    ids = (np.asarray(rows.spectators[c]).astype(int).tolist() for c in ("run", "luminosityBlock", "event"))
    place = {key: i for i, key in enumerate(zip(*ids, strict=True))}
    x = rows.x[:]
    out = {}
    for a, b in WINDOWS:
        stored = (folder / method / "search" / f"{a}_{b}_fold_{f}.npz" for f in range(FOLDS))
        members = [Member.from_bytes(path.read_bytes()) for path in stored]
        tests = [x[[place[tuple(e)] for e in m.event.tolist()]] for m in members]
        for sign in (1, -1):
            for j, column in enumerate(COLUMNS[1:], start=1):
                cut = [
                    replace(m, template_score=sign * m.template[:, j], score=sign * t[:, j])
                    for m, t in zip(members, tests, strict=True)
                ]
                for e in excess_of(cut, EFFICIENCIES):
                    best = out.setdefault(((a, b), e.efficiency), ("", -np.inf))
                    if e.significance > best[1]:
                        out[(a, b), e.efficiency] = (f"{column} {'>' if sign > 0 else '<'}", e.significance)
    return out


def draw(several, efficiency, path):
    """Draw m_JJ in the regions of one efficiency, all windows side by side, without and with signal."""
    with canvas(path, 1, len(several), size=(5.6, 4.6)) as axes:
        for ax, (title, (models, results)) in zip(axes[0], several.items(), strict=True):
            n = b = error2 = 0.0
            edges = results.data("mjj").axes["mjj"].edges
            for i, model in enumerate(models):
                region = next((r for r in OnnxScorer(model).card.regions if r.efficiency == efficiency), None)
                if region is None:
                    continue
                name = region.name if i == 0 else f"ad{i + 1}_{region.name}"
                observed, expected = (total(results, what, name)[1:-1] for what in ("mjj", "mjj_expected"))
                e = region.expectation
                n, b, error2 = n + observed, b + expected, error2 + (expected * e.uncertainty / e.expected) ** 2
            centers = (edges[:-1] + edges[1:]) / 2
            ax.stairs(b, edges, color="C0", label="expected by the template")
            band = np.sqrt(error2)
            ax.fill_between(edges, np.r_[b - band, 0], np.r_[b + band, 0], step="post", color="C0", alpha=0.3, lw=0)
            shown = n > 0
            ax.errorbar(centers[shown], n[shown], np.sqrt(n[shown]), fmt="ko", ms=4, label="events")
            for edge in EDGES:
                ax.axvline(edge, color="0.7", lw=1, ls=":")
            ax.set_xlim(EDGES[0] - 100, EDGES[-1] + 100)
            ax.set_ylim(0, None)
            ax.set_xlabel("$m_{JJ}$ [GeV]")
            ax.set_ylabel("events / 50 GeV")
            ax.set_title(f"{title}, efficiency {efficiency:g}")
            ax.legend()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="folder with the ROOT files")
    parser.add_argument("--methods", nargs="+", default=["cwola", "cathode"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--strength", type=float, default=2.0, help="S / √B in the window")
    parser.add_argument("--signal-only", action="store_true", help="nothing without signal")
    parser.add_argument("--keep", type=Path, help="folder where everything stays")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.keep or Path(temporary)
        files = args.files or simulated(work / "files")
        sys.exit(chain(args, files, work))


def chain(args, files, work):
    qcd = sorted(files.glob("qcd_*.root"))[:FILES]
    pool = work / "pool"
    background = work / "background"
    for folder, some in ((pool, [files / "signal.root"]), (background, qcd)):
        folder.mkdir(parents=True)
        skimming = skimmed(folder, some)
    low, high = WINDOWS[RIGHT]
    b = int(((m := masses(background)) >= low).sum() - (m >= high).sum())
    kept = ((m := masses(pool)) >= low) & (m < high)
    events = uproot.open(files / "signal.root")["Events"].num_entries
    s = args.strength * np.sqrt(b)
    n = round(s * events / kept.sum())
    print(
        f"{low}–{high} GeV: B = {b}, S = {s:.0f} = {n} of {events} signal events, {kept.sum() / events:.2f} of them selected there"
    )
    bad, largest, drawn = [], {}, {}
    print(
        f"{'method':<9}{'seed':>5}{'signal':>7}  {'window':<11}{'eff.':>6}{'events':>8}{'expected':>16}{'Z':>7}   best single cut"
    )
    for seed in args.seeds:
        # without signal these are the same events whatever the seed
        for strength in (0, n) if seed == args.seeds[0] and not args.signal_only else (n,):
            folder = work / f"seed_{seed}_signal_{strength}"
            folder.mkdir()
            source = folder if strength else background  # without signal these are the same events
            if strength:
                places = np.sort(np.random.default_rng(seed).permutation(events)[:strength])
                some_events(files / "signal.root", folder / "injected.root", places)
                skimming = skimmed(folder, [*qcd, folder / "injected.root"])
            for method in args.methods:
                models, results, times = searched(folder, source, method, seed)
                single = trivial(folder, source, method)
                for window, efficiency, observed, expected, error, z in counts(models, results):
                    name, other = single[window, efficiency]
                    print(f"{method:<9}{seed:>5}{strength:>7}  {f'{window[0]}–{window[1]}':<11}{efficiency:>6g}{observed:>8.0f}"
                          f"{f'{expected:.1f} ± {error:.1f}':>16}{z:>+7.1f}   {name} {other:+.1f}")  # fmt: skip
                    right = bool(strength) and window == WINDOWS[RIGHT]
                    key = (method, "right window" if right else "signal, other windows" if strength else "no signal")
                    largest.setdefault(key, {}).setdefault(seed, []).append((z, other))
                print(
                    f"{method:<9}{seed:>5}{strength:>7}  skim {skimming:.0f} s, trainings {times['train']:.0f} s, run {times['run']:.0f} s",
                    flush=True,
                )
                if seed == args.seeds[0] and method == args.methods[-1]:
                    drawn[f"{method}, {strength} signal events" if strength else f"{method}, no signal"] = (
                        models,
                        results,
                    )
    print("largest significance of all regions by seed, and of the best single cuts:")
    for (method, where), seeds in largest.items():
        ours, others = ([max(pair[i] for pair in rows) for rows in seeds.values()] for i in (0, 1))
        print(
            f"  {method:<9}{where:<23}{', '.join(f'{z:+.1f}' for z in ours):<24}{', '.join(f'{z:+.1f}' for z in others)}"
        )
        if min(ours) < 4 if where == "right window" else max(ours) > 3:
            bad.append(f"{method}, {where}")
    draw(drawn, 0.01, args.figure)
    print(f"not as it must be: {'; '.join(bad)}" if bad else "as it must be")
    return int(bool(bad))


if __name__ == "__main__":
    main()
