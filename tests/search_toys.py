"""Falling spectra for the tests of searches."""

from __future__ import annotations

import hist
import numpy as np

from coffea_ad.results import load_results, save_results
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectra, Spectrum

SQRT_S = 13000.0
EDGES = np.arange(1500.0, 6001.0, 100.0)


def falling(total, edges=EDGES):
    """Expected events of a spectrum like that of dijets."""
    m = (edges[1:] + edges[:-1]) / 2
    x = m / SQRT_S
    f = (1 - x) ** 8 / x**5 * np.diff(edges)
    return f / f.sum() * total


def spectrum(total=20_000, seed=1, *, name="mjj", signal=0.0, mass=3000.0, width=0.05, edges=EDGES):
    rng = np.random.default_rng(seed)
    return Spectrum.of_events(name, edges, rng.poisson(falling(total, edges) + signal * gaussian(edges, mass, width)))


def nested(total=20_000, seed=1, *, observable="mjj", parts=(0.89, 0.1, 0.01), signal=0.0):
    """An observable in three nested regions; a signal is in the tightest cell."""
    rng = np.random.default_rng(seed)
    cells = {}
    for i, part in enumerate(parts):
        expected = falling(total * part) + (signal * gaussian(EDGES, 3000.0, 0.05) if i == len(parts) - 1 else 0)
        cells[str(i)] = Spectrum.of_events(observable, EDGES, rng.poisson(expected))
    names = ["inclusive", "loose", "tight"]
    regions = {names[k]: frozenset(str(i) for i in range(k, len(parts))) for k in range(len(parts))}
    return Spectra(observable, cells, regions)


def with_signal(folder, *, xsec=0.05, scale=0.1, data=True, background=False, signal_name="Z'", wave=0.0):
    """Results of data (or simulated background) and of a signal at 3 TeV in nested regions, with a variation of it.

    In the background, `wave` is a relative excess at 3 TeV.
    """
    s = nested(20_000, 1)
    shape = gaussian(EDGES, 3000.0, 0.04)
    shifted = {"nominal": 3000.0, "jesUp": 3000 * (1 + scale), "jesDown": 3000 * (1 - scale)}

    def histogram(contents):
        h = hist.Hist(
            hist.axis.StrCategory(list(s.cells), name="cell"), hist.axis.StrCategory(list(contents), name="variation"),
            hist.axis.Variable(EDGES, name="mjj"), storage=hist.storage.Weight(),
        )  # fmt: skip
        for j, cells in enumerate(contents.values()):
            for i, values in enumerate(cells):
                h.view()[i, j, :]["value"] = h.view()[i, j, :]["variance"] = values
        return h

    signal = {
        name: [part * (shape if name == "nominal" else gaussian(EDGES, m, 0.04)) for part in (100.0, 200.0, 300.0)]
        for name, m in shifted.items()
    }
    regions = {"regions": {r: sorted(c) for r, c in s.regions.items()}}
    common = {"files": {}, "failed": [], "blinded": False, "hidden_cells": [], "lumi": 10.0, **regions}
    first = {"is_mc": False, "sqrt_s": SQRT_S} if data else {"is_mc": True, "xsec": 2.0, "sqrt_s": SQRT_S}
    of_signal = {"is_mc": True, "xsec": xsec, "kind": "signal", "process": signal_name, "sqrt_s": SQRT_S}
    report = {
        "datasets": {
            "events": {**common, "metadata": first, "events": 20_000, "sumw": 20_000.0},
            "zprime": {**common, "metadata": of_signal, "events": 1000, "sumw": 1000.0},
        },
        "lumi": 10.0, "notes": [], "throughput": {}, "key": {}, "models": [], "processor": "toy",
    }  # fmt: skip
    filled = {"zprime": {"mjj": histogram(signal)}}
    if background:  # ten times as many events as data, each of the weight 0.1
        of_background = {"is_mc": True, "xsec": 2.0, "sqrt_s": SQRT_S}
        report["datasets"]["qcd"] = {**common, "metadata": of_background, "events": 200_000, "sumw": 200_000.0}
        more = 1 + wave * np.exp(-((((EDGES[1:] + EDGES[:-1]) / 2 - 3000.0) / 300.0) ** 2))
        expected = [10 * more * falling(20_000 * part) for part in (0.89, 0.1, 0.01)]
        filled["qcd"] = {"mjj": histogram({"nominal": expected})}
    contents = {"nominal": [c.counts for c in s.cells.values()]}
    filled["events"] = {"mjj": histogram(contents)}
    if not data:
        del filled["events"], report["datasets"]["events"]
    save_results(filled, report, folder)
    return load_results(folder)


def windowed(folder, events, expected, relative_error=0.05, hidden=()):
    """Results of a model of one window, with the expectation of its template."""
    s = Spectra("mjj", {"0": spectrum(500), "1": spectrum(10)}, {})
    histograms = {}
    for name, total in (("mjj", events), ("mjj_expected", expected)):
        h = hist.Hist(
            hist.axis.StrCategory(list(s.cells), name="cell"), hist.axis.StrCategory(["nominal"], name="variation"),
            hist.axis.Variable([2000.0, 2200.0, 2500.0, 3000.0], name=name), storage=hist.storage.Weight(),
        )  # fmt: skip
        h.view()[:, 0, 1]["value"] = h.view()[:, 0, 1]["variance"] = [1000, total]
        histograms[name] = h
    entry = {
        "metadata": {"is_mc": False, "sqrt_s": SQRT_S}, "events": 20_000, "lumi": 1.0, "files": {}, "failed": [],
        "regions": {"inclusive": ["0", "1"], "loose": ["1"]}, "hidden_cells": list(hidden),
    }  # fmt: skip
    told = {"loose": {"spectator": "mjj", "low": 2200.0, "high": 2500.0, "relative_error": relative_error}}
    models = [{"file": "m.onnx", "expectations": told, "inclusive": "inclusive"}]
    report = {
        "datasets": {"data": entry},
        "lumi": 1.0,
        "notes": [],
        "throughput": {},
        "key": {},
        "models": models,
        "processor": "dijet_resonance",
    }
    save_results({"data": histograms}, report, folder)
    return folder
