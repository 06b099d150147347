"""Figures of results: data added, signals over the background, luminosity and models of all runs that were merged."""

from __future__ import annotations

import json

import hist
import numpy as np
import pytest
from toys import DATA

import coffea_ad as ad
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

    def record(h, *edges, **settings):
        total = (
            [x.sum().value for x in h] if isinstance(h, list) else np.nansum(h.values() if hasattr(h, "values") else h)
        )
        calls[str(settings["label"])] = (settings["histtype"], total)
        return histplot(h, *edges, **settings)

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
    def canvas(path, *_, **__):
        yield {(0, 0): Axes()}

    monkeypatch.setattr("coffea_ad.plotting.stacks.canvas", canvas)
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


def spectra(*, n=40, **kinds):
    """Results of datasets whose spectra fall over ten bins of 50 GeV, with a variation of the simulated ones."""
    of = results(**kinds)
    for i, (name, kind) in enumerate(kinds.items()):
        names = ["nominal"] if kind == "data" else ["nominal", "jesUp", "jesDown"]
        axes = (
            hist.axis.StrCategory(["inclusive", "empty"], name="region"),
            hist.axis.StrCategory(names, name="variation"),
        )
        h = hist.Hist(*axes, hist.axis.Regular(10, 0, 500, name="m", label="mass [GeV]"), storage=hist.storage.Weight())
        x = np.random.default_rng(i).exponential(100, n * (i + 1))
        for name_of in names:
            h.fill(region="inclusive", variation=name_of, m=x * {"jesUp": 1.1, "jesDown": 0.9}.get(name_of, 1.0))
        of.histograms[name]["m"] = h
    return of


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """Draw a stack, and return its axes."""
    from matplotlib.figure import Figure

    from coffea_ad.plotting import Style, stack

    shown = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda fig, *a, **k: shown.append(fig) or savefig(fig, *a, **k))

    def draw(of, **style):
        shown.clear()
        stack(of, "m", "inclusive", tmp_path / "x.png", style=Style(**style))
        return shown[0].axes

    return draw


def filled_colors(ax):
    """{label: colour} of the stacked processes in the legend."""
    handles, labels = ax.get_legend_handles_labels()
    return {t: h.get_facecolor() for t, h in zip(labels, handles, strict=True) if hasattr(h, "get_facecolor")}


def test_a_process_has_one_colour_in_all_figures_of_a_run(figure):
    every = filled_colors(figure(spectra(qcd="background", tt="background", wjets="background"))[0])
    without = spectra(qcd="background", tt="background", wjets="background")
    del without.histograms["qcd"]
    fewer = filled_colors(figure(without)[0])
    assert "qcd" not in fewer
    assert {"tt", "wjets"} <= set(fewer)
    assert all(np.array_equal(fewer[p], every[p]) for p in ("tt", "wjets"))
    assert len({str(every[p]) for p in ("qcd", "tt", "wjets")}) == 3


def test_a_style_names_colours_orders_and_groups_processes(figure):
    of = spectra(qcd="background", ww="background", zz="background")
    style = {"labels": {"qcd": "multijet"}, "colors": {"qcd": "#123456"}, "groups": {"diboson": ["ww", "zz"]}}
    colors = filled_colors(figure(of, **style, experiment="ATLAS", status="Internal")[0])
    assert set(colors) == {"multijet", "diboson", "uncertainty"}
    assert np.allclose(np.ravel(colors["multijet"])[:3], [0x12 / 255, 0x34 / 255, 0x56 / 255])
    from_above = [p for p in filled_colors(figure(of, order=["zz", "qcd", "ww"])[0]) if p != "uncertainty"]
    assert from_above == ["ww", "qcd", "zz"]  # a legend reads like the stack
    assert figure(of, experiment="ATLAS", status="Internal")[0].get_title(loc="left") == "ATLAS Internal"


def test_data_are_compared_with_the_background_in_a_panel_of_their_own(figure):
    assert len(figure(spectra(qcd="background", svj="signal"))) == 1
    assert len(figure(spectra(runA="data"))) == 1
    top, ratio = figure(spectra(qcd="background", runA="data"))
    assert ratio.get_ylabel() == "data / bkg."
    assert (top.get_xlabel(), ratio.get_xlabel()) == ("", "mass [GeV]")
    assert top.get_ylabel() == "events / 50 GeV"
    of = spectra(qcd="background", runA="data")
    expected = of.histograms["runA"]["m"][{"region": "inclusive", "variation": "nominal"}].values()
    background = of.histograms["qcd"]["m"][{"region": "inclusive", "variation": "nominal"}].values()
    points = ratio.containers[0].lines[0].get_ydata()
    both = (background > 0) & (expected > 0)
    np.testing.assert_allclose(points, expected[both] / background[both])


