"""Does a search keep what it says: p-values, recovered signals, coverage of limits, speed, signals made up by a wrong function?

    python benchmarks/search.py uniform --experiments 300 --toys 100
    python benchmarks/search.py uniform --spectra 27 --experiments 100 --toys 100
    python benchmarks/search.py local --spectra 27 --experiments 300
    python benchmarks/search.py coverage --toys 200
    python benchmarks/search.py injected --experiments 200
    python benchmarks/search.py spurious
    python benchmarks/search.py spurious --simulated 6000000
    python benchmarks/search.py speed --toys 1000 --workers 2

Spectra are (1 − x)⁸/x⁵ integrated over bins of 100 GeV from 1.5 to 6 TeV, x = m/13 TeV, with Poisson fluctuations. Every command
takes --seed and --json FILE; errors are statistical, of parts binomial.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import ks_2samp, kstest

from coffea_ad.errors import FitFailed
from coffea_ad.search import limits
from coffea_ad.search.asymptotic import LEVEL, cls_at
from coffea_ad.search.choosing import goodness, select_order
from coffea_ad.search.families import FAMILIES, design
from coffea_ad.search.fits import fit
from coffea_ad.search.hunting import HuntSettings, hunt, prepare
from coffea_ad.search.minimising import fit_many, scan_many
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectra, Spectrum
from coffea_ad.search.spurious import spurious_signals

SQRT_S = 13000.0
EDGES = np.arange(1500.0, 6001.0, 100.0)
WHOLE = (float(EDGES[0]), float(EDGES[-1]))
STATISTICS = ("windows", "likelihood")
PARTS = (0.89, 0.1, 0.01)  # of the events, in the cells of three nested regions
SIZES = np.geomspace(20_000, 1_000_000, 9)


def falling(total: float) -> np.ndarray:
    """Return expected events of bins, the function integrated."""
    at, weight = np.polynomial.legendre.leggauss(8)
    x = ((EDGES[1:] + EDGES[:-1])[:, None] + np.diff(EDGES)[:, None] * at) / 2 / SQRT_S
    f = ((1 - x) ** 8 / x**5) @ weight
    return f / f.sum() * total


def one(total: float, rng: np.random.Generator, extra: np.ndarray | float = 0.0) -> Spectrum:
    """Return pseudo-data of one spectrum."""
    return Spectrum.of_events("m", EDGES, rng.poisson(falling(total) + extra))


def many(rng: np.random.Generator, observables: int = 9) -> list[Spectra]:
    """Return pseudo-data of observables in three nested regions each, of 20 thousand to a million events."""
    out = []
    for k, total in enumerate(SIZES[:observables]):
        name = f"m{k}"
        cells = {str(i): Spectrum.of_events(name, EDGES, rng.poisson(falling(total * p))) for i, p in enumerate(PARTS)}
        regions = {r: frozenset("012"[i:]) for i, r in enumerate(("inclusive", "loose", "tight"))}
        out.append(Spectra(name, cells, regions))
    return out


def binomial(k: int, n: int) -> tuple[float, float]:
    """Return a part and its error, which is not 0 where the part is 0 or 1."""
    return k / n, float(np.sqrt((k + 0.5) * (n - k + 0.5) / (n + 1) ** 3))


def spread(values) -> dict[str, float]:
    """Return mean and standard deviation with their errors."""
    v = np.asarray(values, float)
    s = float(v.std(ddof=1))
    return {
        "mean": float(v.mean()),
        "mean_error": s / len(v) ** 0.5,
        "sd": s,
        "sd_error": s / (2 * (len(v) - 1)) ** 0.5,
    }


def uniform(o: argparse.Namespace) -> dict:
    """Global p-values of data without signal, by all of `hunt`; "data = toys" compares largest significances of both by KS."""
    p: dict[str, list[float]] = {f"{r} {s}": [] for r in ("fixed", "automatic") for s in STATISTICS}
    data: dict[str, list[float]] = {name: [] for name in p}
    toys: dict[str, list[float]] = {name: [] for name in p}
    moved = skipped = 0
    start = time.time()
    for i in range(o.experiments):
        rng = np.random.default_rng([o.seed, i])
        spectra = many(rng) if o.spectra == 27 else [Spectra.single(one(o.events, rng))]
        settings = {"toys": o.toys, "seed": o.seed * 100_000 + i}
        result = {}
        if o.range != "fixed":
            result["automatic"] = a = hunt(spectra, HuntSettings(**settings), SQRT_S)
            same = not a.skipped and all(len(h.prepared.spectrum.counts) == len(EDGES) - 1 for h in a.spectra.values())
            moved += not same
            skipped += len(a.skipped)
            if same:  # the same fits and seeds, so the same result
                result["fixed"] = a
        if o.range != "automatic" and "fixed" not in result:
            result["fixed"] = hunt(spectra, HuntSettings(interval=WHOLE, **settings), SQRT_S)
        for r, h in result.items():
            for s in STATISTICS:
                if (g := h.p_global[s]) is not None:
                    p[f"{r} {s}"].append(g.p_value)
                    found = h.largest_bump(s)
                    data[f"{r} {s}"].append(found[1].local if found else -np.inf)
                    toys[f"{r} {s}"] += h.largest[s].tolist()
        if time.time() - start > o.seconds:
            break
    out: dict = {"experiments": i + 1, "range_moved": moved, "spectra_skipped": skipped, "seconds": time.time() - start}
    print(
        f"{o.spectra} spectra, {i + 1} experiments of {o.toys} toys; the range begins later in {moved}, {skipped} spectra skipped"
    )
    print(f"{'':24s} {'n':>5s} {'KS p':>7s} {'mean':>15s} {'< 0.05':>15s} {'< 0.01':>15s} {'data = toys':>11s}")
    rng = np.random.default_rng([o.seed, 99])
    for name, values in p.items():
        if not values:
            continue
        # counted p-values are multiples of 1/(toys + 1): spread evenly over their step, they are continuous
        v = np.asarray(values)
        on_step = np.isclose(v * (o.toys + 1), np.round(v * (o.toys + 1)))
        smooth = np.where(on_step, v - rng.random(len(v)) / (o.toys + 1), v)
        low, lower = binomial(int((v <= 0.05).sum()), len(v)), binomial(int((v <= 0.01).sum()), len(v))
        row = {"n": len(v), "ks_p": float(kstest(smooth, "uniform").pvalue), "mean": float(smooth.mean()),
               "mean_error": float(smooth.std() / len(v) ** 0.5), "below_0.05": low, "below_0.01": lower, "p": values,
               "same_ks_p": float(ks_2samp(data[name], toys[name]).pvalue), "data": data[name], "toys": toys[name]}  # fmt: skip
        out[name] = row
        print(f"{name:24s} {len(v):5d} {row['ks_p']:7.3f} {row['mean']:7.3f} ± {row['mean_error']:.3f} "
              f"{low[0]:7.3f} ± {low[1]:.3f} {lower[0]:7.3f} ± {lower[1]:.3f} {row['same_ks_p']:11.3f}")  # fmt: skip
    return out


def local(o: argparse.Namespace) -> dict:
    """The largest local significance of a set of spectra without signal."""
    largest: dict[str, list[float]] = {s: [] for s in STATISTICS}
    start, failed = time.time(), 0
    for i in range(o.experiments):
        rng = np.random.default_rng([o.seed, i])
        settings = HuntSettings(interval=None if o.range == "automatic" else WHOLE, seed=i)
        best = dict.fromkeys(STATISTICS, -np.inf)
        for several in many(rng) if o.spectra == 27 else [Spectra.single(one(o.events, rng))]:
            for region in several.regions:
                try:
                    bumps = prepare(several, region, settings, SQRT_S).bumps
                except FitFailed:
                    failed += 1
                    continue
                for s in STATISTICS:
                    best[s] = max(best[s], bumps[s].local if bumps[s] else -np.inf)
        for s in STATISTICS:
            largest[s].append(best[s])
        if time.time() - start > o.seconds:
            break
    out: dict = {"experiments": i + 1, "failed": failed}
    print(
        f"{o.spectra} spectra, {i + 1} experiments, range {o.range}, {failed} spectra could not be fitted: largest local significance"
    )
    print(f"{'':12s} {'16 %':>6s} {'50 %':>6s} {'84 %':>6s} {'97.7 %':>6s} {'P(≥ 2.9)':>15s} {'P(≥ 4)':>15s}")
    for s, values in largest.items():
        q = np.quantile(values, [0.16, 0.5, 0.84, 0.977])
        at, four = (binomial(int((np.asarray(values) >= z).sum()), len(values)) for z in (2.9, 4.0))
        out[s] = {"quantiles": q.tolist(), "above_2.9": at, "above_4": four, "largest": values}
        print(
            f"{s:12s} "
            + " ".join(f"{x:6.2f}" for x in q)
            + f" {at[0]:7.3f} ± {at[1]:.3f} {four[0]:7.3f} ± {four[1]:.3f}"
        )
    return out


def strength_for(z: float, total: float, shape: np.ndarray) -> float:
    """Return the events of a signal whose expected local significance is z, by q₀ of Asimov data."""
    d = design("dijet", 3, EDGES, SQRT_S)
    start = fit(Spectrum.of_events("m", EDGES, falling(total)), "dijet", 3, SQRT_S).theta

    def more(s: float) -> float:
        counts = (falling(total) + s * shape)[None]
        q0 = scan_many(counts, d, fit_many(counts, d, start).theta, shape[None])[1][0, 0]
        return float(np.sqrt(q0)) - z

    size = np.sqrt((falling(total) * (shape > 0.05 * shape.max())).sum())
    return float(brentq(more, 1e-3 * size, 20 * z * (size + z), xtol=1e-4 * size)) if z > 0 else 0.0


def injected(o: argparse.Namespace) -> dict:
    """Signals put into pseudo-data, and what is found of them."""
    out: dict = {}
    print(
        f"{o.experiments} experiments each, order selected, width {o.width:g}; significance at the true mass and the largest of the scan"
    )
    print(
        f"{'events':>8s} {'mass':>5s} {'Z':>3s} {'S':>7s} {'√q0':>13s} {'sd':>5s} {'largest':>13s} {'S/S_true':>15s} {'pull':>14s} {'sd':>13s}"
    )
    for total in o.sizes:
        for mass in o.masses:
            shape = gaussian(EDGES, mass, o.width)
            for z in (0.0, 3.0, 5.0):
                true = strength_for(z, total, shape)
                at, largest, found, pulls = [], [], [], []
                for i in range(o.experiments):
                    rng = np.random.default_rng([o.seed, i, int(total), int(mass), int(z)])
                    spectrum = one(total, rng, true * shape)
                    try:
                        ready = prepare(Spectra.single(spectrum), "inclusive", HuntSettings(interval=WHOLE), SQRT_S)
                        order = ready.background.fit.order
                        f = fit(spectrum, "dijet", order, SQRT_S, signal=shape)
                    except FitFailed as error:
                        print(error, file=sys.stderr)
                        continue
                    b = ready.background.fit
                    whole = fit(spectrum, "dijet", order, SQRT_S)
                    q0 = scan_many(spectrum.counts[None], b.function, whole.theta[None], shape[None])[1][0, 0]
                    at.append(float(np.sqrt(q0)) if z else np.sign(f.strength) * abs(f.strength / f.strength_error))
                    bump = ready.bumps["likelihood"]
                    largest.append(bump.local if bump else 0.0)
                    found.append(f.strength)
                    pulls.append((f.strength - true) / f.strength_error)
                a, m, s, r = spread(at), spread(largest), spread(np.asarray(found) / (true or 1)), spread(pulls)
                out[f"{total:g} {mass:g} {z:g}"] = {
                    "true": true,
                    "n": len(at),
                    "local": a,
                    "largest": m,
                    "ratio": s,
                    "pull": r,
                }
                ratio = f"{s['mean']:7.3f} ± {s['mean_error']:.3f}" if z else f"{'–':>15s}"
                print(f"{total:8g} {mass:5g} {z:3g} {true:7.1f} {a['mean']:5.2f} ± {a['mean_error']:.2f}  {a['sd']:5.2f} {m['mean']:5.2f} ± {m['mean_error']:.2f}  "
                      f"{ratio} {r['mean']:6.2f} ± {r['mean_error']:.2f}  {r['sd']:5.2f} ± {r['sd_error']:.2f}", flush=True)  # fmt: skip
    return out


def _only_at(strength: float):
    """Return in place of `asymptotic_limit` one that asks CLs at the true strength alone: above 0.05 the limit is above it."""

    def asked(channel, background, error, level=LEVEL):
        above = cls_at(channel, background, error, strength)[0] > level
        return (2 * strength if above else strength / 2), ()

    return asked


def coverage(o: argparse.Namespace) -> dict:
    """How often a limit is above the true strength."""
    out: dict = {}
    usual = limits.asymptotic_limit
    print(
        f"order {o.order or 'selected'}, width {o.width:g}, {'CLs at the true strength' if o.quick else 'whole limits'}, seed {o.seed}"
    )
    print(
        f"{'events':>8s} {'mass':>5s} {'Z':>3s} {'S':>7s} {'n':>5s} {'none':>5s} {'counting':>8s} {'true below limit':>17s}"
    )
    for total in o.sizes:
        for mass in o.masses:
            shape = gaussian(EDGES, mass, o.width)
            for z in o.strengths:
                true = strength_for(z, total, shape)
                limits.asymptotic_limit = _only_at(true) if o.quick and true > 0 else usual
                below = n = none = counting = 0
                start = time.time()
                for i in range(o.toys):
                    spectrum = one(
                        total, np.random.default_rng([o.seed, i, int(total), int(mass), int(z)]), true * shape
                    )
                    try:
                        order = o.order or select_order(spectrum, "dijet", SQRT_S, exclude=3.0)[0].order
                        told = limits.limit_of_task(limits.LimitTask(spectrum, "dijet", order, SQRT_S, mass, o.width))
                    except FitFailed:
                        none += 1
                        continue
                    if told.observed is None:
                        none += 1
                        continue
                    n += 1
                    counting += told.method == "counting"
                    below += told.observed >= true
                    if time.time() - start > o.seconds:
                        break
                limits.asymptotic_limit = usual
                part = binomial(below, n)
                out[f"{total:g} {mass:g} {z:g}"] = {
                    "true": true,
                    "n": n,
                    "none": none,
                    "counting": counting,
                    "below": below,
                    "part": part,
                }
                print(
                    f"{total:8g} {mass:5g} {z:3g} {true:7.1f} {n:5d} {none:5d} {counting:8d} {part[0]:9.3f} ± {part[1]:.3f}",
                    flush=True,
                )
    return out


def spurious(o: argparse.Namespace) -> dict:
    """Signals that the default family makes up where another is the truth that describes the data; order by data of that truth."""
    if o.simulated:
        return simulated(o)
    out: dict = {}
    print(
        f"|S/σ_S| of Asimov data, {o.experiments} truths each, masses {', '.join(f'{m:g}' for m in o.masses)} GeV, seed {o.seed}"
    )
    print(
        f"{'events':>8s} {'truth':>12s} {'width':>5s} {'n':>4s} {'selected':>15s} {'median':>7s} "
        + " ".join(f"{f'order {k}':>8s}" for k in (3, 4, 5))
    )
    for total in o.sizes:
        for truth in (f for f in FAMILIES if f != "dijet"):
            rows: dict[float, dict[str, list[float]]] = {w: {} for w in o.widths}
            failed = unlike = 0
            for i in range(o.experiments):
                data = one(total, np.random.default_rng([o.seed, i, int(total)]))
                try:
                    true = select_order(data, truth, SQRT_S)[0]
                    if goodness(true, toys=200, seed=o.seed).p_value <= 0.05:
                        unlike += 1  # it does not describe the data, so that it cannot be the truth
                        continue
                    expected = true.expected
                    again = one(0.0, np.random.default_rng([o.seed, i, int(total), 1]), expected)
                    order = select_order(again, "dijet", SQRT_S, exclude=3.0)[0].order
                    template = Spectrum.of_events(truth, EDGES, expected)
                    for w in o.widths:
                        for k in (3, 4, 5):
                            most = max(
                                abs(s.relative) for s in spurious_signals(template, "dijet", k, SQRT_S, o.masses, w)
                            )
                            rows[w].setdefault(str(k), []).append(most)
                            if k == order:
                                rows[w].setdefault("selected", []).append(most)
                except FitFailed as error:
                    failed += 1
                    print(error, file=sys.stderr)
            for w, row in rows.items():
                out[f"{total:g} {truth} {w:g}"] = {"failed": failed, "unlike": unlike, **row}
                if "selected" in row:
                    print(f"{total:8g} {truth:>12s} {w:5g} {len(row['selected']):4d} {max(row['selected']):15.3f} {np.median(row['selected']):7.3f} "
                          + " ".join(f"{max(row[str(k)]):8.3f}" for k in (3, 4, 5)), flush=True)  # fmt: skip
    return out


def dijets(n: int, seed: int, resolution: float = 0.04) -> Spectrum:
    """Return the dijet spectrum of Pythia's hard processes: |Δη| < 1.3, |η| < 2.5, smeared masses, weights that undo a bias to hard ones."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for line in (
        "Beams:eCM = 13000", "HardQCD:all = on", "PhaseSpace:mHatMin = 1200", "PhaseSpace:pTHatMin = 500", "PhaseSpace:bias2Selection = on",
        "PhaseSpace:bias2SelectionPow = 5", "PhaseSpace:bias2SelectionRef = 1000", "PartonLevel:all = off", "HadronLevel:all = off",
        "Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}",
    ):  # fmt: skip
        pythia.readString(line)
    pythia.init()
    rng = np.random.default_rng(seed)
    counts, variance = np.zeros(len(EDGES) - 1), np.zeros(len(EDGES) - 1)
    for start in range(0, n, 50_000):
        info = pythia.nextBatch(min(50_000, n - start), "skip").info
        t, u, x1, x2, m = (np.asarray(info[k]) for k in ("tHat", "uHat", "x1", "x2", "mHat"))
        apart, boost = np.abs(np.log(u / t)), np.abs(np.log(x1 / x2)) / 2
        near = (apart < 1.3) & (boost + apart / 2 < 2.5)
        w, m = np.asarray(info.weights[:, 0])[near], m[near] * rng.normal(1.0, resolution, near.sum())
        counts += np.histogram(m, EDGES, weights=w)[0]
        variance += np.histogram(m, EDGES, weights=w**2)[0]
    return Spectrum("dijets", EDGES, counts, variance)


