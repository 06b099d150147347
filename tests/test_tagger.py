from __future__ import annotations

import dataclasses
import gc
import pickle
import weakref

import awkward as ak
import cloudpickle
import numpy as np
import pytest
from coffea.nanoevents import NanoEventsFactory
from toys import listed, open_events

import coffea_ad as ad
from coffea_ad.errors import BadFeature, ConfigError, MissingBranch
from coffea_ad.features import FEATURES, Column, Feature, at_once
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring import score_cache as module
from coffea_ad.scoring import streaming
from coffea_ad.scoring.card import read_card, write_card
from coffea_ad.scoring.specs import InputSpec


@pytest.fixture(scope="module")
def tagger(request):
    return ad.Tagger(request.config.rootpath / "tests" / "data" / "wnae.onnx")


def copies(name, level, values, reads):
    """A feature of eight equal columns, as many as the network of wnae.onnx takes."""
    columns = tuple(Column(f"x{i}") for i in range(8))
    rows = at_once(lambda objects, _: np.repeat(np.asarray(values(objects), np.float32)[:, None], 8, axis=1))
    return Feature(
        name=name, version=1, level=level, columns=lambda _: columns, reads=lambda *_: (reads,), rows=rows,
        convention="toy", reference="",
    )  # fmt: skip


def recarded(model_file, **changes):
    """The network of wnae.onnx under another card."""
    data = model_file.read_bytes()
    return write_card(data, read_card(data).model_copy(update=changes))


def of_events(model_file, monkeypatch, **changes):
    met = copies("met_copies", "event", lambda objects: objects.array.PuppiMET["pt"] / 1000, ("PuppiMET_pt",))
    monkeypatch.setitem(FEATURES, "met_copies", met)
    inputs = (InputSpec(features=(feature_spec("met_copies"),)),)
    return recarded(model_file, level="event", inputs=inputs, **changes)


@pytest.fixture
def made(monkeypatch):
    """Rows of each feature that are made, block by block."""
    seen = []

    def counting(feature):
        def rows(objects, options):
            inner = feature.rows(objects, options)
            seen.append((feature.name, "prepared"))
            return lambda start, stop: seen.append((feature.name, stop - start)) or inner(start, stop)

        return dataclasses.replace(feature, rows=rows)

    for name in ("jet_substructure", "jet_kinematics", "rmm"):
        monkeypatch.setitem(FEATURES, name, counting(FEATURES[name]))
    return seen


def flat(array):
    return ak.to_numpy(ak.flatten(ak.fill_none(array, -9, axis=None), axis=None))


def test_jets_get_score_logp_and_region(tagger, svj):
    jets = tagger(svj)
    assert str(jets["ad_score"].type) == "150 * var * float32"
    assert str(jets["ad_logp"].type) == "150 * var * float32"
    assert str(jets["ad_region"].type) == "150 * var * int8"
    assert ak.num(jets).to_list() == ak.num(svj.FatJet).to_list()
    np.testing.assert_array_equal(ak.to_numpy(ak.flatten(jets["pt"])), ak.to_numpy(ak.flatten(svj.FatJet["pt"])))


def test_undefined_jets_have_nan_and_the_region_of_jets_without_a_score(tagger, svj):
    jets = ak.flatten(tagger(svj))
    forward = ak.to_numpy(abs(jets["eta"]) > 2.5)
    assert forward.any()
    for field in ("ad_score", "ad_logp"):
        np.testing.assert_array_equal(np.isnan(ak.to_numpy(jets[field])), forward)
    np.testing.assert_array_equal(ak.to_numpy(jets["ad_region"]) == -1, forward)


def test_scores_are_those_of_the_scorer_on_the_features(tagger, svj):
    rows, _ = ad.features.compute("jet_substructure", svj)
    got = ak.to_numpy(ak.flatten(tagger(svj)["ad_score"]))
    np.testing.assert_array_equal(got, tagger.scorer(rows))


def test_higher_scores_have_higher_logp_and_regions_count_thresholds(tagger, svj):
    jets = ak.flatten(tagger(svj))
    jets = jets[jets["ad_region"] >= 0]
    score, logp = (ak.to_numpy(jets[f]) for f in ("ad_score", "ad_logp"))
    order = np.argsort(score)
    assert (np.diff(logp[order]) >= 0).all()
    passed = sum((logp >= r.thresholds[0]).astype(int) for r in tagger.card.regions)
    np.testing.assert_array_equal(ak.to_numpy(jets["ad_region"]), passed)


