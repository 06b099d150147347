"""In a notebook: results by the names of their histograms, tables in HTML, and bars that are one output."""

from __future__ import annotations

import builtins
import sys
import types

import hist
import numpy as np
import pytest
from search_toys import with_signal
from toys import DATA

import coffea_ad as ad
from coffea_ad import evaluation, progress
from coffea_ad.errors import BadFile, ConfigError, NotNormalisable, UnknownName
from coffea_ad.results.results import Results
from coffea_ad.results.yields import yields
from coffea_ad.running import RunReport
from coffea_ad.search.listing import SearchResults, load_search
from coffea_ad.tables import Listing


def over_regions(contents, regions=("all", "some"), variations=("nominal",)):
    """A histogram over regions, variations and m; each has another content in each of its bins."""
    axes = (
        hist.axis.StrCategory(list(regions), name="region"),
        hist.axis.StrCategory(list(variations), name="variation"),
    )
    h = hist.Hist(*axes, hist.axis.Regular(3, 0, 3, name="m"), storage=hist.storage.Weight())
    h.view(flow=True)["value"][: len(regions), : len(variations)] = contents
    h.view(flow=True)["variance"][: len(regions), : len(variations)] = 2 * contents
    return h


def entry(n, *, mc=True, **more):
    return {
        "metadata": {"is_mc": mc, "xsec": 1.0},
        "lumi": 1e-3,
        "sumw": 2.0,
        "events": n,
        "files": {},
        "failed": [],
        **more,
    }


@pytest.fixture
def results():
    rng = np.random.default_rng(1)
    named = {"qcd": {"m": over_regions(rng.uniform(1, 9, (2, 3, 5)), variations=("nominal", "upUp", "upDown"))},
             "tt": {"m": over_regions(rng.uniform(1, 9, (2, 1, 5)))},
             "met": {"m": over_regions(rng.uniform(1, 9, (2, 1, 5)))}}  # fmt: skip
    datasets = {"qcd": entry(5), "tt": entry(5, lumi=2e-3), "met": entry(5, mc=False)}
    return Results(named, {"datasets": datasets, "lumi": 1e-3, "processor": "p", "models": [], "notes": []})


def test_a_histogram_by_its_name_has_every_bin_of_every_dataset_at_luminosity(results):
    h = results["m"]
    assert h.axes.name == ("dataset", "region", "variation", "m")
    for dataset in ("qcd", "tt", "met"):
        raw, norm = results.histograms[dataset]["m"], results.norm(dataset)
        for region in ("all", "some"):
            for variation in ("nominal", "upUp", "upDown"):
                has = variation if variation in raw.axes["variation"] else "nominal"
                for i in (hist.underflow, 0, 1, 2, hist.overflow):
                    one, other = h[dataset, region, variation, i], raw[region, has, i]
                    assert (one.value, one.variance) == pytest.approx((norm * other.value, norm**2 * other.variance))
    total = h[{"dataset": sum, "region": "some", "variation": "upUp"}]
    assert total.sum(flow=True).value == pytest.approx(
        sum(h[d, "some", "upUp", :].sum(flow=True).value for d in ("qcd", "tt", "met"))
    )


def test_results_name_their_histograms(results):
    assert list(results) == ["m"]
    assert "m" in results
    assert "mt" not in results
    assert results._ipython_key_completions_() == ["m"]
    with pytest.raises(UnknownName, match="unknown histogram 'mm'; did you mean 'm'"):
        results["mm"]


def test_what_is_hidden_or_not_there_is_no_number(results):
    entries = results.report["datasets"]
    entries["met"] |= {"blinded": True, "hidden_cells": ["2"], "regions": {"all": ["1", "2"], "some": ["2"]}}
    results.histograms["tt"]["m"] = over_regions(np.ones((1, 1, 5)), regions=("all",))
    h = results["m"]
    assert np.isnan(h["met", "some", "nominal", :].values(flow=True)).all()
    assert np.isnan(h["tt", "some", "nominal", :].values(flow=True)).all()
    assert np.isfinite(h["met", "all", "nominal", :].values(flow=True)).all()
    assert np.isfinite(results.histograms["met"]["m"].values(flow=True)).all()  # those of the results are as they were


