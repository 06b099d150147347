"""Why events are anomalous: events of results and rows of skims by the inputs of a model, and gradients against formulas."""

from __future__ import annotations

import csv
import json

import awkward as ak
import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from test_contract import skim_of
from test_event_lists import LOOSE, entry, run
from test_rmm_two_body import cell_sum
from toy_skims import NAME, toy_rows, write_skim
from toys import DATA, copy_events, open_events

import coffea_ad as ad
from coffea_ad import nn
from coffea_ad.cli.main import main
from coffea_ad.errors import BadFile, BadModel, CardMismatch, ConfigError, SkimError
from coffea_ad.event_lists import TopEvents
from coffea_ad.explaining import Rows, explain, explained, listed_rows, skimmed_rows
from coffea_ad.features.spec import feature_spec
from coffea_ad.modelfiles.attach import attach
from coffea_ad.nn.attribution import integrated_gradients
from coffea_ad.scoring.card import read_card, write_card
from coffea_ad.scoring.domains import Domain
from coffea_ad.scoring.scorer import OnnxScorer

SVJ, QCD = DATA / "svj_v15.root", DATA / "qcd_v15.root"


def train(model, data, folder, epochs=1, keep=1):
    quick = nn.TrainConfig(epochs=epochs, samples_per_epoch=256, batch_size=64, validation_rows=50, keep=keep)
    return nn.fit(model, data, quick, folder)


def publish(model, data, path, epochs=1, keep=1):
    """Train into the folder beside a model file, as a recipe does."""
    history = train(model, data, path.with_suffix(""), epochs, keep)
    trained = nn.Ensemble.of_epochs(model, history)
    card = nn.make_card(trained, data, name=path.stem, config={}, metrics=history.best)
    return nn.export(trained, path, card, data.x[:60])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("explain")


@pytest.fixture(scope="module")
def real_rows():
    """Inputs of all jets of a file of QCD, as a skim has them."""
    x = ad.Tagger(DATA / "wnae.onnx").rows(open_events(QCD))["features"]
    return skim_of(x[np.isfinite(x).all(axis=1)], feature_spec(NAME))


@pytest.fixture(scope="module")
def model(real_rows, place):
    torch.manual_seed(1)
    return publish(nn.AE(8, transform=nn.Standard(8)), real_rows, place / "ae.onnx", epochs=3)


@pytest.fixture(scope="module")
def results(model, place):
    fileset = {"svj": entry(SVJ), "qcd": entry(QCD)}
    run(fileset, place / "r", *LOOSE, "jet_scale=0", recipe="semivisible_jets", model=model, config="none")
    return place / "r"


@pytest.fixture(scope="module")
def skim(place):
    datasets = {
        n: {"x": toy_rows(300, i, shift=i)[0], "weight": np.ones(300), "xsec": 1.0}
        for i, n in enumerate(("qcd", "svj"))
    }
    return write_skim(place / "s", datasets)


# events of results


def test_listed_events_are_explained_by_the_jet_that_is_listed(model, results):
    top = ad.load_results(results).event_lists["svj"]["ad"]
    explanations = explained(model, top, 6)
    assert explanations.notes == ()
    assert [row.score for row in explanations.rows] == pytest.approx(top["ad_score"][:6], rel=1e-4)
    tagger = ad.Tagger(model)
    for i, row in enumerate(explanations.rows):
        assert row.id == f"{top['run'][i]}:{top['luminosityBlock'][i]}:{top['event'][i]}"
        jets = open_events(SVJ)[top["entry"][i] : top["entry"][i] + 1].FatJet
        inputs = tagger.rows(jets)["features"][row.jet]
        np.testing.assert_array_equal(row.values, inputs)
        np.testing.assert_allclose(
            row.contributions, tagger.scorer.contributions(inputs[None])[0], rtol=1e-4, atol=1e-6
        )
        assert row.total == pytest.approx(row.score, rel=1e-5)
        assert sorted(row.names) == sorted(tagger.card.inputs[0].entries)
    parts = explanations.rows[0].leading()
    assert [abs(p.contribution) for p in parts] == sorted((abs(p.contribution) for p in parts), reverse=True)
    assert sum(p.share for p in parts) == pytest.approx(1)
    medians = np.nanquantile(tagger.rows(open_events(QCD))["features"], 0.5, axis=0)
    np.testing.assert_allclose(explanations.rows[0].typical, medians, rtol=0.5)


