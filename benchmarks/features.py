"""How fast features are: own kernels against the routes there are, in one run on one core.

    python benchmarks/features.py [--figure docs/images/scaling.png] [--markdown]

Jets: all with at least three constituents of the simulated QCD, tt̄ and semivisible-jet files of tests/data. Each line is
measured in pairs, own and other in turn, in process time; the ratio is that of a pair. The other routes:

- fastjet: the `fastjet` package, one "event" per jet: C/A clustering, soft drop, N-subjettiness (τ2 and τ3 where all
  eight inputs are asked for), C2 and e2; what follows the clustering is timed without it, except in the sum of all;
- awkward: moments with `ak.sum`;
- numpy: an output block is set to zero, and then filled: with a ready block of the same shape, or with the cells that are
  not zero at their places.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import time
from pathlib import Path

import awkward as ak
import numpy as np
from coffea.nanoevents import NanoEventsFactory
from rich.console import Console
from rich.table import Table
from rmm_root import Events, selected, toy_events

import coffea_ad as ad
from coffea_ad.features.images import jet_images
from coffea_ad.features.rmm import RMMOptions, rmm_rows
from coffea_ad.features.substructure import WNAE_INPUTS, Conventions, substructure
from coffea_ad.nanoaod.objects import Objects

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
PAIRS = 9
TAUS = ("tau1", "tau2", "tau3", "tau4")


def clock(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def paired(own, other, copies=1):
    """Times of both in turn, s: (pairs, 2); the quick one runs `copies` times for each run of the other."""
    own(), other()
    return np.array([(np.mean([clock(own) for _ in range(copies)]), clock(other)) for _ in range(PAIRS)])


def simulated_jets():
    """Constituents of the jets of the fixtures: offsets, pt, eta, phi, mass."""
    parts = []
    for name in ("qcd", "ttbar", "svj"):
        events = NanoEventsFactory.from_root(f"{DATA}/{name}_v15.root:Events", schemaclass=ad.NanoAODSchema).events()
        parts.append(Objects.of(events).constituents)
    counts = np.concatenate([np.diff(c.offsets) for c in parts])
    keep = np.repeat(counts >= 3, counts)
    columns = [np.concatenate([getattr(c, k) for c in parts])[keep] for k in ("pt", "eta", "phi", "mass")]
    return (np.r_[0, np.cumsum(counts[counts >= 3])], *columns)


def toy_jets(n, size, seed=1):
    """Jets of `size` constituents in three prongs."""
    rng = np.random.default_rng(seed)
    center = rng.normal(0, 0.3, (2, n, 3))
    prong = rng.integers(0, 3, (n, size))
    eta, phi = (np.take_along_axis(c, prong, axis=1) + rng.normal(0, 0.1, (n, size)) for c in center)
    pt = rng.exponential(10, (n, size)) + 0.5
    mass = np.where(rng.random((n, size)) < 0.6, 0.13957, 0.0)
    return (np.arange(n + 1) * size, *(a.ravel() for a in (pt, eta, phi, mass)))


class Fastjet:
    """The fastjet route over the same jets."""

    def __init__(self, offsets, pt, eta, phi, mass):
        import fastjet
        import vector

        vector.register_awkward()
        self.fastjet = fastjet
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
        e = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
        self.p4 = ak.unflatten(ak.zip({"px": px, "py": py, "pz": pz, "E": e}, with_name="Momentum4D"), np.diff(offsets))
        self.jets = self.cluster()

    def cluster(self):
        # a radius so large that all of a jet stays together
        return self.fastjet.ClusterSequence(
            self.p4, self.fastjet.JetDefinition(self.fastjet.cambridge_algorithm, 1000.0)
        )

    def soft_drop(self):
        return self.jets.exclusive_jets_softdrop_grooming(1, 0.0, 0.1, R0=0.8).msoftdrop

    def tau(self, njets=(1, 2, 3, 4)):
        return self.jets.njettiness(
            measure_definition="NormalizedMeasure",
            axes_definition="OnePass_KT_Axes",
            njets=list(njets),
            beta=1.0,
            R0=0.8,
        )

    def correlators(self):
        c2 = self.jets.exclusive_jets_energy_correlator(1, func="c2", beta=0.5)
        return c2, self.jets.exclusive_jets_energy_correlator(
            1, func="generic", beta=1.0, npoint=2, angles=-1, normalized=True
        )


def awkward_moments(jets):
    """σ1, σ2 and pTD, central moments."""
    weight = jets.pt**2
    total = ak.sum(weight, axis=1)
    dphi = (jets.phi - jets.phi[:, 0] + np.pi) % (2 * np.pi) - np.pi
    deta, dphi = jets.eta - ak.sum(weight * jets.eta, axis=1) / total, dphi - ak.sum(weight * dphi, axis=1) / total
    a, b, c = (ak.sum(weight * x, axis=1) / total for x in (deta**2, dphi**2, deta * dphi))
    delta = np.sqrt((a - b) ** 2 + 4 * c**2)
    return np.sqrt((a + b + delta) / 2), np.sqrt((a + b - delta) / 2), np.sqrt(total) / ak.sum(jets.pt, axis=1)


def jet_lines(jets):
    """(what, other, bar, own µs and other µs per jet in pairs)."""
    n = len(jets[0]) - 1
    points = ak.unflatten(ak.zip(dict(zip(("pt", "eta", "phi"), jets[1:4], strict=True))), np.diff(jets[0]))
    # many jets, so that awkward's cost per call does not count
    many = ak.concatenate([points] * 20)
    flat = (
        np.r_[0, np.cumsum(ak.to_numpy(ak.num(many)))],
        *(ak.to_numpy(ak.flatten(many[k])) for k in ("pt", "eta", "phi")),
    )
    moments = ("sigma1", "sigma2", "ptd")
    lines = [
        (
            "σ1, σ2, pTD",
            "awkward",
            10,
            paired(lambda: substructure(moments, *flat, flat[1]), lambda: awkward_moments(many)) / 20,
        )
    ]
    try:
        fastjet = Fastjet(*jets)
    except ImportError:
        return lines, n

    def everything():
        route = Fastjet(*jets)
        return route.soft_drop(), route.tau((2, 3)), route.correlators(), awkward_moments(points)

    lines = [
        (
            "all eight WNAE inputs",
            "fastjet, awkward",
            25,
            paired(lambda: substructure(WNAE_INPUTS, *jets), everything, 3),
        ),
        ("τ1 … τ4, OnePass_KT", "fastjet", 5, paired(lambda: substructure(TAUS, *jets), fastjet.tau, 3)),
        ("soft drop", "fastjet", 30, paired(lambda: substructure(("msoftdrop",), *jets), fastjet.soft_drop, 3)),
        ("C2 and EFP1", "fastjet", 20, paired(lambda: substructure(("c2", "efp1"), *jets), fastjet.correlators, 3)),
        *lines,
    ]
    return lines, n


def rmm_lines(n=20_000, block=4096):
    """The same for rapidity-mass matrices of the search: 36 × 36 cells of which nine are left out."""
    options = RMMOptions(sqrt_s=13000.0)
    events = selected(toy_events(n, 1), options.shape)
    ready = rmm_rows(events, 0, block, options)
    places = np.nonzero(ready)
    values = ready[places]

    def own():
        for start in range(0, n, block):
            rmm_rows(events, start, min(start + block, n), options)

    def numpy(fill):
        for start in range(0, n, block):
            out = np.empty((min(start + block, n) - start, ready.shape[1]), np.float32)
            out[...] = 0
            fill(out)

    def copy(out):
        out[...] = ready[: len(out)]

    def scatter(out):
        inside = np.searchsorted(places[0], len(out))
        out[places[0][:inside], places[1][:inside]] = values[:inside]

    lines = [
        (
            f"RMM 36 × 36, blocks of {block}",
            "numpy: zero, then copy a ready block",
            0.5,
            paired(own, lambda: numpy(copy)),
        ),
        (
            f"RMM 36 × 36, blocks of {block}",
            "numpy: zero, then set the cells",
            0.5,
            paired(own, lambda: numpy(scatter)),
        ),
    ]
    return lines, n


def rates(jets):
    """Own kernels without another route."""
    n = len(jets[0]) - 1
    out = np.empty((n, 40, 40), np.float32)
    offsets, pt, eta, phi, _ = jets
    cases = {
        "N2, M2 (β = 1)": lambda: substructure(("n2", "m2"), *jets, conventions=Conventions(beta=1.0)),
        "N3 (β = 1)": lambda: substructure(("n3",), *jets, conventions=Conventions(beta=1.0)),
        "angularities about the WTA axis": lambda: substructure(
            ("lha",), *jets, conventions=Conventions(angles_from="wta")
        ),
        "number of splittings": lambda: substructure(("n_splittings",), *jets),
        "image 40 × 40": lambda: jet_images(offsets, pt, eta, phi, 40, 1.6, True, True, 1.0, out),
    }
    for name, function in cases.items():
        function()
        yield name, 1e6 * np.array([clock(function) for _ in range(PAIRS)]) / n


def scaling(path):
    """Draw time against the number of constituents and of objects."""
    import matplotlib.pyplot as plt

    sizes = (20, 35, 50, 75, 100, 140, 200)
    cases = {
        "all eight inputs": WNAE_INPUTS, "τ1 … τ4, OnePass_KT": TAUS, "soft drop": ("msoftdrop",), "C2 and EFP1": ("c2", "efp1"),
        "σ1, σ2, pTD": ("sigma1", "sigma2", "ptd"),
    }  # fmt: skip
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    samples = {size: toy_jets(400, size) for size in sizes}
    for (label, names), marker in zip(cases.items(), "osv^D", strict=True):
        times = [
            np.median([clock(lambda n=names, j=jets: substructure(n, *j)) for _ in range(5)])
            for jets in samples.values()
        ]
        left.plot(sizes, 1e6 * np.array(times) / 400, marker=marker, label=label)
    try:
        times = []
        for jets in samples.values():
            few = (jets[0][:101], *(a[: jets[0][100]] for a in jets[1:]))

            def route(few=few):
                fastjet = Fastjet(*few)
                return fastjet.soft_drop(), fastjet.tau((2, 3)), fastjet.correlators()

            times.append(np.median([clock(route) for _ in range(3)]))
        left.plot(sizes, 1e6 * np.array(times) / 100, "k--", marker="x", label="all but moments, fastjet package")
    except ImportError:
        pass
    left.set(
        xlabel="constituents",
        ylabel="µs per jet",
        xscale="log",
        yscale="log",
        ylim=(0.1, 1e6),
        title="toy jets of three prongs",
    )
    left.set_xticks(sizes, [str(s) for s in sizes], minor=False)
    left.minorticks_off()
    left.legend(fontsize=8)
    rng = np.random.default_rng(1)
    numbers = (1, 3, 6, 10, 15, 20, 30)
    for preset in ("ATLAS", "T5N10"):
        options = RMMOptions(preset=preset, sqrt_s=13000.0)
        medians = []
        for number in numbers:
            n, most = 4096, sum(options.shape)
            kind = np.repeat(np.arange(5), options.shape)[
                np.sort(rng.permuted(np.tile(np.arange(most), (n, 1)), axis=1)[:, :number], axis=1)
            ]
            m = n * number
            columns = (
                30 + rng.exponential(60, m),
                rng.uniform(-2.4, 2.4, m),
                rng.uniform(-np.pi, np.pi, m),
                np.full(m, 5.0),
            )
            events = selected(
                Events(np.arange(n + 1) * number, kind.ravel(), *columns, np.full(n, 50.0), np.zeros(n)), options.shape
            )
            rmm_rows(events, 0, n, options)
            medians.append(
                np.median([clock(lambda e=events, o=options, n=n: rmm_rows(e, 0, n, o)) for _ in range(7)]) / n
            )
        size = 1 + sum(options.shape)
        right.plot(numbers, 1e6 * np.array(medians), marker="o", label=f"{size} × {size} ({preset})")
    right.set(xlabel="objects", ylabel="µs per event", ylim=(0, None), title="rapidity-mass matrix, blocks of 4096")
    right.legend(fontsize=8)
    fig.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", help="also draw how time grows with constituents and objects")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documentation")
    args = parser.parse_args()
    jets = simulated_jets()
    console = Console(width=150)
    console.print(
        f"{len(jets[0]) - 1} simulated jets with {jets[0][-1] / (len(jets[0]) - 1):.1f} constituents on average"
    )
    head = ("what", "other route", "own, µs", "other, µs", "ratio: median (minimum to maximum)", "bar")
    table = Table(*head)
    rows = []
    for lines, n in (jet_lines(jets), rmm_lines()):
        for what, other, bar, times in lines:
            own, theirs = 1e6 * np.median(times, axis=0) / n
            ratio = times[:, 1] / times[:, 0]
            spread = f"{np.median(ratio):.3g} ({ratio.min():.3g} to {ratio.max():.3g})"
            rows.append((what, other, f"{own:.2f}", f"{theirs:.2f}", spread, f"≥ {bar}"))
    for name, times in rates(jets):
        spread = f"{times.min():.2f} to {times.max():.2f}"
        rows.append((name, "", f"{np.median(times):.2f} ({spread})", "", "", ""))
    for row in rows:
        table.add_row(*row)
    if args.markdown:
        for row in (head, ("---",) * len(head), *rows):
            print("| " + " | ".join(row) + " |")
    else:
        console.print(table)
    packages = ("numba", "numpy", "awkward", "fastjet")
    console.print(f"{platform.machine()}, Python {platform.python_version()}, " + ", ".join(
        f"{p} {importlib.metadata.version(p)}" for p in packages if importlib.util.find_spec(p)))  # fmt: skip
    if args.figure:
        scaling(args.figure)
        console.print(args.figure)


if __name__ == "__main__":
    main()