@pytest.mark.parametrize(
    "view",
    [
        lambda e: e.FatJet[e.FatJet["pt"] > 300],
        lambda e: e.FatJet[ak.argsort(e.FatJet["mass"], axis=1)],
        lambda e: ak.firsts(e.FatJet),
        lambda e: e.FatJet[ak.num(e.FatJet) > 0][:, 0],
        lambda e: ak.pad_none(e.FatJet, 2, clip=True),
        lambda e: e.FatJet[e.FatJet["pt"] > 1e9],
    ],
    ids=["mask", "sort", "firsts", "leading", "padded", "none left"],
)
def test_any_view_is_tagged_as_the_same_jets_of_the_whole(tagger, svj, view):
    whole = tagger(svj)
    of_jet = dict(
        zip(ak.to_list(ak.flatten(whole["objectIdxG"])), ak.to_list(ak.flatten(whole["ad_score"])), strict=True)
    )
    tagged = tagger(view(svj))
    index = ak.to_list(ak.flatten(tagged["objectIdxG"], axis=None))
    scores = ak.to_numpy(ak.flatten(tagged["ad_score"], axis=None))  # without places that have no jet
    np.testing.assert_array_equal(scores, [of_jet[i] for i in index])
    assert tagged["ad_score"].ndim == view(svj)["pt"].ndim


def test_several_taggers_live_side_by_side(svj, model_file, stored_model):
    one, two = ad.Tagger(model_file), ad.Tagger(stored_model, name="stored")
    jets = two(one(svj))
    assert {"ad_score", "stored_score"} <= set(jets.fields)
    assert listed(jets["ad_score"]) == listed(one(svj)["ad_score"])
    assert listed(jets["stored_score"]) == listed(two(svj)["stored_score"])


def test_a_varied_collection_is_scored_as_varied(svj, stored_model):
    tagger = ad.Tagger(stored_model)
    varied = ak.with_field(svj.FatJet, svj.FatJet["mass"] * np.float32(3), "mass")
    assert listed(tagger(varied)["ad_score"]) != listed(tagger(svj)["ad_score"])


def test_a_missing_branch_is_named_with_file_and_model(tagger, svj_file, tmp_path):
    import uproot

    path = tmp_path / "slim.root"
    with uproot.open(svj_file) as old, uproot.recreate(path) as new:
        tree = old["Events"]
        jets = ak.zip({k: tree[f"FatJet_{k}"].array() for k in ("pt", "eta", "phi", "mass")})
        flat = {k: tree[k].array(library="np") for k in ("run", "luminosityBlock", "event")}
        out = new.mktree("Events", {**{k: v.dtype for k, v in flat.items()}, "FatJet": ak.type(jets).content})
        out.extend({**flat, "FatJet": jets})
    events = open_events(path, metadata={"filename": str(path), "dataset": "x"})
    with pytest.raises(
        MissingBranch, match=r"slim.root: FatJet constituents needs FatJetPFCand_jetIdx.*asked for by wnae"
    ):
        tagger(events)


def test_no_events_need_no_branches(tagger, svj):
    empty = tagger(svj[:0])
    assert len(empty) == 0
    assert {"ad_score", "ad_logp", "ad_region"} <= set(empty.fields)


def test_an_event_level_model_decorates_events(svj, model_file, monkeypatch):
    """A feature of one row per event, through the same card and network."""
    tagged = ad.Tagger(of_events(model_file, monkeypatch))(svj)
    assert str(tagged["ad_score"].type) == f"{len(svj)} * float32"
    assert ak.all(tagged["ad_region"] >= 0)


def test_a_feature_of_two_models_is_made_once(svj_file, model_file, made):
    one = ad.Tagger(model_file)
    two = ad.Tagger(recarded(model_file, name="other", regions=()), name="other")
    jets = ad.tag(open_events(svj_file), [one, two])
    assert made == [("jet_substructure", "prepared"), ("jet_substructure", len(ak.flatten(jets)))]
    for tagger in (one, two):
        alone = tagger(open_events(svj_file))
        for field in ("score", "logp", "region"):
            name = f"{tagger.name}_{field}"
            np.testing.assert_array_equal(flat(jets[name]), flat(alone[name]))
            assert str(jets[name].type) == str(alone[name].type)


def test_a_feature_of_two_models_is_made_once_for_every_block(svj_file, model_file, stored_model, made, monkeypatch):
    monkeypatch.setattr(streaming, "_BLOCK_BYTES", 1)
    taggers = [
        ad.Tagger(model_file, batch=64),
        ad.Tagger(recarded(model_file, name="other"), name="other", batch=64),
        ad.Tagger(stored_model, name="stored", batch=64),
    ]
    view = open_events(svj_file).FatJet
    jets = ad.tag(view[view["pt"] > 250], taggers)
    n = len(ak.flatten(jets))
    blocks = [min(64, n - start) for start in range(0, n, 64)]
    assert [rows for _, rows in made if rows != "prepared"] == [b for b in blocks for _ in ("constituents", "stored")]
    for tagger in taggers:
        view = open_events(svj_file).FatJet
        alone = tagger(view[view["pt"] > 250])
        np.testing.assert_array_equal(flat(jets[f"{tagger.name}_score"]), flat(alone[f"{tagger.name}_score"]))