def test_a_factor_on_a_signal_stands_in_the_legend(figure):
    of = spectra(qcd="background", svj="signal", n=400)
    of.histograms["svj"]["m"] *= 1e-4
    _, labels = figure(of, signal_scale="auto")[0].get_legend_handles_labels()
    assert "svj × 1000" in labels
    _, labels = figure(of, signal_scale=3)[0].get_legend_handles_labels()
    assert "svj × 3" in labels


def test_regions_without_an_entry_are_not_drawn(tmp_path):
    from coffea_ad.plotting import drawable, stack

    of = spectra(qcd="background")
    assert drawable(of) == {"m": ["inclusive"]}
    with pytest.raises(UnknownName, match="region with entries 'empty'"):
        stack(of, "m", "empty", tmp_path / "x.png")


def test_figures_are_drawn_again_in_another_style_which_stays(tmp_path, capsys):
    from coffea_ad.cli.main import main

    folder = tmp_path / "r"
    fileset = {"qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    loose = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]
    ad.run(
        fileset, "semivisible_jets", model=None, output=folder, executor="iterative", progress=False, overrides=loose
    )
    (tmp_path / "style.yaml").write_text("labels: {qcd: multijet}\nformats: [pdf, png]\n")
    assert main(["plot", str(folder), "--style", str(tmp_path / "style.yaml"), "--observable", "met", "log=false"]) == 0
    assert {p.name for p in (folder / "figures").iterdir()} == {"met_inclusive.pdf", "met_inclusive.png", "style.yaml"}
    assert main(["plot", str(folder), "--observable", "ht"]) == 0
    assert (folder / "figures" / "ht_inclusive.pdf").exists()
    assert main(["plot", str(folder), "--observable", "mx"]) == 1
    assert main(["plot", str(folder), "lgo=true"]) == 1
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("colours: {}\n")
    fileset_file = tmp_path / "fileset.json"
    fileset_file.write_text(json.dumps(fileset))
    words = ["run", "semivisible_jets", "--fileset", str(fileset_file), "-o", str(tmp_path / "never")]
    assert main([*words, "--style", str(wrong)]) == 1
    assert not (tmp_path / "never").exists()  # said before anything has run
    err = capsys.readouterr().err
    assert "did you mean 'colors'" in err
    assert "unknown observable 'mx'" in err
    assert "did you mean 'log'" in err
    assert ad.load_results(folder).report["processor"] == "semivisible_jets"


def test_bins_without_data_have_no_point(figure):
    of = spectra(qcd="background", runA="data", n=6)
    counts = of.histograms["runA"]["m"][{"region": "inclusive", "variation": "nominal"}].values()
    assert (counts == 0).any()
    top = figure(of)[0]
    points = dict(zip(*reversed(top.get_legend_handles_labels()), strict=True))["runA"]
    np.testing.assert_array_equal(np.isfinite(points.lines[0].get_ydata()), counts > 0)


def test_figures_of_two_eras_have_the_uncertainty_and_the_luminosity_of_the_sums(monkeypatch, tmp_path):
    """A source that is uncorrelated between eras counts once in each; one luminosity for both is that of each."""
    from coffea_ad.plotting import Style, stacks
    from coffea_ad.plotting.samples import samples
    from coffea_ad.results.sums import add_variations, uncertainty

    of = results(tt17="background", tt18="background")
    axes = (
        hist.axis.StrCategory(["inclusive"], name="region"),
        hist.axis.StrCategory(["nominal", "jesUp", "jesDown"], name="variation"),
        hist.axis.Regular(1, 0, 1, name="m", label="m"),
    )
    for name, entry in of.report["datasets"].items():
        entry["metadata"] |= {"process": "tt", "year": f"20{name[2:]}"}
        h = hist.Hist(*axes, storage=hist.storage.Weight())
        h.view()["value"][0, :, 0], h.view()["variance"][0, :, 0] = (100, 130, 70), 0.0
        of.histograms[name] = {"m": h}
    of.report["variations"] = {f"jes{d}": {"source": "jes", "direction": d.lower(), "correlated": False} for d in ("Up", "Down")}  # fmt: skip
    drawn = list(samples(of, "m", "inclusive", Style()).background.values())
    tabled = list(of.background("m").values()) if of.report.update(lumi=None) is None else []
    for several in (drawn, tabled):
        np.testing.assert_allclose(uncertainty(add_variations(several)), np.full((2, 1), 30 * np.sqrt(2)))
    assert stacks._luminosity(of, ["tt17", "tt18"]) == "0.001 fb$^{-1}$ for each of 2 eras"
    assert stacks._luminosity(of, ["tt17"]) == "0.001 fb$^{-1}$"


def in_regions(h, inside):
    """A histogram over inclusive and one region, of which a part of every bin is in that region."""
    axes = (
        hist.axis.StrCategory(["inclusive", "loose"], name="region"),
        hist.axis.StrCategory(["nominal"], name="variation"),
    )
    out = hist.Hist(*axes, h.axes[0], storage=hist.storage.Weight())
    view = h.view()
    out.view()[0, 0], out.view()[1, 0] = view, view
    out.view()[1, 0].value, out.view()[1, 0].variance = view.value * inside, view.variance * inside
    return out


def test_efficiencies_of_regions_have_the_error_of_a_part_of_weighted_events():
    from coffea_ad.plotting import efficiencies

    axis = hist.axis.Regular(2, 0, 2, name="m", label="mass [GeV]")
    h = hist.Hist(axis, storage=hist.storage.Weight()).fill(m=[0.5] * 100 + [1.5] * 25, weight=[2.0] * 100 + [1.0] * 25)
    of = results(qcd="background", svj="signal")
    of.histograms["qcd"]["m"], of.histograms["svj"]["m"] = in_regions(h, 0.2), in_regions(h, 1.0)
    edges, eps, error = efficiencies(of, "m")["loose"]
    np.testing.assert_array_equal(edges, [0, 1, 2])
    np.testing.assert_allclose(eps, 0.2)
    np.testing.assert_allclose(error, [np.sqrt(0.2 * 0.8 / 100), np.sqrt(0.2 * 0.8 / 25)])


def test_all_events_of_a_further_model_are_no_region_with_an_efficiency():
    from coffea_ad.plotting import efficiencies

    axis = hist.axis.Regular(1, 0, 1, name="m", label="mass [GeV]")
    of = results(qcd="background")
    of.histograms["qcd"]["m"] = in_regions(hist.Hist(axis, storage=hist.storage.Weight()).fill(m=[0.5] * 9), 1.0)
    assert list(efficiencies(of, "m")) == ["loose"]
    of.report["regions"] = {"loose": {"tagger": "ad2", "cells": ["0"]}}
    assert list(efficiencies(of, "m")) == []


def test_a_bin_with_few_events_has_no_efficiency():
    """One event would have an efficiency of 0 or 1, and no error."""
    from coffea_ad.plotting import efficiencies

    axis = hist.axis.Regular(3, 0, 3, name="m", label="mass [GeV]")
    h = hist.Hist(axis, storage=hist.storage.Weight()).fill(m=[0.5] * 100 + [1.5] + [2.5] * 4)
    of = results(qcd="background")
    of.histograms["qcd"]["m"] = in_regions(h, 1.0)
    _, eps, error = efficiencies(of, "m")["loose"]
    np.testing.assert_array_equal(eps, [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(error, [0.0, np.nan, 0.0])


def test_efficiencies_of_blinded_data_are_not_known():
    from coffea_ad.errors import ConfigError
    from coffea_ad.plotting import efficiencies
    from coffea_ad.plotting.overviews import divisible

    axis = hist.axis.Regular(1, 0, 1, name="m", label="mass [GeV]")
    h = hist.Hist(axis, storage=hist.storage.Weight()).fill(m=[0.5] * 100)
    of = results(met="data")
    of.histograms["met"]["m"] = in_regions(h, 0.5)
    assert divisible(of) == ["m"]
    of.report["datasets"]["met"] |= {"blinded": True, "hidden_cells": ["1"]}
    assert divisible(of) == []
    with pytest.raises(ConfigError, match="blinded"):
        efficiencies(of, "m")


def overview(name, monkeypatch, tmp_path, *arguments, **more):
    """Draw an overview, and return its axes."""
    from matplotlib.figure import Figure

    from coffea_ad import plotting

    shown = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda fig, *a, **k: shown.append(fig) or savefig(fig, *a, **k))
    getattr(plotting, name)(*arguments, tmp_path / "x.png", **more)
    return shown[0].axes


def test_a_cutflow_is_the_part_of_the_weight_of_each_process(monkeypatch, tmp_path):
    from coffea_ad.errors import ConfigError
    from coffea_ad.plotting import Style

    of = results(qcd="background", ww="background", runA="data")
    with pytest.raises(ConfigError, match="has counted no cuts"):
        overview("cutflow", monkeypatch, tmp_path, of)
    for i, entry in enumerate(of.report["datasets"].values()):
        entry["cutflow"] = {"all": {"events": 10, "weight": 4.0}, "trigger": {"events": 5, "weight": 1.0 + i}}
    ax = overview("cutflow", monkeypatch, tmp_path, of, style=Style(groups={"mc": ("qcd", "ww")}))[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["all", "trigger"]
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["mc"], [1.0, 3.0 / 8.0])  # of equal cross-sections and sums of weights
    np.testing.assert_allclose(lines["data"], [1.0, 0.5])  # by events


def test_cutflows_of_other_steps_stand_at_their_own(monkeypatch, tmp_path):
    """Such as that of blinded data, which has the first and the last one only, and may come first."""
    of = results(runA="data", qcd="background", ww="background", runB="data")
    steps = {"all": 10, "trigger": 5, "dphi": 2}
    for name, entry in of.report["datasets"].items():
        has = {s: n for s, n in steps.items() if name != "runA" or s != "trigger"}
        entry["cutflow"] = {s: {"events": n, "weight": float(n)} for s, n in has.items()}
    of.report["datasets"]["ww"]["cutflow"] = {"all": 10, "trigger": 3}  # a processor's own counts
    ax = overview("cutflow", monkeypatch, tmp_path, of)[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["all", "trigger", "dphi"]
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}
    assert lines == {"data": ([0, 2], [1.0, 0.2]), "qcd": ([0, 1, 2], [1.0, 0.5, 0.2])}


def test_results_without_an_event_have_no_overviews():
    from coffea_ad.plotting import Style
    from coffea_ad.plotting.drawing import overview_figures

    of = results(qcd="background")
    axis = hist.axis.Regular(4, 0, 4, name="ad_logp_min", label="score")
    of.histograms["qcd"] = {"m": histogram(0), "m-ad_logp_min": histogram(0, axis)}
    of.report["datasets"]["qcd"]["cutflow"] = {"all": {"events": 0, "weight": 0.0}}
    assert overview_figures(of, Style()) == {}


def test_a_score_against_a_mass_has_the_steps_of_its_thresholds(monkeypatch, tmp_path):
    of = results(qcd="background", svj="signal")
    axis = hist.axis.Regular(4, 0, 4, name="ad_logp_min", label="score")
    plane = {name: histogram(10, axis) for name in of.histograms}
    for name, h in plane.items():
        of.histograms[name]["m-ad_logp_min"] = h
    region = {"tagger": "ad", "region": "loose", "thresholds": [1.0, 2.0, 3.0], "edges": [1.6, 9.0], "spectator": "m"}
    of.report["regions"] = {"inclusive": {"tagger": "ad"}, "loose_1tag": region, "loose_2tag": region}
    axes = overview("score_against", monkeypatch, tmp_path, of, "m-ad_logp_min")
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["background", "svj"]
    assert axes[0].get_xlim() == (1.0, 2.0)  # where events are
    (steps,) = [p for p in axes[0].patches if type(p).__name__ == "StepPatch"]
    np.testing.assert_array_equal(steps.get_data().values, [1.0, 2.0])
    np.testing.assert_array_equal(steps.get_data().edges, [1.0, 1.6, 2.0])
    with pytest.raises(UnknownName, match="did you mean 'm-ad_logp_min'"):
        overview("score_against", monkeypatch, tmp_path, of, "m-ad_logp")


def test_inputs_that_are_farthest_from_the_training_are_drawn(monkeypatch, tmp_path):
    drifts = {"simulation": {"f.a": 0.1, "f.b": 0.3, "f.c": 0.2}, "data": {"f.a": 0.5, "f.b": 0.0, "f.c": 0.0}}
    ax = overview("inputs", monkeypatch, tmp_path, drifts, most=2)[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert sorted(round(bar.get_width(), 3) for bar in ax.patches) == [0.0, 0.1, 0.3, 0.5]
