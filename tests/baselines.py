"""Five figures that look as before, pixel by pixel, and the versions with which their baselines were drawn.

    python tests/baselines.py

draws the baselines in tests/baseline anew: after a figure was changed on purpose, or constraints.txt. Look at each of them before it is committed.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import hist
import numpy as np
from toys import DATA, HERE

from coffea_ad.results.results import Results

FOLDER = HERE / "baseline"
VERSIONS = FOLDER / "versions.json"
DATASETS = {
    "qcd": ("background", 4000), "ttbar": ("background", 2000), "wjets": ("background", 1000), "svj": ("signal", 60), "data": ("data", 7000)
}  # fmt: skip
CUTS = {"loose": 2.0, "tight": 3.5}
DPI = 50


def drawn_with():
    """What pixels depend on: what draws, its fonts, how they are set, numbers, and how a processor rounds."""
    from matplotlib import ft2font

    of = {name: version(name) for name in ("matplotlib", "mplhep", "mplhep_data", "numpy")}
    freetype = f"{ft2font.__freetype_version__} {ft2font.__freetype_build_type__}"
    return {**of, "freetype": freetype, "machine": platform.machine()}


def other_versions():
    """Say with what the baselines were drawn that is another one here; nothing if they can be compared."""
    before, now = json.loads(VERSIONS.read_text()), drawn_with()
    return [f"{name} {version} (here {now.get(name)})" for name, version in before.items() if now.get(name) != version]


def results():
    """Three backgrounds with a variation, a signal and data, over a score, and over a mass and the score."""
    score = hist.axis.Regular(12, 0, 6, name="ad_logp", label="$-\\log_{10} p$")
    mass = hist.axis.Regular(15, 0, 3000, name="mt", label="$m_T$ [GeV]")
    content = {}
    for i, (name, (kind, n)) in enumerate(DATASETS.items()):
        rng = np.random.default_rng(i)
        at = {"ad_logp": rng.exponential(0.5, n), "mt": rng.exponential(400, n)}
        if kind == "signal":
            at = {"ad_logp": rng.normal(3, 1, n), "mt": rng.normal(1500, 150, n)}
        names = ["nominal"] if kind == "data" else ["nominal", "jet_scaleUp", "jet_scaleDown"]
        content[name] = {"ad_logp": booked(names, score), "mt-ad_logp": booked(["nominal"], mass, score)}
        for h in content[name].values():
            columns = {axis: at[axis] for axis in h.axes.name[2:]}
            for variation in h.axes["variation"]:
                factor = {"jet_scaleUp": 1.1, "jet_scaleDown": 0.9}.get(variation, 1.0)
                h.fill(region="inclusive", variation=variation, weight=factor, **columns)
    datasets = {
        name: {"metadata": {"is_mc": kind != "data", "xsec": 1.0, "is_signal": kind == "signal"}, "lumi": 1e-3,
               "sumw": 1.0, "events": 10, "files": {}, "failed": []}
        for name, (kind, _) in DATASETS.items()
    }  # fmt: skip
    regions = {name: {"cells": [], "tagger": "ad", "region": name, "thresholds": [at]} for name, at in CUTS.items()}
    of = {"datasets": datasets, "lumi": 1e-3, "processor": "p", "models": [], "regions": regions}
    return Results(content, of)


def booked(variations, *axes):
    categories = (
        hist.axis.StrCategory(["inclusive"], name="region"),
        hist.axis.StrCategory(variations, name="variation"),
    )
    return hist.Hist(*categories, *axes, storage=hist.storage.Weight())


def stack(path):
    from coffea_ad.plotting import Style, stack

    stack(results(), "ad_logp", "inclusive", path, style=Style(labels={"ttbar": r"$t\bar{t}$"}, status="Simulation"))


def score_against_mass(path):
    from coffea_ad.plotting import score_against

    score_against(results(), "mt-ad_logp", path)


def roc(path):
    from coffea_ad.plotting import roc

    background = np.linspace(0, 1, 201)
    curves = {f"score {n}": (background, background ** (1 / n), n / (n + 1)) for n in (2, 3, 5)}
    roc(curves, path, models=2)


def event(path):
    _display(path, "event")


def rmm(path):
    _display(path, "rmm")


def _display(path, view):
    from coffea_ad.event_lists.opened import Place, open_event
    from coffea_ad.plotting.displays import draw_event

    draw_event(open_event(Place(str(DATA / "svj_v15.root"), 7)), path, view, scores={"ad_logp": 1.5})


FIGURES = (stack, score_against_mass, roc, event, rmm)


def draw(figure, folder: Path) -> Path:
    """Write a figure with few pixels, whatever matplotlib was told elsewhere."""
    from matplotlib import style
    from matplotlib.figure import Figure

    path = folder / f"{figure.__name__}.png"
    savefig = Figure.savefig
    small = mock.patch.object(Figure, "savefig", lambda of, file, **more: savefig(of, file, **{**more, "dpi": DPI}))
    with style.context("default"), small:
        figure(path)
    return path


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in FIGURES:
        print(draw(each, FOLDER))
    VERSIONS.write_text(json.dumps(drawn_with(), indent=2) + "\n")
