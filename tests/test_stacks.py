"""Figures of results: data added, signals over the background, luminosity and models of all runs that were merged."""

from __future__ import annotations

import hist
import numpy as np
import pytest

from coffea_ad.errors import UnknownName
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results
from coffea_ad.running.merging import merge

pytestmark = pytest.mark.plot
THROUGHPUT = {
    **dict.fromkeys(
        ("total_events", "num_chunks", "resumed_chunks", "elapsed_time_seconds", "total_cpu_time", "total_bytes_read",
         "opening_seconds", "total_cores"), 1.0,
    ), "columns": [],
}  # fmt: skip


def histogram(n, *more):
    axes = (hist.axis.StrCategory(["inclusive"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"))
    h = hist.Hist(*axes, hist.axis.Regular(4, 0, 4, name="m", label="m"), *more, storage=hist.storage.Weight())
    values = {"m": np.full(n, 1.5), **{axis.name: np.full(n, 0.5) for axis in more}}
    return h.fill(region="inclusive", variation="nominal", **values)


def results(**kinds):
    """Datasets of ten events times their place."""
    datasets = {
        name: {"metadata": {"is_mc": kind != "data", "xsec": 1.0, "is_signal": kind == "signal"}, "lumi": 1e-3,
               "sumw": 1.0, "events": 10, "files": {}, "failed": []}
        for name, kind in kinds.items()
    }  # fmt: skip
    content = {name: {"m": histogram(10 * (i + 1))} for i, name in enumerate(kinds)}
    return Results(content, {"datasets": datasets, "lumi": 1e-3, "processor": "p", "models": []})


@pytest.fixture
def drawn(monkeypatch):
    import mplhep

    calls = {}
    histplot = mplhep.histplot

    def record(h, **settings):
        total = [x.sum().value for x in h] if isinstance(h, list) else h.sum().value
        calls[str(settings["label"])] = (settings["histtype"], total)
        return histplot(h, **settings)

    monkeypatch.setattr(mplhep, "histplot", record)
    return calls


def test_datasets_of_data_are_added_and_marked_signals_are_over_the_background(drawn, tmp_path):
    from coffea_ad.plotting import stack

    both = results(runA="data", runB="data", qcd="background", tt="background", svj="signal")
    stack(both, "m", "inclusive", tmp_path / "x.png")
    assert drawn == {
        "data": ("errorbar", pytest.approx(30)),
        "['qcd', 'tt']": ("fill", pytest.approx([30, 40])),
        "svj": ("step", pytest.approx(50)),
    }
    drawn.clear()
    stack(both, "m", "inclusive", tmp_path / "x.png", signals=["tt"])
    assert {label: kind for label, (kind, _) in drawn.items()} == {
        "data": "errorbar",
        "['qcd', 'svj']": "fill",
        "tt": "step",
    }
    with pytest.raises(UnknownName, match="did you mean 'tt'"):
        stack(both, "m", "inclusive", tmp_path / "x.png", signals=["ttt"])


def test_histograms_of_two_observables_are_left_out_of_figures():
    from coffea_ad.plotting import drawable

    both = results(qcd="background")
    both.histograms["qcd"]["m_and_x"] = histogram(10, hist.axis.Regular(2, 0, 1, name="x"))
    assert drawable(both) == {"m": ["inclusive"]}


def test_a_merged_folder_shows_the_luminosities_and_models_of_all_runs(tmp_path, monkeypatch):
    from coffea_ad import plotting
    from coffea_ad.results.folder import save_results

    for i, name in enumerate(("one", "two")):
        part = results(**{name: "background"})
        part.report["datasets"][name]["lumi"] = part.report["lumi"] = 10.0 * (i + 1)
        part.report["models"] = [{"name": f"model_{name}", "digest": name}]
        more = {"notes": [], "throughput": THROUGHPUT, "key": {}, "outputs": {}, "seconds": 1.0, "complete": True, "config": {},
                "versions": {}, "executor": "iterative", "settings": {}, "inputs": {}, "runs": []}  # fmt: skip
        save_results(part.histograms, {**part.report, **more}, tmp_path / name)
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    both = load_results(tmp_path / "both")
    assert [m["name"] for m in both.report["models"]] == ["model_one", "model_two"]
    assert both.report["lumi"] is None
    titles = []

    class Axes:
        def set_title(self, text, loc):
            titles.append(text)

        def __getattr__(self, name):
            return lambda *_, **__: None

    from contextlib import contextmanager

    @contextmanager
    def canvas(path):
        yield {(0, 0): Axes()}

    monkeypatch.setattr(plotting, "canvas", canvas)
    monkeypatch.setattr("mplhep.histplot", lambda *_, **__: None)
    plotting.stack(both, "m", "inclusive", tmp_path / "x.png")
    assert titles[1] == "inclusive, 10, 20 fb$^{-1}$"


def test_a_score_is_drawn_with_the_thresholds_of_its_own_model(monkeypatch, tmp_path):
    from coffea_ad.plotting import stack, thresholds_of

    monkeypatch.setattr("matplotlib.axes.Axes.axvline", lambda _ax, x, **_: lines.append(x))
    lines: list[float] = []
    of_events = results(qcd="background")
    of_events.histograms["qcd"]["ad_logp"] = histogram(10)
    point = {"cells": [], "tagger": "ad", "thresholds": [2.0]}
    of_events.report["regions"] = {
        "inclusive": {"cells": [], "tagger": "ad"},
        "loose": point | {"region": "loose", "thresholds": [1.0]},
        "medium_1tag": point | {"region": "medium"},
        "medium_2tag": point | {"region": "medium"},
        "flat": point | {"region": "flat", "thresholds": [1.2, 1.4, 1.9]},
        "ad2_loose": point | {"region": "loose", "tagger": "ad2", "thresholds": [0.7]},
    }
    assert thresholds_of(of_events, "ad_logp") == {"loose": 1.0, "medium": 2.0}
    assert thresholds_of(of_events, "ad2_logp") == {"loose": 0.7}
    assert thresholds_of(of_events, "m") == {}
    stack(of_events, "ad_logp", "inclusive", tmp_path / "x.png")
    assert lines == [1.0, 2.0]
    stack(of_events, "m", "inclusive", tmp_path / "x.png")
    assert lines == [1.0, 2.0]


def test_distributions_of_a_score_have_the_same_area_and_show_where_regions_begin(monkeypatch, tmp_path):
    from coffea_ad.plotting import score_distribution

    rng, drawn, lines = np.random.default_rng(1), {}, []
    monkeypatch.setattr("matplotlib.axes.Axes.axvline", lambda _ax, x, **_: lines.append(x))
    from matplotlib.axes import Axes

    stairs = Axes.stairs
    monkeypatch.setattr(
        Axes,
        "stairs",
        lambda ax, values, edges, **look: drawn.update({look["label"]: values}) or stairs(ax, values, edges, **look),
    )
    background = rng.normal(-9, 1, 5000), rng.uniform(0, 2, 5000)
    signals = {"1 TeV": rng.normal(-8, 1, 50), "4 TeV": rng.normal(-7, 1, 400)}
    score_distribution(background, signals, {"loose": -7.5, "tight": -6.5}, tmp_path / "x.png", xlabel="ln MAE")
    assert list(drawn) == ["background", "1 TeV", "4 TeV"]
    for values in drawn.values():
        assert values.sum() == pytest.approx(1, abs=5e-3)
    assert lines == [-7.5, -6.5]
    assert (tmp_path / "x.png").stat().st_size > 0