def simulated(o: argparse.Namespace) -> dict:
    """Signals that the default family makes up on simulated dijets, with the order that data of this size select."""
    whole, out = dijets(o.simulated, o.seed), {}
    print(
        f"S/σ_S of {o.simulated} simulated dijets, {o.experiments} experiments to select the order, seed {o.seed}; ± by the statistics of simulation"
    )
    print(f"{'events':>8s} {'width':>5s} {'order':>5s} {'selected':>8s} " + " ".join(f"{m:>15g}" for m in o.masses))
    for total in o.sizes:
        f = total / whole.counts.sum()
        template = Spectrum("dijets", EDGES, whole.counts * f, whole.variance * f**2)
        orders = [
            select_order(
                Spectrum.of_events("m", EDGES, np.random.default_rng([o.seed, i, int(total)]).poisson(template.counts)),
                "dijet", SQRT_S, exclude=3.0,
            )[0].order
            for i in range(o.experiments)
        ]  # fmt: skip
        for w in o.widths:
            for order in (3, 4, 5):
                made = spurious_signals(template, "dijet", order, SQRT_S, o.masses, w)
                row = [(s.relative, s.template_error / s.error) for s in made]
                out[f"{total:g} {w:g} {order}"] = {"selected": orders.count(order) / len(orders), "relative": row}
                cells = " ".join(f"{r:+7.2f} ± {e:5.2f}" for r, e in row)
                print(f"{total:8g} {w:5g} {order:5d} {orders.count(order) / len(orders):8.2f} {cells}", flush=True)
    return out