def test_histograms_of_all_datasets_are_brought_to_luminosity_dataset_by_dataset(results):
    common = hist.Hist(hist.axis.StrCategory(["qcd", "tt"], name="dataset"), hist.axis.Regular(2, 0, 2, name="x"))
    common.fill(dataset=["qcd", "tt", "tt"], x=0.5)
    other = hist.Hist(hist.axis.Regular(2, 0, 2, name="y")).fill(y=[0.5, 0.6])
    results.histograms["all"] = {"x": common, "y": other}
    assert results["x"]["qcd", 0] == pytest.approx(results.norm("qcd"))
    assert results["x"]["tt", 0] == pytest.approx(2 * results.norm("tt"))
    assert results["y"] == other


def test_histograms_that_do_not_belong_together_are_refused_by_name(results):
    axis = hist.axis.Regular(4, 0, 3, name="m")
    results.histograms["tt"]["m"] = hist.Hist(
        *results.histograms["tt"]["m"].axes[:2], axis, storage=hist.storage.Weight()
    )
    with pytest.raises(ConfigError, match="histogram m: the axes of tt are not those of qcd"):
        results["m"]
    results.report["datasets"]["tt"]["sumw"] = None
    with pytest.raises(NotNormalisable, match="dataset tt"):
        results["m"]


def test_yields_are_sums_with_their_errors_and_say_what_is_hidden(results):
    results.report["datasets"]["met"] |= {"hidden_cells": ["2"], "regions": {"some": ["2"]}}
    results.report["datasets"]["tt"]["lumi"] = 1e-3
    (table,), notes = yields(results)
    assert notes == []
    assert table.columns == ("region", "qcd", "tt", "all background", "data")
    assert [row[-1] == "hidden" for row in table.rows] == [False, True]
    parts = {d: results.scaled(d, "m", "all") for d in ("qcd", "tt")}
    totals = {d: h[{"variation": "nominal"}].sum(flow=True) for d, h in parts.items()}
    assert table.rows[0][1] == f"{totals['qcd'].value:.1f} ± {np.sqrt(totals['qcd'].variance):.1f}"
    shifts = [parts["qcd"][{"variation": v}].sum(flow=True).value - totals["qcd"].value for v in ("upUp", "upDown")]
    variance = sum(t.variance for t in totals.values())
    down, up = (np.sqrt(variance + sum(f(s, 0) ** 2 for s in shifts)) for f in (min, max))
    value = sum(t.value for t in totals.values())
    expected = f"{value:.1f} ± {up:.1f}" if f"{up:.1e}" == f"{down:.1e}" else f"{value:.1f} +{up:.1f} −{down:.1f}"
    assert table.rows[0][3] == expected


@pytest.mark.parametrize(
    ("value", "errors", "text"),
    [
        (39226.0, [22647.0], "39000 ± 23000"),
        (2254321.0, [1312345.0], "(2.3 ± 1.3)·10⁶"),
        (0.0123, [0.00456], "0.0123 ± 0.0046"),
        (1.0e-7, [3e-8], "(1.00 ± 0.30)·10⁻⁷"),
        (12.3, [4.56, 3.21], "12.3 +4.6 −3.2"),
        (0.0, [0.0], "0 ± 0"),
    ],
)
def test_numbers_are_written_to_two_digits_of_their_errors(value, errors, text):
    from coffea_ad.results.yields import _with_errors

    assert _with_errors(value, errors) == text


# --- tables -------------------------------------------------------------------------------------------------------------


def test_results_reports_and_cards_show_themselves_and_no_markup_of_others(results):
    results.report["datasets"]["<b>x</b>"] = entry(3)
    results.report["datasets"]["<b>x</b>"]["failed"] = [{"dataset": "x", "file": "f", "cause": "f: <i>no</i>"}]
    report = RunReport(
        outputs={}, datasets=results.report["datasets"], config={}, versions={}, models=[], processor="p", executor="e", lumi=1.0,
        seconds=1.0, notes=["a < b"],
    )  # fmt: skip
    shown = [thing._repr_html_() for thing in (results, report, ad.Tagger(DATA / "wnae.onnx").card)]
    assert all("<table>" in html for html in shown)
    assert not any("<b>x" in html or "<i>no" in html for html in shown)
    assert "&lt;b&gt;x&lt;/b&gt;</td>" in shown[0]
    assert "f: &lt;i&gt;no&lt;/i&gt;" in shown[1]
    assert "a &lt; b" in shown[1]
    assert "WNAE, jet level" in shown[2]