def test_models_of_events_share_features_too(svj, model_file, made, monkeypatch):
    one = ad.Tagger(of_events(model_file, monkeypatch))
    two = ad.Tagger(of_events(model_file, monkeypatch, name="other"), name="other")
    calls = []
    met = FEATURES["met_copies"]
    counted = dataclasses.replace(met, rows=lambda objects, options: calls.append(1) or met.rows(objects, options))
    monkeypatch.setitem(FEATURES, "met_copies", counted)
    some = svj[np.asarray(svj.PuppiMET["pt"]) > 100]
    both = ad.tag(some, [one, two])
    assert calls == [1]
    for tagger in (one, two):
        np.testing.assert_array_equal(flat(both[f"{tagger.name}_score"]), flat(tagger(some)[f"{tagger.name}_score"]))


def test_taggers_that_do_not_go_together_are_refused(svj, model_file, monkeypatch):
    jets, fat = ad.Tagger(model_file, collection="Jet", name="small"), ad.Tagger(model_file)
    with pytest.raises(ConfigError, match=r"wnae scores FatJet and wnae scores Jet: call tag for each by itself"):
        ad.tag(svj, [fat, jets])
    events = ad.Tagger(of_events(model_file, monkeypatch), name="events")
    with pytest.raises(ConfigError, match="wnae scores FatJet and wnae scores whole events"):
        ad.tag(svj, [fat, events])
    with pytest.raises(ConfigError, match="two taggers are called 'ad'"):
        ad.tag(svj, [fat, fat])
    with pytest.raises(ConfigError, match="at least one tagger"):
        ad.tag(svj, [])


def test_no_events_need_no_branches_of_several_models(svj, model_file, stored_model):
    taggers = [ad.Tagger(model_file), ad.Tagger(stored_model, name="stored")]
    empty = ad.tag(svj[:0][[]], taggers)
    assert len(empty) == 0
    assert {"ad_region", "stored_region"} <= set(empty.fields)
    bare = ad.tag(svj[["run"]][:0], taggers)
    assert {"ad_score", "ad_logp", "ad_region", "stored_score"} <= set(bare.fields)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_used_tagger_pickles(tagger, svj, pickler):
    before = flat(tagger(svj)["ad_score"])
    copy = pickler.loads(pickler.dumps(tagger))
    np.testing.assert_array_equal(flat(copy(svj)["ad_score"]), before)


# scores that are kept


def varied(jets, factor=1.1):
    for field in ("pt", "mass", "msoftdrop"):
        jets = ak.with_field(jets, jets[field] * np.float32(factor), field)
    return jets


def test_variations_of_the_same_jets_are_not_scored_again(tagger, svj, made):
    nominal = tagger(svj)
    made.clear()
    for factor in (1.1, 0.9):
        up = tagger(varied(svj.FatJet, factor))
        np.testing.assert_array_equal(flat(up["ad_score"]), flat(nominal["ad_score"]))
        np.testing.assert_allclose(flat(up["pt"]), flat(nominal["pt"]) * factor, rtol=1e-6)
    assert made == []


def test_only_jets_without_a_score_are_scored(tagger, svj, made):
    jets = svj.FatJet
    hard, wider = jets[jets["pt"] > 350], jets[jets["pt"] > 250]
    tagger(hard)
    tagger(wider)
    tagger(varied(wider))
    n_hard, n_wider = len(ak.flatten(hard)), len(ak.flatten(wider))
    assert 0 < n_hard < n_wider
    assert [rows for _, rows in made if rows != "prepared"] == [n_hard, n_wider - n_hard]


@pytest.mark.parametrize(
    "view",
    [
        lambda j: j[j["pt"] > 300],
        lambda j: j[ak.argsort(j["mass"], axis=1)],
        lambda j: varied(j)[ak.argsort(j["eta"], axis=1)],
        ak.firsts,
        lambda j: ak.pad_none(j, 2, clip=True),
        lambda j: j[ak.num(j) > 1][:, [0, 0, 1]],
        lambda j: j[::-1],
        lambda j: j[j["pt"] > 1e9],
    ],
    ids=["mask", "sort", "varied and sorted", "firsts", "padded", "twice", "events reversed", "none left"],
)
def test_kept_scores_are_those_that_would_be_computed(tagger, svj_file, view):
    plain = tagger(view(open_events(svj_file).FatJet))
    events = open_events(svj_file)
    first = events.FatJet
    tagger(first[first["eta"] > 0])
    kept = tagger(view(events.FatJet))
    for field in ("ad_score", "ad_logp", "ad_region"):
        np.testing.assert_array_equal(flat(kept[field]), flat(plain[field]))
    assert listed(kept["ad_score"]) == listed(plain["ad_score"])