def test_scores_that_are_others_than_in_the_list_are_said(model, results):
    top = ad.load_results(results).event_lists["svj"]["ad"].shortened(3)
    columns = {**top.columns, "ad_score": top["ad_score"] + [0.0, 1.0, 0.0]}
    moved = TopEvents.from_columns(3, top.by, columns, ranked=3)
    (note,) = explained(model, moved).notes
    assert note.startswith(
        "1 of 3 events have other scores here than in the list, by up to 1: the run corrected or replaced"
    )
    without = explained(model, top, same_model=False)
    assert without.notes == ("the list has no scores of this model to compare with, and of each event the jet with the highest score is explained",)  # fmt: skip
    assert all(a.score >= b.score - 1e-6 for a, b in zip(without.rows, explained(model, top).rows, strict=True))


def test_an_event_without_a_jet_and_a_jet_without_a_score_are_said(model, place):
    def empty(columns):
        for name in ("FatJet", "FatJetPFCand"):
            columns[name] = ak.concatenate([columns[name][:1][:, :0], columns[name][1:]])

    path = copy_events(SVJ, place / "empty.root", stop=4, change=empty)
    events = open_events(path, metadata={"dataset": "svj"})
    top = TopEvents.of(events, 4, {"met": [3.0, 2.0, 1.0, 0.0]})
    explanations = explained(model, top)
    first = f"{top['run'][0]}:{top['luminosityBlock'][0]}:{top['event'][0]}"
    assert explanations.notes[0] == f"{first} svj: it has no FatJet any more"
    assert len(explanations.rows) == 3
    rows = Rows(np.full((1, 8), np.nan, np.float32), None, ("1:1:1",), ("qcd",), (0,))
    nothing = explain(OnnxScorer(model), rows)
    assert (nothing.rows, nothing.notes) == ((), ("1:1:1 qcd: it has no score by ae",))


def test_files_that_are_gone_or_others_are_refused(model, results, place):
    top = ad.load_results(results).event_lists["svj"]["ad"].shortened(2)

    def at(path):
        return TopEvents.from_columns(2, top.by, {**top.columns, "file": np.full(2, str(path), object)}, ranked=2)

    with pytest.raises(
        BadFile, match="qcd_v15.root: this is not the file that the results were made of: its UUID is another one"
    ):
        explained(model, at(QCD))
    with pytest.raises(BadFile, match="gone.root: there is no such file"):
        explained(model, at(place / "gone.root"))
    with pytest.raises(ConfigError, match="the list is empty"):
        explained(model, TopEvents(3, "ad_score"))


def test_members_of_folds_and_domains_are_those_of_the_event(model, results):
    """A spectator comes from the list; an event outside of the domain has no score."""
    top = ad.load_results(results).event_lists["svj"]["ad"].shortened(4)
    card = read_card(model.read_bytes())
    edge = float(np.sort(top["mjj"])[2])
    domain = (Domain(spectator="mjj", low=0.0, high=edge),)
    tagger = ad.Tagger(write_card(model.read_bytes(), card.model_copy(update={"domain": domain, "regions": ()})))
    rows = listed_rows(tagger, top)
    assert rows.members.tolist() == np.where(top["mjj"] < edge, 0, -1).tolist()
    assert len(explain(tagger.scorer, rows).rows) == 2
    lost = (Domain(spectator="nowhere", low=0.0, high=1.0),)
    tagger = ad.Tagger(write_card(model.read_bytes(), card.model_copy(update={"domain": lost, "regions": ()})))
    with pytest.raises(ConfigError, match="needs the spectator 'nowhere', which neither the list nor the file has"):
        listed_rows(tagger, top)


def test_whole_events_are_rows_of_their_own():
    tagger = ad.Tagger(attach(*cell_sum()))
    events = open_events(DATA / "ttbar_v15.root", metadata={"dataset": "ttbar"})
    top = TopEvents.of(events, 5, {"ad_score": tagger(events)["ad_score"]})
    rows = listed_rows(tagger, top, n=4)
    assert (rows.notes, rows.jets, rows.members, rows.datasets) == ((), (None,) * 4, None, ("ttbar",) * 4)
    np.testing.assert_array_equal(rows.x, tagger.rows(events)[tagger.card.inputs[0].name][top["entry"][:4]])


