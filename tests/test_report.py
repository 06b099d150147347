"""The page of a report: all of its parts, nothing that loads or runs, nothing that results hide, and no wider than a phone."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import struct
import zlib

import browser
import numpy as np
import pytest
from search_toys import with_signal
from test_blinding import WIDE
from toys import DATA

import coffea_ad as ad
from coffea_ad import report as reporting
from coffea_ad.cli.main import main
from coffea_ad.errors import BadFile, ConfigError
from coffea_ad.event_lists import TopEvents
from coffea_ad.explaining.explanations import Part
from coffea_ad.report import blocks, page
from coffea_ad.results import load_results, save_results

pytestmark = pytest.mark.plot
HOSTILE = "<script>alert('x')</script>"


def png(color, width=64, height=48):
    """A picture of one colour."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = (b"\0" + bytes(color) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(picture):
    return base64.b64encode(picture).decode()


def event_list(dataset, n=30):
    columns = {
        name: [text] * n
        for name, text in (("dataset", dataset), ("file", "/a/b.root"), ("uuid", "u"), ("tree", "Events"))
    }
    columns |= dict.fromkeys(("entry", "run", "luminosityBlock", "event"), np.arange(n) // 2)
    return TopEvents.from_columns(
        n,
        ("ad_logp",),
        {**columns, "weight": np.ones(n), "ad_logp": np.arange(n, 0.0, -1.0), "mjj": np.ones(n)},
        ranked=n,
    )


def trained(folder, epoch=3.0):
    """The shipped model, and beside it the folder of a training that ended in this epoch of its card."""
    (folder / "wnae").mkdir(parents=True)
    shutil.copy(DATA / "wnae.onnx", folder)
    metrics = ad.Tagger(DATA / "wnae.onnx").card.provenance.get("metrics", {})
    (folder / "wnae" / "metrics.jsonl").write_text(json.dumps({"epoch": epoch, **metrics}) + "\n")
    for name, color in (("training", (0, 90, 0)), ("chains", (0, 0, 90))):
        (folder / "wnae" / f"{name}.png").write_bytes(png(color))
    return folder / "wnae.onnx"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Results with a model, failures, event lists and hostile texts, their search, and an evaluation."""
    from coffea_ad import evaluation
    from coffea_ad.search.config import SearchConfig
    from coffea_ad.search.search import search

    root = tmp_path_factory.mktemp("report")
    model = trained(root / "models")
    tagger = ad.Tagger(model)
    made = with_signal(root / "results", background=True)
    made.report["models"] = [
        {
            "file": str(model),
            "name": "wnae",
            "digest": tagger.scorer.digest,
            "network": "n" * 64,
            "calibration": "c" * 64,
        }
    ]
    made.report["notes"] = [HOSTILE, "x" * 300]
    made.report["datasets"]["qcd"]["failed"] = [{"dataset": "qcd", "file": "/a.root", "cause": f"/a.root: {HOSTILE}"}]
    made.report["inputs"] = {
        "ad": {
            "datasets": {"qcd": {"rows": 7, "unscored": 0, "undefined": {"jet.tau2": 3}}},
            "drift": {"data": {"jet.tau2": 0.25}},
        }
    }
    made.report.update({"versions": {"coffea": "2026.9.0"}, "config": {"met_min": 50}, "seconds": 3.0})
    save_results(made.histograms, made.report, root / "results", {"events": {"ad": event_list("events")}})
    config = SearchConfig.model_validate(
        {"observables": ["mjj"], "regions": ["tight"], "toys": 10, "limits": {"masses": [2500, 3500]}, "exports": False}
    )
    search(root / "results", root / "search", config)
    rng = np.random.default_rng(1)
    background, signal = ({"a": rng.normal(shift, 1, 400), "b": rng.normal(0, 1, 400)} for shift in (0, 1))
    rows = evaluation.evaluate(evaluation.Sample(background), {"svj": evaluation.Sample(signal)}, n_bootstrap=2)
    evaluation.write(rows, root / "evaluation")
    return root


@pytest.fixture(scope="module")
def text(folders):
    shown = [reporting.Display("1:2:3", "events", png((9, 9, 9)))]
    why = [
        reporting.Contributions(
            "1:2:3", "events", [Part("tau2", 0.4, 0.2, 3.0, 1.5), Part("mass", 80.0, math.nan, -1.0, -0.5)]
        )
    ]
    others = [folders / "search", folders / "evaluation"]
    assert (
        reporting.write_report(
            folders / "results", others, folders / "all.html", pictures=0, displays=shown, contributions=why
        )
        == []
    )
    return (folders / "all.html").read_text()


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn of results, in the place of the pictures."""
    calls = []

    def stack(results, observable, region, path, **_):
        calls.append((observable, region))
        path.write_bytes(png((1, 2, 3)))

    monkeypatch.setattr("coffea_ad.report.spectra.plotting.stack", stack)
    return calls


def titles(text):
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_a_page_has_a_part_for_everything_in_the_folders(text, folders):
    assert titles(text) == [
        "What ran",
        "Models",
        "Regions",
        "Overviews",
        "Spectra",
        "Search",
        "Evaluation",
        "Most anomalous events",
        "Provenance",
    ]
    results, search = load_results(folders / "results"), json.loads((folders / "search" / "search.json").read_text())
    assert search["verdict"] in text
    assert results.report["models"][0]["digest"] in text
    assert results.report["histograms"] in text
    for words in (
        "1 file or chunk failed",
        "jet.tau2 3",
        "0.250",
        "WNAE, jet level",
        "20 of 30 events",
        "is there 2 times",
        "150.0 %",  # of a sum of parts of either sign
        "coffea</td>",
    ):
        assert words in text
    assert (
        text.count("<img ") == 3 + 2 + 2 + 4 + 3 + 1
    )  # spectra in regions, overviews, training, search, evaluation, display


def test_all_links_of_the_contents_lead_somewhere(text):
    places = set(re.findall(r'id="([^"]+)"', text))
    links = re.findall(r'href="#([^"]+)"', text)
    assert set(links) <= places
    assert len(links) > len(titles(text))


def test_nothing_of_a_page_is_loaded_or_run(text):
    assert not re.search(r"<script|<iframe|<object|@import|\son\w+\s*=", text)
    assert set(re.findall(r'(?:src|href)="([a-z]+:|#)', text)) == {"data:", "#"}
    assert "default-src 'none'" in text


def test_texts_of_others_are_shown_as_they_are_and_never_as_markup(text):
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert(") == 2


def test_a_table_of_yields_has_the_sums_of_histograms(text, folders):
    results = load_results(folders / "results")
    for region in ("inclusive", "tight"):
        n = results.data("mjj", region).sum(flow=True).value
        total = sum(
            h[{"variation": "nominal"}].sum(flow=True).value for h in results.background("mjj", region).values()
        )
        row = re.search(rf"<tr><td[^>]*>{region}</td>(.*?)</tr>", text[text.index("<h2>Regions") :])[1]
        assert f">{n:.0f}</td>" in row
        assert f"{total:.0f} ± " in row or f"{total:.1f} ± " in row or f"{round(total, -1):.0f} ± " in row


def test_a_page_needs_no_search_and_no_evaluation(folders, drawn, tmp_path, capsys):
    words = [
        "report",
        str(folders / "results"),
        "-o",
        str(tmp_path / "r.html"),
        "--title",
        "a < b",
        "--max-events",
        "0",
        "--pictures",
        "0",
    ]
    assert main(words) == 0
    assert titles((tmp_path / "r.html").read_text()) == [
        "What ran",
        "Models",
        "Regions",
        "Overviews",
        "Spectra",
        "Provenance",
    ]
    assert "<title>a &lt; b</title>" in (tmp_path / "r.html").read_text()
    assert main(words) == 1
    assert "overwrite it with --force" in capsys.readouterr().err
    assert main([*words[:3], str(tmp_path / "r.pdf")]) == 1
    assert "must be a file whose name ends in .html" in capsys.readouterr().err


def test_a_list_of_all_datasets_together_is_one_of_each(folders, drawn, tmp_path):
    results = load_results(folders / "results")
    name = next(iter(results.report["datasets"]))
    save_results(results.histograms, results.report, tmp_path / "r", {"all": {"ad": event_list(name)}})
    shown = [reporting.Display("1:2:3", name, png((9, 9, 9)))]
    reporting.write_report(tmp_path / "r", [], tmp_path / "page.html", displays=shown)
    text = (tmp_path / "page.html").read_text()
    assert "there is no list of" not in text
    assert encoded(png((9, 9, 9))) in text
    assert main(["events", str(tmp_path / "r"), "-n", "1"]) == 0


def test_yields_say_nothing_of_datasets_without_histograms_of_regions(folders):
    from coffea_ad.results.yields import yields

    results = load_results(folders / "results")
    entry = {"metadata": {"is_mc": True, "xsec": 1.0}, "events": 3, "files": {}, "failed": []}
    results.report["datasets"]["own"] = entry
    tables, notes = yields(results)
    assert tables
    assert not [note for note in notes if "own" in note]


def test_a_folder_of_something_else_is_refused_by_name(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    for other in (tmp_path / "empty", tmp_path / "nowhere", folders / "results"):
        with pytest.raises(BadFile, match=f"{other}: this is no folder of a search"):
            reporting.write_report(folders / "results", [other], tmp_path / "r.html")
    (tmp_path / "empty" / "search.json").write_text('{"spectra": []}')
    with pytest.raises(BadFile, match="was not written by coffea-ad search"):
        reporting.write_report(folders / "results", [tmp_path / "empty"], tmp_path / "r.html")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "evaluation.json").write_text(
        '{"tables": [{"title": "t", "columns": ["a"], "rows": [["1", "2"]]}], "provenance": {}}'
    )
    with pytest.raises(BadFile, match="was not written by coffea-ad evaluate"):
        reporting.write_report(folders / "results", [tmp_path / "bad"], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def models_of(results, others=()):
    from coffea_ad.report.models import models_section
    from coffea_ad.report.sources import read_sources

    (part,) = models_section(read_sources(results, others)).parts
    said = [s for block in part.blocks if isinstance(block, blocks.Sentences) for s in block.sentences]
    return said, [figure.title for figure in blocks.figures_in([part])]


def test_a_model_that_is_gone_or_another_one_is_said(folders, tmp_path):
    results = load_results(folders / "results")
    assert models_of(folders / "results") == ([], ["training", "chains"])

    def naming(file):
        results.report["models"][0]["file"] = str(file)
        save_results(results.histograms, results.report, tmp_path / "results", results.event_lists)
        return tmp_path / "results"

    said, _ = models_of(naming(tmp_path / "gone.onnx"))
    assert said[0] == f"{tmp_path}/gone.onnx: the model file is not there any more"
    shutil.copy(DATA / "ae_stored.onnx", tmp_path / "other.onnx")
    said, _ = models_of(naming(tmp_path / "other.onnx"))
    assert "its digest differs" in said[0]
    assert models_of(naming(tmp_path / "other.onnx"), [folders / "models"]) == ([], ["training", "chains"])
    assert models_of(naming(tmp_path / "other.onnx"), [folders / "models" / "wnae"]) == ([], ["training", "chains"])


def test_a_training_whose_epochs_are_not_that_of_the_card_is_not_shown():
    from coffea_ad.report.models import _alike

    assert _alike({"epoch": 3.0, "loss": 0.5}, {"epoch": 3.0, "loss": 0.5, "long_run": {}})
    assert not _alike({"epoch": 3.0, "loss": 0.4}, {"epoch": 3.0, "loss": 0.5})


def test_a_page_that_would_be_too_large_loses_figures_by_name(folders, drawn, tmp_path, monkeypatch):
    from PIL import Image

    rng, shown = np.random.default_rng(1), []
    for name in ("the first", "the last"):
        noise = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (300, 300, 3), np.uint8)).save(noise, "PNG")
        shown.append(reporting.Display(name, "events", noise.getvalue()))

    def written(largest):
        monkeypatch.setattr(page, "LARGEST", largest)
        notes = reporting.write_report(folders / "results", [], tmp_path / "r.html", pictures=0, displays=shown)
        text = (tmp_path / "r.html").read_text()
        assert len(text.encode()) <= largest
        assert all(note in text for note in notes)
        return notes, text

    notes, text = written(20_000_000)
    assert notes == []
    full = len(text.encode())
    notes, text = written(full - 100_000)
    assert re.fullmatch("figures have 128 colours, since .*", *notes)
    assert encoded(shown[0].png) not in text
    notes, text = written(full - 600_000)
    assert notes[1].endswith(": the last (events)")
    assert "<figcaption>the first (events)</figcaption>" in text
    with pytest.raises(ConfigError, match="without any figure"):
        written(1000)


def test_a_picture_that_is_none_is_refused():
    with pytest.raises(BadFile, match="svg: this is no PNG file"):
        blocks.Figure("svg", b"<svg onload='alert(1)'/>")


def test_without_jinja_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"pip install 'coffea-ad\[report\]'"):
        reporting.write_report(tmp_path, [], tmp_path / "r.html")


