from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from toys import open_events

import coffea_ad as ad
from coffea_ad.errors import MissingBranch


@pytest.fixture(scope="module")
def tagger(request):
    return ad.Tagger(request.config.rootpath / "tests" / "data" / "wnae.onnx")


def test_jets_get_score_logp_and_region(tagger, svj):
    jets = tagger(svj)
    assert str(jets["ad_score"].type).endswith("?float32")
    assert str(jets["ad_logp"].type).endswith("?float32")
    assert str(jets["ad_region"].type).endswith("?int8")
    assert ak.num(jets).to_list() == ak.num(svj.FatJet).to_list()
    np.testing.assert_array_equal(ak.to_numpy(ak.flatten(jets["pt"])), ak.to_numpy(ak.flatten(svj.FatJet["pt"])))


def test_undefined_jets_have_none_in_all_three(tagger, svj):
    jets = tagger(svj)
    forward = ak.flatten(abs(jets["eta"]) > 2.5)
    for field in ("ad_score", "ad_logp", "ad_region"):
        assert ak.to_list(ak.is_none(ak.flatten(jets[field]))) == ak.to_list(forward)


def test_scores_are_those_of_the_scorer_on_the_features(tagger, svj):
    rows, _ = ad.features.compute("jet_substructure", svj)
    got = ak.to_numpy(ak.fill_none(ak.flatten(tagger(svj)["ad_score"]), np.nan))
    np.testing.assert_array_equal(got, tagger.scorer(rows))


def test_higher_scores_have_higher_logp_and_regions_count_thresholds(tagger, svj):
    jets = ak.flatten(tagger(svj))
    score, logp = (ak.to_numpy(ak.drop_none(jets[f])) for f in ("ad_score", "ad_logp"))
    order = np.argsort(score)
    assert (np.diff(logp[order]) >= 0).all()
    passed = sum((logp >= r.thresholds[0]).astype(int) for r in tagger.card.regions)
    np.testing.assert_array_equal(ak.to_numpy(ak.drop_none(jets["ad_region"])), passed)


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
    # None twice: jets without a score, and places without a jet
    scores = ak.to_list(ak.flatten(ak.fill_none(tagged["ad_score"], -1.0), axis=None))
    assert [s for s in scores if s >= 0] == [of_jet[i] for i in index if of_jet[i] is not None]
    assert tagged["ad_score"].ndim == view(svj)["pt"].ndim


def test_several_taggers_live_side_by_side(svj, model_file, stored_model):
    one, two = ad.Tagger(model_file), ad.Tagger(stored_model, name="stored")
    jets = two(one(svj))
    assert {"ad_score", "stored_score"} <= set(jets.fields)
    assert ak.to_list(jets["ad_score"]) == ak.to_list(one(svj)["ad_score"])
    assert ak.to_list(jets["stored_score"]) == ak.to_list(two(svj)["stored_score"])


def test_a_varied_collection_is_scored_as_varied(svj, stored_model):
    tagger = ad.Tagger(stored_model)
    varied = ak.with_field(svj.FatJet, svj.FatJet["mass"] * np.float32(3), "mass")
    assert ak.to_list(tagger(varied)["ad_score"]) != ak.to_list(tagger(svj)["ad_score"])


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
    from coffea_ad.card import InputSpec, read_card, write_card
    from coffea_ad.features import FEATURES, Column, Feature, at_once

    columns = tuple(Column(f"x{i}") for i in range(8))
    met = Feature(
        name="met_copies", version=1, level="event", columns=lambda _: columns, reads=lambda *_: (("PuppiMET_pt",),),
        rows=at_once(lambda o, _: np.repeat(np.asarray(o.array.PuppiMET["pt"], np.float32)[:, None], 8, axis=1) / 1000),
        convention="toy", reference="",
    )  # fmt: skip
    monkeypatch.setitem(FEATURES, "met_copies", met)
    data = model_file.read_bytes()
    spec = {"name": "met_copies", "version": 1, "columns": [{"name": c.name} for c in columns]}
    card = read_card(data).model_copy(update={"level": "event", "inputs": (InputSpec(features=(spec,)),)})
    tagged = ad.Tagger(write_card(data, card))(svj)
    assert str(tagged["ad_score"].type) == f"{len(svj)} * ?float32"
    assert not ak.any(ak.is_none(tagged["ad_region"]))