def test_models_that_read_the_jets_own_fields_are_computed_anew(svj, stored_model, model_file, made):
    stored, network = ad.Tagger(stored_model, name="stored"), ad.Tagger(model_file)
    nominal = ad.tag(svj, [network, stored])
    up = ad.tag(varied(svj.FatJet), [network, stored])
    n = len(ak.flatten(nominal))
    assert [rows for _, rows in made if rows != "prepared"] == [n, n, n]
    assert listed(up["stored_score"]) != listed(nominal["stored_score"])
    assert listed(up["ad_score"]) == listed(nominal["ad_score"])


def test_other_constituents_are_other_scores(tagger, svj):
    before = tagger(svj)
    svj["mine"] = np.arange(len(svj))
    same = tagger(svj)
    svj["PFCand"] = ak.with_field(svj.PFCand, svj.PFCand["eta"] * np.float32(1.2), "eta")
    after = tagger(svj)
    assert listed(same["ad_score"]) == listed(before["ad_score"])
    assert listed(after["ad_score"]) != listed(before["ad_score"])


def test_a_spectator_of_the_regions_is_read_from_the_varied_jets(svj, model_file):
    edge = float(np.median(flat(svj.FatJet["pt"])))
    region = read_card(model_file.read_bytes()).regions[0]
    binned = region.model_copy(update={"thresholds": (9.0, 0.0), "edges": (edge,), "spectator": "pt"})
    tagger = ad.Tagger(recarded(model_file, regions=(binned,)))
    nominal, up = tagger(svj), tagger(varied(svj.FatJet, 100))
    assert set(flat(nominal["ad_region"])) == {-1, 0, 1}
    assert set(flat(up["ad_region"])) == {-1, 1}


@pytest.mark.parametrize("collector", [True, False], ids=["with the collector", "by counting alone"])
def test_kept_scores_die_with_their_chunk(tagger, svj_file, collector):
    gc.collect()
    before = len(module._caches)
    if not collector:
        gc.disable()
    try:
        factory = NanoEventsFactory.from_root(f"{svj_file}:Events", schemaclass=ad.NanoAODSchema)
        chunk = weakref.ref(factory)
        events = factory.events()
        jets = tagger(tagger(events)[:, :1])
        assert len(module._caches) == before + 1
        cache = weakref.ref(next(iter(module._caches[factory].values())))
        del factory, events
        assert chunk() is not None  # the jets still know where they come from
        del jets
        if collector:
            gc.collect()
        assert chunk() is None
        assert cache() is None
        assert len(module._caches) == before
    finally:
        gc.enable()


def test_chunks_do_not_share_scores(tagger, data):
    for name in ("svj", "qcd", "svj"):
        events = open_events(data / f"{name}_v15.root")
        rows, _ = ad.features.compute("jet_substructure", events)
        for _ in range(2):
            got = ak.to_numpy(ak.flatten(tagger(events)["ad_score"]))
            np.testing.assert_array_equal(got, tagger.scorer(rows))


def test_a_feature_that_does_not_say_what_it_reads_is_refused(svj, model_file, monkeypatch):
    """It would be kept where it varies."""
    liar = copies("liar", "jet", lambda objects: objects.field("pt"), ("PFCand_pt",))
    monkeypatch.setitem(FEATURES, "liar", liar)
    tagger = ad.Tagger(recarded(model_file, inputs=(InputSpec(features=(feature_spec("liar"),)),)))
    with pytest.raises(BadFeature, match="feature liar takes FatJet_pt, which it does not declare"):
        tagger(svj)
    monkeypatch.setitem(FEATURES, "liar", dataclasses.replace(liar, reads=lambda c, _: ((f"{c}_pt",),)))
    assert len(tagger(svj)) == len(svj)


@pytest.mark.parametrize("name", [n for n, f in FEATURES.items() if f.level == "jet"])
def test_the_features_of_jets_say_what_they_read(svj, model_file, name):
    inputs = (InputSpec(features=(feature_spec(name),)),)
    tagger = ad.Tagger(recarded(model_file, inputs=inputs, golden=None))
    values, _ = ad.features.compute(name, svj)
    np.testing.assert_array_equal(tagger.rows(svj)["features"], values)


def test_tracing_does_not_spoil_cached_scores(tagger, svj):
    from coffea.nanoevents.trace import trace_with_length_one_array

    trace_with_length_one_array(tagger, svj)
    rows, _ = ad.features.compute("jet_substructure", svj)
    got = ak.to_numpy(ak.flatten(tagger(svj)["ad_score"]))
    np.testing.assert_array_equal(got, tagger.scorer(rows))
