"""Methods of resonant searches: laws that all obey, what each must do, trainings, and their model files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

resonant = pytest.importorskip("coffea_ad.resonant")
import resonant_toys as toys

from coffea_ad import evaluation, nn
from coffea_ad.errors import ConfigError, SkimError, TemplateRefused, UnknownName
from coffea_ad.evaluation.metrics import auc
from coffea_ad.resonant import METHODS, ClassifierConfig, FlowConfig, Settings, Task, Window, train_member
from coffea_ad.resonant.members import Member, run_graph
from coffea_ad.resonant.publishing import in_fold, publish_window
from coffea_ad.resonant.search import check_method, in_roles, mixture, search, tasks_of, window_rows
from coffea_ad.scoring.card import read_card
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.splits import fold_of

pytestmark = pytest.mark.torch
WINDOW = Window(low=3300, high=3700, outer_low=2900, outer_high=4500)
SMALL = FlowConfig(kind="maf", transforms=2, hidden=(32,), epochs=4, keep=2, batch_size=256)
SETTINGS = Settings(
    flow=SMALL, signal_flow=SMALL.model_copy(update={"epochs": 10, "learning_rate": 5e-3}), oversampling=2, signal_fractions=(0.01, 0.1),
    classifier=ClassifierConfig(members=3, epochs=4, keep=2, hidden=(16, 16)),
)  # fmt: skip
K = 4


def task(method, fold=0, **changes):
    options = {
        "method": method, "settings": SETTINGS, "window": WINDOW, "fold": fold, "k": K, "salt": "s", "seed": 1,
        "template_rows": 2000,
    }  # fmt: skip
    return Task(**{**options, **changes})


@pytest.fixture(scope="module")
def skims():
    data = toys.data(40_000, 500, seed=5)
    background = toys.skim(toys.background(40_000, 6), "background", first=10**6)
    simulation = toys.skim(toys.background(40_000, 7), "simulation", first=2 * 10**6)
    signal = toys.skim(toys.signal(3000, 8), "signal", first=3 * 10**6)
    everything = {"data": data, "simulation": simulation, "background": background, "signal": signal}
    return window_rows(everything, WINDOW)


NEEDED = {
    "salad": ("simulation",),
    "iad": ("background",),
    "supervised": ("background", "signal"),
    "r_anode": ("background",),
}


@pytest.fixture(scope="module")
def members(skims):
    trained = {}

    def member(method):
        if method not in trained:
            roles = {"data", *(r for name in method.split("+") for r in NEEDED.get(name, ()))}
            trained[method] = train_member(task(method), {r: s for r, s in skims.items() if r in roles})
        return trained[method]

    return member


ALL = [*METHODS, "cathode+transport"]


@pytest.mark.parametrize("method", ALL)
def test_every_method_ranks_signal_above_background(members, method):
    member = members(method)
    bg, sig = toys.background(100_000, 11), toys.signal(2000, 12)
    bg, sig = (x[WINDOW.in_signal_region(x[:, 0])] for x in (bg, sig))
    result = auc(member.scores(bg), member.scores(sig))
    assert result.value - 3 * result.error > 0.75


@pytest.mark.parametrize("method", ALL)
def test_templates_lie_in_the_window_and_are_finite(members, method):
    member = members(method)
    assert WINDOW.in_signal_region(member.template[:, 0]).all()
    assert np.isfinite(member.template).all()
    assert (member.template_weight > 0).all()
    assert len(member.template) >= 500
    assert np.array_equal(run_graph(member.data, member.template), member.template_score)


@pytest.mark.parametrize("method", ["cwola", "cathode", "transport", "salad", "anode"])
def test_a_template_is_like_the_background_of_the_signal_region(members, skims, method):
    """Means of the inputs, against those of true background, in units of their errors."""
    member = members(method)
    inside = skims["background"].select(WINDOW.in_signal_region(skims["background"].x[:, 0]))
    for column in range(1, 5):
        one, two = member.template[:, column].astype(float), inside.x[:, column].astype(float)
        w = member.template_weight
        mean = np.average(one, weights=w)
        n_eff = w.sum() ** 2 / (w**2).sum()
        error = np.hypot(one.std() / np.sqrt(n_eff), two.std() / np.sqrt(len(two)))
        assert abs(mean - two.mean()) < 0.12 * two.std() + 4 * error


@pytest.mark.parametrize("method", ["cwola", "cathode"])
def test_the_same_task_gives_the_same_scores_to_the_bit(members, skims, method):
    again = train_member(task(method), {"data": skims["data"]})
    assert np.array_equal(again.template, members(method).template)
    assert np.array_equal(again.score, members(method).score)


CANDIDATES = (
    ClassifierConfig(members=2, inputs=("tau21_j1",), options={"num_iterations": 2, "num_leaves": 2}),
    ClassifierConfig(members=3),
)


def test_the_candidate_of_the_largest_argos_on_validation_rows_is_taken(skims, tmp_path, monkeypatch):
    """Rows that none of them has learnt on, and that are not scored; it stands in the metrics."""
    from coffea_ad.resonant import classifiers
    from coffea_ad.resonant.members import method_of

    judged = []
    judge = classifiers.best_by_argos
    monkeypatch.setattr(classifiers, "best_by_argos", lambda *a, **k: judged.append((a, k)) or judge(*a, **k))
    several = SETTINGS.model_copy(update={"candidates": CANDIDATES})
    divided = skims["data"].for_fold(0, K, "s")
    m = divided.x[:, 0]
    method = method_of(task("cwola", settings=several), tmp_path)
    model = method.fit(*(divided.select(mask(m)) for mask in (WINDOW.in_sidebands, WINDOW.in_signal_region)))
    (((models, data, template), _),) = judged
    inside = WINDOW.in_signal_region(m)
    np.testing.assert_array_equal(data, divided.x[inside & (divided.split == "validation")])
    assert len(template) > 500
    values = {
        name: evaluation.argos(model.scores(data), model.scores(template)).value for name, model in models.items()
    }
    assert method.metrics["argos"] == pytest.approx(values)
    assert values["2"] > values["1"]
    assert method.metrics["candidate"] == 2
    assert model is models["2"]
    again = method_of(task("cwola", settings=several), tmp_path / "again")
    other = again.fit(*(divided.select(mask(m)) for mask in (WINDOW.in_sidebands, WINDOW.in_signal_region)))
    np.testing.assert_array_equal(other.scores(data), model.scores(data))


def test_candidates_of_a_network_behind_a_flow_are_networks(skims):
    few = tuple(ClassifierConfig(epochs=n, keep=1, hidden=(8,)) for n in (1, 3))
    member = train_member(
        task("lacathode", settings=SETTINGS.model_copy(update={"candidates": few})), {"data": skims["data"]}
    )
    assert set(member.metrics["argos"]) == {"1", "2"}


def test_candidates_are_refused_where_there_is_no_classifier(skims):
    several = SETTINGS.model_copy(update={"candidates": CANDIDATES})
    with pytest.raises(
        ConfigError, match=r"settings.candidates has no effect on method anode, which has no classifier"
    ):
        check_method("anode", ["data"], several)
    check_method("anode+cwola", ["data"], several)
    wrong = SETTINGS.model_copy(update={"candidates": (ClassifierConfig(inputs=("tau",)), ClassifierConfig())})
    with pytest.raises(SkimError, match="inputs: unknown column 'tau'"):
        train_member(task("cwola", settings=wrong), {"data": skims["data"]})
    with pytest.raises(ConfigError, match="lacathode: a classifier cannot have inputs of its own"):
        train_member(task("lacathode", settings=several), {"data": skims["data"]})


def test_scored_rows_are_the_fold_that_no_training_has_seen(members, skims):
    member = members("cathode")
    fold = fold_of("s", K, *member.event.T)
    assert set(fold.tolist()) == {0}
    inside = skims["data"].select(WINDOW.in_signal_region(skims["data"].x[:, 0]))
    expected = fold_of("s", K, *(inside.spectators[c] for c in ("run", "luminosityBlock", "event"))) == 0
    assert len(member.event) == expected.sum()


@pytest.mark.parametrize("method", ["cwola", "transport", "salad", "iad", "cwola+salad", "salad+cathode"])
@pytest.mark.parametrize("generated", [False, True])
def test_no_classifier_learns_on_rows_that_its_template_is_made_of(skims, method, generated, monkeypatch, tmp_path):
    """By the numbers of events; also of pseudo-data, which are generated as a whole."""
    from coffea_ad.resonant import classifiers
    from coffea_ad.resonant.members import method_of

    seen = []
    monkeypatch.setattr(classifiers.BaggedTrees, "of", lambda rows, **_: seen.append(rows))
    divided = {role: s.for_fold(0, K, "s") for role, s in skims.items()}
    if generated:
        divided = {role: replace(s, provenance={**s.provenance, "generated": True}) for role, s in divided.items()}
    m = divided["data"].x[:, 0]
    fitted = method_of(task(method), tmp_path)
    regions = (divided["data"].select(mask(m)) for mask in (WINDOW.in_sidebands, WINDOW.in_signal_region))
    fitted.fit(*regions, simulation=divided["simulation"], background=divided["background"])
    template = fitted.template(2000, 7)
    events = {
        tuple(e)
        for e in zip(template.dataset.tolist(), template.spectators["event"].tolist(), strict=True)
        if e[0] != "template"
    }
    learnt = seen[-1].select(seen[-1].label == 0)
    assert not events & set(zip(learnt.dataset.tolist(), learnt.spectators["event"].tolist(), strict=True))
    assert events


def test_rows_of_the_scored_fold_do_not_change_what_is_learnt(members, skims):
    """Test rows with other inputs give another score for themselves, and the same model."""
    data = skims["data"]
    fold = fold_of("s", K, *(data.spectators[c] for c in ("run", "luminosityBlock", "event")))
    x = data.x.copy()
    x[fold == 0, 1:] *= 0.5
    other = train_member(task("cathode"), {"data": replace(data, x=x)})
    rows = toys.background(500, 3)
    assert np.array_equal(other.scores(rows), members("cathode").scores(rows))


def test_r_anode_refuses_a_background_that_is_wrong_by_more_than_its_signal(skims):
    """Sidebands whose inputs are not those of the signal region: the density cannot be right there."""
    data = skims["data"]
    x = data.x.copy()
    x[WINDOW.in_signal_region(x[:, 0]), 3] *= 0.9
    with pytest.raises(
        TemplateRefused, match=r"r_anode, window 3300_3700: .* AUC of 0\.\d+ ± .* explains at most 0\.5"
    ):
        train_member(task("r_anode"), {"data": replace(data, x=x)})


def test_r_anode_finds_the_signal_fraction_that_is_there(members):
    """A tenth of the events of the signal region are signal, which of the fractions tried is the most likely."""
    m = members("r_anode").metrics
    assert m["w"] == pytest.approx(0.1)
    assert [w for w, _ in m["w_scan"]] == pytest.approx([0.01, 0.1])
    assert m["closure_auc"] <= m["explained_auc"] + 3 * m["closure_error"]


def test_a_signal_fraction_that_is_learnt_rises_and_is_refused_before_it_explains_the_data(skims, tmp_path):
    settings = SETTINGS.model_copy(update={"signal_fractions": ()})
    rows = {role: skims[role].for_fold(0, K, "s") for role in ("data", "background")}
    m = rows["data"].x[:, 0]
    method = METHODS["r_anode"](settings, WINDOW, tmp_path, 2)
    regions = (rows["data"].select(mask(m)) for mask in (WINDOW.in_sidebands, WINDOW.in_signal_region))
    with pytest.raises(TemplateRefused, match="explains at most 0.50"):
        method.fit(*regions, background=rows["background"])
    w = method.metrics["w_by_epoch"]
    assert len(w) == 10
    assert 1.2 * w[0] < w[-1] < 0.1


def test_the_score_of_cwola_follows_a_drift_with_the_mass_and_that_of_lacathode_does_not():
    """Inputs of the background that move with m: at a fixed cut, the efficiency in the outer sidebands."""
    data = toys.data(40_000, 0, seed=21, drift=0.05)
    window = Window(low=3300, high=3700, outer_low=2500, outer_high=5000)
    rows = window_rows({"data": data}, window)
    x = toys.background(200_000, 22, drift=0.05)
    edges, chi2 = [2500, 2900, 3300, 3700, 4200, 5000], {}
    for method in ("cwola", "lacathode"):
        member = train_member(task(method, window=window), rows)
        _, _, chi2[method] = resonant.flatness(member.scores(x), x[:, 0], np.ones(len(x)), edges, 0.1)
    assert chi2["cwola"] > 5 * chi2["lacathode"]


def test_members_are_stored_and_come_back(members):
    member = members("cwola")
    again = Member.from_bytes(member.to_bytes("key"), "key")
    assert again is not None
    assert np.array_equal(again.score, member.score)
    assert again.metrics == member.metrics
    assert Member.from_bytes(member.to_bytes("key"), "other") is None
    assert Member.from_bytes(member.to_bytes("key")[:1000], "key") is None


def test_generated_rows_get_the_fold_of_their_member():
    for f in range(5):
        ids = in_fold(300, f, 5, "salt")
        assert set(fold_of("salt", 5, *ids.values()).tolist()) == {f}
        assert len(np.unique(ids["event"])) == 300


@pytest.fixture(scope="module")
def search_of_cwola(skims, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    tasks = tasks_of("cwola", SETTINGS, [WINDOW], k=K, salt="s", seed=1, template_rows=8000)
    trained, left_out = search(tasks, {"data": skims["data"]}, folder)
    assert not left_out
    path = folder / "cwola.onnx"
    members = [trained.members[t.name] for t in tasks]
    publish_window(WINDOW, members, skims["data"], {"method": "cwola"}, path, salt="s", efficiencies=(0.1, 0.05))
    return folder, tasks, trained, path


def test_the_model_file_scores_every_event_by_the_member_without_its_fold(search_of_cwola, skims):
    _, tasks, trained, path = search_of_cwola
    scorer = OnnxScorer(path)
    data = skims["data"].select(WINDOW.in_signal_region(skims["data"].x[:, 0]))
    folds = scorer.card.folds.of(data.spectators)
    scores = np.asarray(scorer(data.x, folds))
    by_event = {
        tuple(e): s
        for t in tasks
        for e, s in zip(trained.members[t.name].event.tolist(), trained.members[t.name].score, strict=True)
    }
    ids = np.stack([data.spectators[c].astype(int) for c in ("run", "luminosityBlock", "event")], axis=1).tolist()
    assert len(by_event) == len(ids)
    assert np.allclose([by_event[tuple(i)] for i in ids], scores, atol=1e-6)


def test_a_ratio_of_densities_becomes_a_model_file(members, skims, tmp_path):
    """Its scores are as large as those of densities, and round as theirs do."""
    several = [members("anode")] * K
    card = publish_window(WINDOW, several, skims["data"], {}, tmp_path / "anode.onnx", salt="s", efficiencies=(0.1,))
    assert [r.name for r in card.regions] == ["loose"]
    assert card.method == "ANODE"


@pytest.mark.parametrize(
    "method", ["cathode", "anode", "lacathode", "salad", "r_anode", "transport", "cathode+transport"]
)
def test_a_template_that_is_made_of_sidebands_is_made_for_the_sidebands_as_well(members, skims, method):
    """At their masses, and like their events in what the score is made of."""
    member = members(method)
    fold = fold_of("s", K, *(skims["data"].spectators[c] for c in ("run", "luminosityBlock", "event")))
    beside = WINDOW.in_sidebands(skims["data"].x[:, 0]) & (fold == 0)
    assert len(member.sideband_score) == beside.sum()
    np.testing.assert_array_equal(member.sideband_score, member.scores(skims["data"].x[beside]))
    result = auc(member.sideband_template_score, member.sideband_score, member.sideband_template_weight)
    assert abs(result.value - 0.5) < 0.05


@pytest.mark.parametrize("method", ["cwola", "iad", "supervised"])
def test_other_templates_have_no_rows_for_the_sidebands(members, method):
    assert len(members(method).sideband_template_score) == 0


def test_an_expectation_is_multiplied_by_how_the_template_does_in_the_sidebands(members, skims, tmp_path):
    """Their events pass as often as the template says, or twice as often."""
    rng = np.random.default_rng(3)
    member = members("cathode")
    score = rng.choice(member.template_score, 20_000)
    few = int(0.9 * len(score))
    high = np.sort(member.template_score)[-max(1, len(member.template_score) // 50)]
    regions = {}
    for name, part in (("right", score), ("wrong", np.r_[score[:few], np.full(len(score) - few, high)])):
        several = [
            replace(
                member, sideband_score=part, sideband_template_score=score, sideband_template_weight=np.ones(len(score))
            )
        ] * K
        card = publish_window(
            WINDOW, several, skims["data"], {}, tmp_path / f"{name}.onnx", salt="s", efficiencies=(0.1,)
        )
        (region,) = card.regions
        regions[name] = card, region.expectation
    card, e = regions["right"]
    assert e.sidebands == pytest.approx(1, abs=1e-6)
    assert e.sidebands_error == pytest.approx(np.sqrt(2 / (K * 2000)), rel=0.1)
    assert e.expected == pytest.approx(e.efficiency)
    assert e.uncertainty == pytest.approx(np.hypot(e.error, e.sidebands_error * e.efficiency))
    np.testing.assert_allclose(e.at([3350, 3650]), [e.efficiencies[0], e.efficiencies[-1]], rtol=1e-6)
    card, e = regions["wrong"]
    assert e.sidebands == pytest.approx(0.9 + 0.1 / e.efficiency, rel=0.1)
    assert e.expected == pytest.approx(e.efficiency * e.sidebands)
    np.testing.assert_allclose(e.at([3350, 3650]), e.sidebands * np.array([e.efficiencies[0], e.efficiencies[-1]]))
    assert any("times as many events pass" in doubt for doubt in card.provenance["verdict"])


def test_the_card_says_window_regions_and_what_the_template_leads_to_expect(search_of_cwola):
    card = read_card(search_of_cwola[3].read_bytes())
    assert str(card.domain[0]) == "3300 ≤ mjj < 3700"
    assert next(r.name for r in card.regions) == "loose"
    for region in card.regions:
        e = region.expectation
        assert e.edges[0] == 3300
        assert e.edges[-1] == 3700
        assert abs(e.efficiency - region.efficiency) < 5 * np.hypot(e.error, region.error)
    assert len(card.calibrations) == K


def test_finished_trainings_are_not_done_again_and_others_are(search_of_cwola, skims):
    folder, tasks, trained, _ = search_of_cwola
    (folder / f"{tasks[2].name}.npz").unlink()
    again, _ = search(tasks, {"data": skims["data"]}, folder)
    assert again.resumed == K - 1
    for t in tasks:
        assert np.array_equal(again.members[t.name].score, trained.members[t.name].score)
    changed = tasks_of("cwola", SETTINGS, [WINDOW], k=K, salt="s", seed=2, template_rows=8000)
    other, _ = search(changed[:1], {"data": skims["data"]}, folder)
    assert other.resumed == 0


def test_a_window_without_events_is_left_out_with_a_sentence_and_the_others_are_searched(skims, tmp_path):
    far = Window(low=6000, high=6500, outer_low=2700, outer_high=7000)
    tasks = tasks_of("cwola", SETTINGS, [far], k=K, salt="s", seed=1, template_rows=2000)
    with pytest.raises(SkimError, match="no window can be searched: window 6000_6500: its signal region"):
        search(tasks, {"data": skims["data"]}, tmp_path)


def test_what_a_method_needs_is_asked_for_by_name(skims):
    with pytest.raises(ConfigError, match="method salad needs simulation"):
        check_method("cathode+salad", ["data"])
    with pytest.raises(UnknownName, match="did you mean 'cathode'"):
        check_method("cathod", ["data"])
    with pytest.raises(SkimError, match=r"data: there are no rows of nothing"):
        in_roles(skims["data"], {"data": ["nothing"]}, "mjj")
    with pytest.raises(SkimError, match="unknown column 'tau'"):
        train_member(task("cwola", settings=SETTINGS.model_copy(update={"inputs": ("tau",)})), {"data": skims["data"]})


def test_a_mixture_holds_as_many_signal_rows_as_asked_each_of_weight_one(skims):
    mixed = mixture(skims["data"], skims["signal"], 100, seed=1)
    assert len(mixed.weight) == len(skims["data"].weight) + 100
    assert (mixed.weight[mixed.dataset == "signal"] == 1).all()
    with pytest.raises(SkimError, match="only"):
        mixture(skims["data"], skims["signal"], 10**6, seed=1)


def test_overlap_and_flatness_of_simple_scores():
    rng = np.random.default_rng(1)
    s = rng.normal(size=20_000)
    shares = resonant.overlap({"a": s, "b": s + 1, "c": rng.normal(size=20_000)}, 0.1)
    assert shares["a"]["b"] == 1.0
    assert abs(shares["a"]["c"] - 0.1) < 0.03
    mass = rng.uniform(1, 2, 20_000)
    flat = resonant.flatness(s, mass, np.ones(20_000), [1, 1.25, 1.5, 1.75, 2], 0.1)
    slanted = resonant.flatness(s + mass, mass, np.ones(20_000), [1, 1.25, 1.5, 1.75, 2], 0.1)
    assert flat[2] < 4 < slanted[2]
    assert np.average(flat[0]) == pytest.approx(0.1, abs=0.003)


def test_closure_is_a_half_for_the_same_and_more_for_another_background(skims):
    one = toys.skim(toys.background(8000, 31))
    two = toys.skim(toys.background(8000, 32), first=10**6)
    value, error = resonant.closure(one, two, ("mj1", "tau21_j1"))
    assert abs(value - 0.5) < 4 * error
    x = toys.background(8000, 33)
    x[:, 3] *= 0.9
    value, error = resonant.closure(one, toys.skim(x, first=10**6), ("mj1", "tau21_j1"))
    assert value > 0.5 + 5 * error


def test_members_of_all_folds_are_a_model_like_any_other(members):
    assert isinstance(members("cwola"), nn.Scorable)