# rows of skims


def test_the_highest_rows_of_a_skim_come_first(model, skim):
    scorer = OnnxScorer(model)
    rows = skimmed_rows(scorer, skim, n=5)
    x = np.concatenate([toy_rows(300, i, shift=i)[0] for i in range(2)])
    np.testing.assert_allclose(scorer(rows.x), np.sort(scorer(x))[::-1][:5], rtol=1e-5)
    assert rows.ids[0] == f"1:{1 + (rows.datasets[0] == 'svj')}:{int(np.argmax(scorer(x))) % 300}"
    assert set(skimmed_rows(scorer, skim, n=9, datasets=["qcd"]).datasets) == {"qcd"}
    with pytest.raises(ConfigError, match="-n is 0"):
        skimmed_rows(scorer, skim, n=0)
    with pytest.raises(SkimError, match="unknown dataset 'qdc'; did you mean 'qcd'"):
        skimmed_rows(scorer, skim, datasets=["qdc"])


# the verb


def test_the_verb_explains_results_and_skims(model, results, skim, tmp_path, capsys):
    assert main(["explain", str(model), "--events", str(results), "-n", "2", "--parts", "3"]) == 0
    printed = capsys.readouterr().out
    assert "ae: the model's contributions, which add up to score" in printed
    assert "5 others" in printed
    assert (
        main(["explain", str(model), "--events", str(results), "-n", "2", "--format", "json", "--datasets", "svj"]) == 0
    )
    got = json.loads(capsys.readouterr().out)
    assert (got["by"], got["of"], len(got["events"])) == ("the model's contributions", "score", 2)
    assert sum(part["contribution"] for part in got["events"][0]["parts"]) == pytest.approx(
        got["events"][0]["score"], rel=1e-5
    )
    assert main(["explain", str(model), "--skim", str(skim), "-n", "2", "-o", str(tmp_path / "why.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "why.csv").read_text().splitlines()))
    assert len(rows) == 16
    assert {row["part"] for row in rows} == set(OnnxScorer(model).card.parts)
    capsys.readouterr()
    assert main(["explain", str(model), "--skim", str(skim), "-o", str(tmp_path / "why.csv")]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--skim", "s", "--list", "ad"], "--list is of results"),
        (["--skim", "s", "--parts", "0"], "--parts is 0"),
        (["--skim", "s", "--figure", "why.bmp"], "--figure why.bmp: its name must end in .png, .pdf, .svg"),
        (["--events", "r", "-n", "0"], "-n is 0"),
        (["--events", "r", "--list", "adx"], "unknown list of events 'adx'"),
        (["--events", "s"], "s: "),
        (["--skim", "s", "--gradients", "--training", "r"], "there is no trained model in this folder"),
    ],
)
def test_wrong_words_end_in_one_sentence(model, results, skim, place, words, match, capsys, monkeypatch):
    monkeypatch.chdir(place)
    assert main(["explain", str(model), *words]) == 1
    assert match in capsys.readouterr().err


def test_results_without_lists_are_said_whatever_their_models(results, tmp_path, capsys):
    from coffea_ad.results import save_results

    of = ad.load_results(results)
    save_results(of.histograms, {**of.report, "event_lists": {}}, tmp_path / "r")
    assert main(["explain", str(DATA / "wnae.onnx"), "--events", str(tmp_path / "r")]) == 1
    assert "these results have no lists of events" in capsys.readouterr().err


def test_another_model_needs_the_list_to_be_named(results, capsys):
    words = ["explain", str(DATA / "wnae.onnx"), "--events", str(results)]
    assert main(words) == 1
    assert "these results were made with other models than" in capsys.readouterr().err
    assert main([*words, "--list", "ad"]) == 1  # it is a file of before
    assert "wnae.onnx gives no contributions, and gradients need its training" in capsys.readouterr().err


# gradients


def test_gradients_of_a_quadratic_form_are_those_of_the_formula(real_rows, place):
    """s = (z−μ)ᵀ A (z−μ): along the line from z⁰ input i adds (z−z⁰)ᵢ (A (z + z⁰ − 2μ))ᵢ."""
    model = nn.Mahalanobis(8, shrinkage=0.2, transform=nn.Standard(8))
    path = publish(model, real_rows, place / "far.onnx")
    scorer = OnnxScorer(path)
    parts, missed = integrated_gradients(scorer, place / "far").apply(real_rows.x[:20], None)
    start = np.array([values[5] for values in scorer.card.quantiles.values.values()], np.float32)
    assert scorer.card.quantiles.probability[5] == 0.5
    with torch.no_grad():
        z, z0 = (
            model.transform(torch.from_numpy(np.atleast_2d(x))).double().numpy() for x in (real_rows.x[:20], start)
        )
    a, mu = (model.basis @ model.basis.t()).numpy(), model.mean.numpy()
    np.testing.assert_allclose(parts, (z - z0) * ((z + z0 - 2 * mu) @ a), rtol=1e-3, atol=1e-3)
    assert np.all(np.abs(missed) <= 0.002 * np.abs(parts.sum(axis=1)) + 1e-6)


def make_flow():
    return nn.Flow(8, kind="maf", hidden=(8,), transforms=1, transform=nn.QuantileNormal(8))


GRADIENTS = {
    "SVDD": lambda: nn.DeepSVDD(8, outputs=4, hidden=(8,), transform=nn.QuantileNormal(8)),
    "density of x": make_flow,
    "neighbours": lambda: nn.Neighbours(8, bank=50, k=3, transform=nn.Standard(8)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_add_up_where_a_model_has_no_contributions(name, real_rows, place, skim, capsys):
    torch.manual_seed(1)
    path = publish(
        GRADIENTS[name](), real_rows, place / f"{name[:4]}.onnx", epochs=2, keep=2 if name == "density of x" else 1
    )
    scorer = OnnxScorer(path)
    assert scorer.card.contributions is None
    x = real_rows.x[:10]
    parts, missed = integrated_gradients(scorer, path.with_suffix("")).apply(x, None)
    start = np.array([[values[5] for values in scorer.card.quantiles.values.values()]], np.float32)
    difference = scorer(x).astype(float) - scorer(start)
    assert parts.shape == (10, 8)
    np.testing.assert_allclose(parts.sum(axis=1) + missed, difference, rtol=1e-3, atol=1e-3)
    assert np.median(np.abs(missed / difference)) < 0.005
    if name == "SVDD":
        assert main(["explain", str(path), "--skim", str(skim), "-n", "1"]) == 0
        assert (
            "integrated gradients from the median of the background, which add up to score − score of that row"
            in capsys.readouterr().out
        )


def test_gradients_of_sets_begin_at_an_empty_row_and_of_encoders_run_in_the_inputs(place):
    spec = feature_spec("jet_constituents", {"n": 4, "columns": ["pt", "deta"]})
    x = np.abs(toy_rows(300)[0]).reshape(300, 4, 2)
    data = skim_of(x, spec)
    torch.manual_seed(1)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3))
    behind = nn.DeepSVDD(
        3, outputs=2, hidden=(4,), transform=nn.Representation(encoder, nn.Standard(3), row_shape=(4, 2))
    )
    for name, model in {
        "sets": nn.DeepSVDD(8, outputs=2, hidden=(4,), transform=nn.Slots(4, nn.Standard(2))),
        "enc": behind,
    }.items():
        path = publish(model, data, place / f"{name}.onnx")
        if name == "enc":  # a plain module is not made again with its arguments
            with pytest.raises(ConfigError, match="it holds a torch.nn.modules.container.Sequential"):
                integrated_gradients(OnnxScorer(path), place / name)
            continue
        attribution = integrated_gradients(OnnxScorer(path), place / name)
        assert attribution.by == "integrated gradients from an empty row"
        parts, missed = attribution.apply(x[:5], None)
        with torch.no_grad():
            difference = model.scores(x[:5]) - model.scores(np.zeros((1, 4, 2), np.float32))
        np.testing.assert_allclose(parts.sum(axis=1) + missed, difference, rtol=1e-3, atol=1e-4)


def test_gradients_need_the_training_of_the_file(model, real_rows, place):
    scorer = OnnxScorer(model)
    with pytest.raises(ConfigError, match="nowhere: there is no trained model in this folder"):
        integrated_gradients(scorer, place / "nowhere")
    torch.manual_seed(5)
    train(nn.AE(8, transform=nn.Standard(8)), real_rows, place / "again")
    with pytest.raises(
        BadModel, match="what was trained there gives other scores than .*ae.onnx; name its training with --training"
    ):
        integrated_gradients(scorer, place / "again").apply(real_rows.x[:3], None)
    plain = write_card(model.read_bytes(), scorer.card.model_copy(update={"quantiles": None}))
    with pytest.raises(ConfigError, match="its card has no quantiles"):
        integrated_gradients(OnnxScorer(plain), place / "ae")


# figures


@pytest.mark.plot
@pytest.mark.usefixtures("unarranged")
def test_figures_show_bars_and_maps(model, skim, place, tmp_path, capsys):
    from coffea_ad.explaining.explanations import Explanation, Explanations
    from coffea_ad.explaining.figures import draw
    from coffea_ad.features.rmm import RMMOptions, matrix, slot_names

    bars = tmp_path / "bars.png"
    assert main(["explain", str(model), "--skim", str(skim), "-n", "7", "--figure", str(bars)]) == 0
    assert "the figure shows the first 6 of 7" in capsys.readouterr().out
    assert bars.stat().st_size > 10_000
    card = read_card(model.read_bytes())
    for name, options in (
        ("rmm", {"slots": (2, 0, 1, 0, 0), "drop_masses": True, "sqrt_s": 13000.0}),
        ("jet_images", {"pixels": 4}),
    ):
        features = (feature_spec(name, options),)
        inputs = (card.inputs[0].model_copy(update={"features": features}),)
        names = inputs[0].entries
        values = np.arange(float(len(names))) - (1 if name == "rmm" else 0)
        row = Explanation("1:1:1", "qcd", None, 1.0, names, values, values, values, 0.0)
        changed = card.model_copy(update={"inputs": inputs})
        path = tmp_path / f"{name}.pdf"
        assert draw(Explanations(changed, "x", "score", (row,) * 5), path) == ["the figure shows the first 4 of 5"]
        assert path.read_bytes()[:4] == b"%PDF"
    options = RMMOptions(slots=(2, 0, 1, 0, 0), drop_masses=True)
    assert slot_names(options) == ("met", "j1", "j2", "mu1")
    cells = matrix(np.ones((1, 14), np.float32), options, np.nan)[0]
    assert np.isnan(cells).sum() == 2  # m(j1,j2) and m(j1,mu1)
    with pytest.raises(ConfigError, match="there is no event to draw"):
        draw(Explanations(card, "x", "score", ()), tmp_path / "none.png")


def test_models_of_several_inputs_are_refused(model):
    card = read_card(model.read_bytes())
    two = card.model_copy(update={"inputs": card.inputs * 2})
    from coffea_ad.explaining.explanations import only_input

    with pytest.raises(CardMismatch, match="scores of a model of one input can be explained, and it has 2"):
        only_input(two)


# on the page of a report


@pytest.mark.plot
def test_a_page_has_what_the_leading_inputs_add_to_the_listed_scores(model, results):
    from coffea_ad.report.pictured import pictured
    from coffea_ad.report.sources import read_sources

    shown = pictured(read_sources(results), 2)
    assert shown.notes == []
    top = ad.load_results(results).event_lists
    best = sorted((float(x) for of in top.values() for x in of["ad"]["ad_score"][:2]), reverse=True)[:2]
    rows = explained(model, top["svj"]["ad"] + top["qcd"]["ad"], 2).rows
    assert [row.score for row in rows] == pytest.approx(best, rel=1e-4)
    assert [(c.event, c.dataset) for c in shown.contributions] == [(f"{r.id}, jet {r.jet}", r.dataset) for r in rows]
    assert [list(c.parts) for c in shown.contributions] == [row.leading(5) for row in rows]
    assert [f.png[1:4] for f in shown.figures] == [b"PNG"]
    assert [d.title.rpartition(": ")[2] for d in shown.displays] == ["event", "jet"] * 2