def speed(o: argparse.Namespace) -> dict:
    """Wall time of 27 spectra."""
    from coffea_ad.running.clusters import ClusterConfig

    spectra = many(np.random.default_rng(o.seed))
    settings = {"interval": WHOLE, "seed": o.seed}
    hunt(spectra[:1], HuntSettings(toys=2, **settings), SQRT_S)  # compiles
    start = time.time()
    hunt(spectra, HuntSettings(toys=0, **settings), SQRT_S)
    first = time.time() - start
    start = time.time()
    cluster = ClusterConfig(workers=o.workers) if o.workers > 1 else None
    h = hunt(spectra, HuntSettings(toys=o.toys, **settings), SQRT_S, cluster=cluster)
    wall = time.time() - start
    rest = (wall - first) * 1000 / o.toys * o.workers / 2
    out = {
        "spectra": len(h.spectra),
        "toys": o.toys,
        "workers": o.workers,
        "wall": wall,
        "fits": first,
        "scaled": first + rest,
    }
    print(f"{len(h.spectra)} spectra, {o.toys} toys, {o.workers} worker(s): {wall:.1f} s, of which {first:.1f} s are the fits of the data; "
          f"1000 toys with two workers: {first + rest:.0f} s, if they share the work evenly")  # fmt: skip
    return out


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    several = {"nargs": "+", "type": float}
    for function in (uniform, local, injected, coverage, speed, spurious):
        sub = commands.add_parser(function.__name__, help=function.__doc__)
        sub.set_defaults(function=function)
        sub.add_argument("--seed", type=int, default=1)
        sub.add_argument("--json", type=Path)
        sub.add_argument("--seconds", type=float, default=float("inf"), help="after which no other experiment begins")
        if function in (uniform, local):
            sub.add_argument("--spectra", type=int, choices=(1, 27), default=27 if function is local else 1)
            sub.add_argument("--events", type=float, default=20_000)
            sub.add_argument(
                "--range", choices=("fixed", "automatic", "both"), default="both" if function is uniform else "fixed"
            )
        if function in (uniform, local, injected, spurious):
            sub.add_argument("--experiments", type=int, default=10 if function is spurious else 300)
        if function in (uniform, speed, coverage):
            sub.add_argument("--toys", type=int, default=100)
        if function in (injected, coverage, spurious):
            totals = (
                [20_000.0, 200_000.0]
                if function is injected
                else [200_000.0, 2_000.0]
                if function is coverage
                else [20_000.0, 200_000.0, 1e6]
            )
            sub.add_argument("--sizes", **several, default=totals)
            masses = [2000.0, 2500.0, 3000.0, 3500.0, 4000.0, 4500.0] if function is spurious else [3000.0]
            sub.add_argument("--masses", **several, default=masses)
        if function in (injected, coverage):
            sub.add_argument("--width", type=float, default=0.05)
    commands.choices["spurious"].add_argument("--widths", **several, default=[0.05, 0.1])
    commands.choices["spurious"].add_argument(
        "--simulated", type=int, default=0, help="the truth is that of so many simulated dijets, not another family"
    )
    commands.choices["speed"].add_argument("--workers", type=int, default=1)
    commands.choices["coverage"].add_argument("--order", type=int, default=0, help="0: selected on the data")
    commands.choices["coverage"].add_argument(
        "--strengths", **several, default=[0.0, 1.0, 3.0, 5.0], help="expected significance"
    )
    commands.choices["coverage"].add_argument("--quick", action="store_true", help="ask CLs at the true strength only")
    options = parser.parse_args()
    out = options.function(options)
    if options.json:
        asked = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items() if k != "function"}
        options.json.write_text(json.dumps({"options": asked, "result": out}, indent=1) + "\n")


if __name__ == "__main__":
    main()