# --- what is hidden -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """A blinded and an unblinded run over the same events as data, by a model of which nobody knows what trained it."""
    root = tmp_path_factory.mktemp("hidden")
    trained(root / "models")
    fileset = {
        "met": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": False, "sqrt_s": 13000.0}}
    }
    for name in ("false", "true"):
        ad.run(
            fileset, "semivisible_jets", model=root / "models" / "wnae.onnx", config="none", executor="iterative", output=root / name,
            overrides=[*WIDE, "jet_scale=0", "against_score=[]", f"unblind={name}"], lumi=1.0, progress=False, duplicates="ignore",
        )  # fmt: skip
    return root


def test_nothing_that_blinded_results_hide_is_on_their_page(hidden, folders, drawn, tmp_path):
    shown, blinded = (load_results(hidden / name) for name in ("true", "false"))
    concealed = [
        r for r in shown.regions
        if (cells := shown.regions[r]) and cells <= set(blinded.report["datasets"]["met"]["hidden_cells"])
    ]  # fmt: skip
    assert shown.data("mjj", concealed[0]).sum(flow=True).value > 0
    secret = png((200, 10, 10))
    for place in (hidden / "false" / "figures", tmp_path / "search" / "figures", tmp_path / "evaluation" / "figures"):
        place.mkdir(parents=True)
    (hidden / "false" / "figures" / f"mjj_{concealed[0]}.png").write_bytes(secret)  # of a run that was there before
    search = json.loads((folders / "search" / "search.json").read_text())
    search["input"] = {"path": str(hidden / "true"), "sha256": "0" * 64, "histograms": shown.report["histograms"]}
    search["verdict"] = "a secret bump"
    (tmp_path / "search" / "search.json").write_text(json.dumps(search))
    (tmp_path / "search" / "figures" / "summary.png").write_bytes(secret)
    evaluated = json.loads((folders / "evaluation" / "evaluation.json").read_text())
    evaluated["provenance"] = {"background": {"simulated": {"met": False}}}
    (tmp_path / "evaluation" / "evaluation.json").write_text(json.dumps(evaluated))
    (tmp_path / "evaluation" / "figures" / "sculpting.png").write_bytes(secret)
    (hidden / "models" / "wnae" / "chains.png").write_bytes(secret)

    others = [tmp_path / "search", tmp_path / "evaluation", hidden / "models"]
    notes = reporting.write_report(hidden / "false", others, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert len(notes) == 2
    assert all("blinded, so it is not shown" in note for note in notes)
    assert encoded(secret) not in text
    assert "a secret bump" not in text
    assert titles(text) == [
        "What ran",
        "Models",
        "Regions",
        "Overviews",
        "Scores",
        "Spectra",
        "Provenance",
    ]  # no list of events either
    assert not {region for _, region in drawn} & set(concealed)
    rows = dict(
        re.findall(
            r"<tr><td[^>]*>([^<]+)</td><td[^>]*>([^<]*)</td></tr>",
            text[text.index("<h2>Regions") : text.index("<h2>Overviews")],
        )
    )
    assert {rows[region] for region in concealed} == {"hidden"}
    assert "not shown, since they may show data and the results are blinded: chains" in text
    assert encoded(png((0, 90, 0))) in text  # the training's curves
    assert "Displays" not in text
    with pytest.raises(ConfigError, match="an event of met is to be shown, which has no list of events"):
        reporting.write_report(
            hidden / "false", [], tmp_path / "x.html", displays=[reporting.Display("1:1:1", "met", secret)]
        )


def test_a_search_of_the_blinded_results_themselves_is_shown(hidden, folders, drawn, tmp_path):
    search = json.loads((folders / "search" / "search.json").read_text())
    search["input"]["histograms"] = load_results(hidden / "false").report["histograms"]
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search.json").write_text(json.dumps(search))
    assert reporting.write_report(hidden / "false", [tmp_path / "search"], tmp_path / "r.html") == []
    assert search["verdict"] in (tmp_path / "r.html").read_text()


def test_a_search_of_other_results_is_said_where_nothing_is_hidden(hidden, folders, drawn, tmp_path):
    (note,) = reporting.write_report(hidden / "true", [folders / "search"], tmp_path / "r.html")
    assert "and not of the histograms of" in note
    assert "Search" in titles((tmp_path / "r.html").read_text())


# --- in a browser -------------------------------------------------------------------------------------------------------

WIDER = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('.wide') && !e.closest('pre')).map(e => e.outerHTML.slice(0, 80))"""


@pytest.mark.skipif(browser.PROGRAM is None, reason="not installed: chromium")
def test_a_browser_shows_the_page_without_an_error_and_no_wider_than_its_window(text, folders):
    with browser.browser() as tab:
        for width in (390, 1400):
            tab.open(folders / "all.html", width)
            assert tab.said("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
            asked = {event["request"]["url"].split(":")[0] for event in tab.said("Network.requestWillBeSent")}
            assert asked <= {"file", "data"}
            assert tab.value("innerWidth") == width
            assert tab.value("document.documentElement.scrollWidth") <= width
            assert tab.value(WIDER) == []
            assert tab.value("[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length") == 0
            assert tab.value("document.images.length") == text.count("<img ")
            listed = "getComputedStyle(document.querySelector('nav div')).display"
            assert tab.value(listed) == ("none" if width == 390 else "block")
        tab.open(folders / "all.html", 390)
        tab.value("document.querySelector('nav label').click()")
        assert tab.value(listed) == "block"


def test_the_best_events_are_drawn_and_their_scores_taken_apart(hidden, drawn, tmp_path):
    """Of the unblinded run; the shipped model has no contributions, so its scores are not taken apart."""
    notes = reporting.write_report(hidden / "true", [], tmp_path / "r.html", pictures=2)
    text = (tmp_path / "r.html").read_text()
    top = load_results(hidden / "true").event_lists["met"]["ad"].shortened(2)
    for i in range(2):
        number = f"{top['run'][i]}:{top['luminosityBlock'][i]}:{top['event'][i]}"
        assert f"{number}: event (met)" in text
        assert f"{number}: jet (met)" in text
    assert notes == []
    assert main(["report", str(hidden / "true"), "-o", str(tmp_path / "s.html"), "--pictures", "-1"]) == 1


def test_events_whose_files_are_gone_are_said_to_be_not_drawn(folders, drawn, tmp_path):
    notes = reporting.write_report(folders / "results", [], tmp_path / "r.html", pictures=1)
    assert any("event 0:0:0 of events is not drawn, or not whole: /a/b.root: there is no such file" in n for n in notes)


def test_a_skim_is_no_results(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{}")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 1
    assert "this is the folder of a skim, and a report is of results" in capsys.readouterr().err