def test_evaluations_and_searches_show_themselves(tmp_path):
    rng = np.random.default_rng(1)
    background, signal = (evaluation.Sample({"x": rng.normal(shift, 1, 300)}) for shift in (0, 1))
    html = evaluation.evaluate(background, {"svj": signal}, n_bootstrap=2)._repr_html_()
    assert ">svj</caption>" in html
    search = pytest.importorskip("coffea_ad.search.search", reason="not installed: search", exc_type=ImportError)
    from coffea_ad.search.config import SearchConfig

    with_signal(tmp_path / "results")
    config = SearchConfig.model_validate({"regions": ["tight"], "toys": 0, "limits": {"widths": []}, "exports": False})
    content = search.search(tmp_path / "results", tmp_path / "search", config, figures=False)
    assert isinstance(content, SearchResults)
    assert content["verdict"] in repr(content)
    assert "mjj in tight</td>" in content._repr_html_()
    again = load_search(tmp_path / "search")
    assert again == dict(again)
    assert again["verdict"] == content["verdict"]
    assert again["input"]["histograms"] == ad.load_results(tmp_path / "results").report["histograms"]
    with pytest.raises(BadFile, match="there is no search.json"):
        load_search(tmp_path)


def test_a_search_leaves_no_figures_of_an_earlier_one(tmp_path):
    search = pytest.importorskip("coffea_ad.search.search", reason="not installed: search", exc_type=ImportError)
    from coffea_ad.search.config import SearchConfig

    with_signal(tmp_path / "results")
    (tmp_path / "search" / "figures").mkdir(parents=True)
    (tmp_path / "search" / "figures" / "mjj_tight.png").write_bytes(b"of unblinded data")
    config = SearchConfig.model_validate({"regions": ["tight"], "toys": 0, "limits": {"widths": []}, "exports": False})
    search.search(tmp_path / "results", tmp_path / "search", config, figures=False)
    assert list((tmp_path / "search" / "figures").iterdir()) == []


def test_columns_of_numbers_are_on_the_right():
    html = Listing(
        "", ("name", "n", "value", "text"), (("a", "12", "1.5 ± 0.2", "1 apple"), ("b", "–", "(2 ± 1)·10⁶", "x"))
    ).html()
    sides = [cell.split('"')[1] for cell in html.split("<td")[1:5]]
    assert sides == ["text-align: left", "text-align: right", "text-align: right", "text-align: left"]


# --- bars ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(monkeypatch):
    """A notebook as far as a bar asks for it; what is displayed is collected, {id: states}."""
    outputs = {}

    class ZMQInteractiveShell:
        pass

    class Handle:
        def __init__(self, number):
            self.number = number

        def update(self, bundle, *, raw):
            outputs[self.number].append(bundle)

    def display(bundle, *, raw, display_id):
        outputs[len(outputs)] = [bundle]
        return Handle(len(outputs) - 1)

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    module = types.ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return outputs


def test_a_bar_in_a_notebook_is_one_output_that_is_replaced(notebook, capsys):
    with progress.progress("<Doing>", 500) as advance:
        for _ in range(500):
            advance(note="3 kHz")
    assert len(notebook) == 1
    assert 2 <= len(notebook[0]) < 10
    last = notebook[0][-1]
    assert last["text/plain"].startswith("<Doing> 500/500, ")
    assert last["text/html"].startswith('&lt;Doing&gt; <progress value="500"')
    assert "3 kHz" in last["text/html"]
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_notebook_shows_how_far_it_was_when_something_went_wrong(notebook):
    def work():
        with progress.progress("Doing", 3) as advance:
            advance(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert notebook[0][-1]["text/plain"].startswith("Doing 2/3")


def test_a_real_notebook_has_one_output_for_a_bar():
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    code = (
        "from coffea_ad.progress import progress\nwith progress('Doing', 2) as advance:\n    advance()\n    advance()"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client.NotebookClient(book, timeout=60).execute()
    (output,) = book.cells[0].outputs
    assert output["data"]["text/plain"].startswith("Doing 2/2")
