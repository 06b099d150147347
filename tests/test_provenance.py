"""Scores belong to their jets: whatever was masked, sorted, joined or replaced, they are right or refused."""

from __future__ import annotations

import warnings
from functools import cache

import awkward as ak
import numpy as np
import pytest
from coffea.nanoevents import NanoAODSchema as StockSchema
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from toys import DATA, REAL, listed, open_events

import coffea_ad as ad
from coffea_ad.errors import BadModel, ConfigError, MissingIndex, UnknownName
from coffea_ad.nanoaod import provenance
from coffea_ad.nanoaod.objects import Objects

FILES = {"v15": DATA / "svj_v15.root", "PFNano": DATA / "svj_pfnano.root", "other": DATA / "ttbar_v15.root"}
SCHEMAS = {"ours": ad.NanoAODSchema, "stock": StockSchema}


@cache
def tagger(model="wnae.onnx"):
    return ad.Tagger(DATA / model)


def opened(file="v15", schema="ours", **kwargs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Missing cross-reference", RuntimeWarning)
        return open_events(FILES[file], SCHEMAS[schema], **kwargs)


def by_direction(jets):
    """Scores by η and φ, which tell the jets of a file apart."""
    eta, phi, score = (ak.to_numpy(ak.flatten(jets[k], axis=None)) for k in ("eta", "phi", "ad_score"))
    return dict(zip(zip(eta.tolist(), phi.tolist(), strict=True), score.tolist(), strict=True))


@cache
def untouched(file, model="wnae.onnx"):
    jets = tagger(model)(opened(file))
    scores = by_direction(jets)
    assert len(scores) == ak.count(jets["pt"])
    return scores


def assert_right(jets, *files, model="wnae.onnx"):
    want = {direction: score for file in files for direction, score in untouched(file, model).items()}
    eta, phi, score = (ak.to_numpy(ak.flatten(jets[k], axis=None)) for k in ("eta", "phi", "ad_score"))
    expected = [want[direction] for direction in zip(eta.tolist(), phi.tolist(), strict=True)]
    np.testing.assert_allclose(score, expected, rtol=1e-4)  # NaN where NaN; batches differ
    defined = np.isfinite(score)
    np.testing.assert_array_equal(ak.to_numpy(ak.flatten(jets["ad_region"], axis=None)) == -1, ~defined)


def sorted_by_mass(jets):
    return jets[ak.argsort(jets["mass"], axis=1)]


def with_collection(events, new, name="FatJet"):
    events[name] = new
    return events


TABLES = ["FatJet", "FatJetPFCand", "FatJetPFCands", "PFCand", "PFCands"]


def small(file, schema="ours", start=0, stop=40):
    """Some events with what is needed: joining events copies all their collections."""
    events = opened(file, schema, entry_start=start, entry_stop=stop)
    return events[[name for name in TABLES if name in ak.fields(events)]]


# any chain of masks, sorts, slices and joins


def _random(rng, events):
    return rng.random(len(events)) < 0.6


EVENT_STEPS = {
    "mask": lambda rng, e: e[_random(rng, e)],
    "slice": lambda rng, e: e[int(rng.integers(0, 10)) : int(rng.integers(20, 50))],
    "permute": lambda rng, e: e[rng.permutation(len(e))],
    "join with itself": lambda _, e: ak.concatenate([e, e]),
    "join parts": lambda _, e: ak.concatenate([e[len(e) // 2 :], e[: len(e) // 2]]),
    "join with another file": lambda _, e: ak.concatenate([e, small("other")]),
    "join with another chunk": lambda _, e: ak.concatenate([e, small("v15", start=75, stop=150)]),
}
JET_STEPS = {
    "sort": lambda _, j: sorted_by_mass(j),
    "mask": lambda rng, j: j[j["pt"] > rng.uniform(100, 400)],
    "option mask": lambda rng, j: ak.mask(j, j["pt"] > rng.uniform(100, 400)),
    "leading": lambda rng, j: j[:, : int(rng.integers(0, 3))],
    "reverse": lambda _, j: j[:, ::-1],
    "vary pt": lambda rng, j: ak.with_field(j, j["pt"] * np.float32(rng.uniform(0.5, 2)), "pt"),
    "pack": lambda _, j: ak.to_packed(j),
    "zip": lambda _, j: ak.zip({k: j[k] for k in ("pt", "eta", "phi", "mass")}),
    "pad": lambda _, j: ak.pad_none(j, 2),
    "join halves": lambda _, j: ak.concatenate([j[:, 1:], j[:, :1]], axis=1),
    "join jets of other events": lambda _, j: ak.concatenate([j, j[::-1]], axis=1),
    "join jets of another file": lambda _, j: ak.concatenate([j, small("other").FatJet]),
    "rename": lambda _, j: ak.with_name(j, "PtEtaPhiMLorentzVector"),
}  # fmt: skip
STEPS = st.lists(
    st.sampled_from([*(("events", k) for k in EVENT_STEPS), *(("jets", k) for k in JET_STEPS)]), max_size=3
)


def walked(steps, events, seed):
    """Events after some steps, those of jets in place."""
    rng = np.random.default_rng(seed)
    for what, name in steps:
        try:
            events, jets = (
                (EVENT_STEPS[name](rng, events), None)
                if what == "events"
                else (events, JET_STEPS[name](rng, events.FatJet))
            )
        except (IndexError, TypeError, ValueError):
            reject()  # awkward itself has no such step, as of jets of two files that have no common type
        if what == "jets":
            if len(jets) != len(events):
                return jets
            events = with_collection(events, jets)
    return events


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from(["v15", "PFNano"]), st.sampled_from(["ours", "stock"]), st.integers(0, 99), st.booleans())
def test_scores_after_any_masks_sorts_and_joins_are_those_of_the_untouched_file_or_refused(
    steps, file, schema, seed, pass_jets
):
    passed = walked(steps, small(file, schema), seed)
    if pass_jets and "FatJet" in ak.fields(passed):
        passed = passed.FatJet
    try:
        jets = tagger()(passed)
    except MissingIndex:  # no BadFile: the file is not to blame
        refused = True
    else:
        refused = False
        assert_right(jets, file, "other")
    assert steps or schema == "stock" or not refused


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.integers(0, 99))
def test_what_keeps_the_file_and_the_indices_is_scored_not_refused(steps, seed):
    """Own schema, one chunk: the only refusals are for objects that lost their indices, or came from elsewhere."""
    foreign = {"join with another file", "join with another chunk", "join jets of another file", "zip"}
    steps = [step for step in steps if step[1] not in foreign]
    assert_right(tagger()(walked(steps, small("v15"), seed)), "v15")


# what was wrong


@pytest.mark.parametrize("file", ["v15", "PFNano"])
def test_a_collection_that_was_sorted_in_place_is_refused_with_the_stock_schema_and_right_with_ours(file):
    stock, ours = (opened(file, schema) for schema in ("stock", "ours"))
    with pytest.raises(MissingIndex, match=r"^masked, sliced, joined or re-sorted events .*coffea_ad.NanoAODSchema$"):
        tagger()(with_collection(stock, sorted_by_mass(stock.FatJet)))
    assert_right(tagger()(with_collection(ours, sorted_by_mass(ours.FatJet))), file)


@pytest.mark.parametrize("file", ["v15", "PFNano"])
def test_a_collection_that_was_masked_in_place_does_not_blame_the_file(file):
    stock, ours = (opened(file, schema) for schema in ("stock", "ours"))
    with pytest.raises(MissingIndex, match="coffea_ad.NanoAODSchema"):
        tagger()(with_collection(stock, stock.FatJet[stock.FatJet["pt"] > 300]))
    assert_right(tagger()(with_collection(ours, ours.FatJet[ours.FatJet["pt"] > 300])), file)


@pytest.mark.parametrize("number", [3, None], ids=["a few events", "all events"])
def test_events_and_jets_of_two_files_are_refused(number):
    one, two = opened("v15")[:number], opened("other")[:number]
    for joined in (ak.concatenate([one, two]), ak.concatenate([one.FatJet, two.FatJet])):
        with pytest.raises(MissingIndex, match="not those of the file .* were events of two files joined"):
            tagger()(joined)
    size = min(len(one), len(two))
    with pytest.raises(MissingIndex, match="not those of the file"):
        tagger()(with_collection(one[:size], two[:size].FatJet))


@pytest.mark.parametrize("file", ["v15", "PFNano"])
def test_flattened_jets_are_scored(file):
    jets = ak.flatten(opened(file).FatJet)
    assert len(jets) > 150
    assert_right(tagger()(jets), file)
    assert_right(tagger()(jets[jets["pt"] > 300]), file)


def test_the_same_file_twice_is_scored():
    events = opened("v15")
    assert_right(tagger()(ak.concatenate([events, events])), "v15")
    assert_right(tagger()(ak.concatenate([opened("v15"), opened("v15")])), "v15")


def test_jets_of_a_masked_file_are_not_taken_for_those_of_its_beginning():
    """The second chunk's jets have places that are in the first chunk too."""
    first, second = (opened("v15", entry_start=start, entry_stop=start + 75) for start in (0, 75))
    with pytest.raises(MissingIndex, match="not those of the file"):
        tagger()(ak.concatenate([first, second]))
    assert_right(tagger()(first), "v15")
    assert_right(tagger()(second), "v15")


@pytest.mark.parametrize("schema", ["ours", "stock"])
def test_models_of_the_jets_own_fields_take_joined_and_masked_events(schema):
    """Nothing of theirs is looked up elsewhere."""
    one, two = opened("v15", schema), opened("other", schema)
    joined = ak.concatenate([one[5:50], two[::-1]])
    assert_right(tagger("ae_stored.onnx")(joined), "v15", "other", model="ae_stored.onnx")


def test_events_without_virtual_arrays_are_compared_by_value():
    for schema in ("ours", "stock"):
        assert_right(tagger()(opened("v15", schema, mode="eager")), "v15")
    ours, stock = (opened("v15", schema, mode="eager") for schema in ("ours", "stock"))
    assert_right(tagger()(with_collection(ours, sorted_by_mass(ours.FatJet))[10:90]), "v15")
    with pytest.raises(MissingIndex, match="NanoAODSchema"):
        tagger()(with_collection(stock, sorted_by_mass(stock.FatJet)))


@pytest.mark.parametrize("schema", ["ours", "stock"])
@pytest.mark.parametrize(
    "change",
    [lambda c: c[ak.argsort(c["pt"], axis=1)], lambda c: c[c["pt"] > 1], lambda c: ak.to_packed(c[c["pt"] > 1])],
    ids=["sorted", "masked", "packed"],
)
def test_candidates_that_links_no_longer_fit_are_refused(schema, change):
    events = opened("v15", schema)
    with pytest.raises(MissingIndex, match="^PFCand was masked, re-sorted or replaced"):
        tagger()(with_collection(events, change(events.PFCand), "PFCand"))


@pytest.mark.parametrize("schema", ["ours", "stock"])
def test_varied_candidates_are_scored_as_varied_in_place_or_in_new_events(schema):
    def varied(events):
        return ak.with_field(events.PFCand, events.PFCand["eta"] * np.float32(1.2), "eta")

    plain, in_place, new = opened("v15", schema), opened("v15", schema), opened("v15", schema)
    before = listed(tagger()(plain)["ad_score"])
    after = listed(tagger()(with_collection(in_place, varied(in_place), "PFCand"))["ad_score"])
    assert after != before
    assert listed(tagger()(ak.with_field(new, varied(new), "PFCand"))["ad_score"]) == after
    assert listed(tagger()(new)["ad_score"]) == before


def test_candidates_that_were_replaced_after_a_mask_are_refused_not_ignored():
    events = opened("v15")
    some = events[events.PuppiMET["pt"] > 100]
    louder = ak.with_field(some.PFCand, some.PFCand["pt"] * 2, "pt")
    with pytest.raises(MissingIndex, match="^PFCand was replaced in events that had been masked"):
        tagger()(with_collection(some, louder, "PFCand"))
    stored = tagger("ae_stored.onnx")
    assert_right(stored(some), "v15", model="ae_stored.onnx")


def test_links_that_were_replaced_are_not_blamed_on_the_file():
    events = opened("v15")
    links = events.FatJetPFCand
    events["FatJetPFCand"] = ak.with_field(links, links["jetIdx"] + 7, "jetIdx")
    with pytest.raises(MissingIndex, match="^FatJetPFCand was replaced, and now points outside its event$"):
        tagger()(events)


def test_links_of_the_file_that_point_outside_are_blamed_on_it(tmp_path):
    from toys import copy_events

    def spoil(columns):
        columns["FatJetPFCand"] = ak.with_field(
            columns["FatJetPFCand"], columns["FatJetPFCand"]["jetIdx"] + 7, "jetIdx"
        )

    path = copy_events(FILES["v15"], tmp_path / "broken.root", change=spoil)
    events = open_events(path, metadata={"filename": str(path)})
    with pytest.raises(ad.errors.BadFile, match=r"broken.root: FatJetPFCand points outside its event"):
        tagger()(events)


def test_the_proof_reads_nothing_more():
    """Neither for what is as it was read, nor for what was masked, sorted or varied; in place, the counts once more."""

    def branches(change):
        log = []
        events = opened("v15", access_log=log)
        jets = events.FatJet
        change(jets)  # what the change itself reads
        log.clear()
        tagger()(change(jets))
        return sorted(entry.branch for entry in log if not entry.branch.startswith("n"))

    nothing_else = sorted(f"FatJetPFCand_{f}" for f in ("jetIdx", "pfCandIdx")) + sorted(
        f"PFCand_{f}" for f in ("eta", "mass", "phi", "pt")
    )
    for change in (
        lambda j: j,
        lambda j: j[j["pt"] > 300],
        sorted_by_mass,
        lambda j: ak.with_field(j, j["pt"] * 2, "pt"),
        lambda j: ak.firsts(j[j["pt"] > 300]),
    ):
        assert branches(change) == nothing_else


def test_what_belongs_to_a_chunk_dies_with_it():
    import gc
    import weakref

    events = opened("v15")
    factory = weakref.ref(events.attrs["@events_factory"])
    tagger()(with_collection(events, sorted_by_mass(events.FatJet)))
    assert factory() in provenance._files
    del events
    gc.collect()
    assert factory() is None


@pytest.mark.real
@pytest.mark.parametrize(("name", "n"), [("nano_tt_v15.root", 62), ("pfnano.root", 24)])
def test_real_jets_that_are_sorted_in_place_keep_their_scores(name, n):
    model = tagger()
    path = REAL / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, plain, stock = open_events(path), open_events(path), open_events(path, StockSchema)
    scores = by_direction(model(plain))
    assert np.isfinite(list(scores.values())).sum() >= n
    got = by_direction(model(with_collection(ours, sorted_by_mass(ours.FatJet))))
    assert got.keys() == scores.keys()
    np.testing.assert_allclose([got[k] for k in scores], list(scores.values()), rtol=1e-4)
    with pytest.raises(MissingIndex, match="NanoAODSchema"):
        model(with_collection(stock, sorted_by_mass(stock.FatJet)))


@pytest.mark.real
def test_the_first_lines_of_the_documentation_count_what_is_tagged():
    jets = tagger()(open_events(REAL / "nano_tt_v15.root"))
    anomalous = jets[jets["ad_region"] >= 1]
    assert ak.sum(ak.num(anomalous)) == ak.count(anomalous["ad_logp"]) == 20
    assert ak.sum(jets["ad_region"] == -1) == 2  # they would be among them if they had None instead


# comparisons


def test_no_comparison_lets_a_jet_without_a_score_through():
    jets = tagger()(opened("v15"))
    scored = ak.sum(np.isfinite(jets["ad_score"]))
    assert 0 < scored < ak.count(jets["pt"])
    for mask in (jets["ad_region"] >= 0, jets["ad_logp"] >= 0, jets["ad_score"] > -np.inf):
        some = jets[mask]
        assert ak.sum(ak.num(some)) == ak.sum(mask) == scored
        assert not ak.any(ak.is_none(some, axis=1))
    for name, kind in (("ad_score", "float32"), ("ad_logp", "float32"), ("ad_region", "int8")):
        assert str(jets[name].type) == f"150 * var * {kind}"


def test_a_place_without_a_jet_stays_one():
    jets = opened("v15").FatJet
    leading = tagger()(ak.firsts(jets))
    assert str(leading["ad_region"].type) == "150 * ?int8"
    assert ak.is_none(leading["ad_region"]).to_list() == (ak.num(jets) == 0).to_list()


# wrong types


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((3, 8), np.float32), "not a numpy.ndarray"),
        (None, "not None"),
        ([1.0, 2.0], "not a list"),
        ({"FatJet": []}, "not a dict"),
        ("file.root", "not a str"),
        (ak.Array([1.0, 2.0]), "not an awkward array without fields"),
        (ad.NanoAODSchema, "not <class 'coffea_ad.nanoaod.schema.NanoAODSchema'>"),
    ],
    ids=["numpy", "none", "list", "dict", "path", "numbers", "class"],
)
def test_what_is_neither_events_nor_objects_is_named(wrong, said):
    for call in (
        tagger(), lambda x: ad.tag(x, [tagger()]), lambda x: ad.features.compute("jet_substructure", x),
        lambda x: ad.features.compute("rmm", x), lambda x: list(ad.features.blocks("jet_substructure", x)), Objects.of,
    ):  # fmt: skip
        with pytest.raises(MissingIndex, match=f"events or objects of a collection are needed.*{said}"):
            call(wrong)


def test_pairs_sums_and_collections_without_fields_are_named():
    events = opened("v15")
    pairs = ak.combinations(events.FatJet, 2)
    with pytest.raises(MissingIndex, match=r"^these objects \(fields 0, 1\) do not say which FatJet"):
        tagger()(pairs)
    assert_right(tagger()(ak.unzip(pairs)[1]), "v15")
    one, two = ak.unzip(pairs)
    with pytest.raises(MissingIndex, match="not pairs or sums of them"):
        tagger()(one + two)
    with pytest.raises(MissingIndex, match="FatJet is an awkward array without fields, not a collection of objects"):
        tagger()(with_collection(events, events.FatJet["pt"]))


@pytest.mark.parametrize(
    ("taggers", "said"),
    [(lambda t: t, "not a Tagger alone"), (lambda _: "m.onnx", "not a str"), (lambda t: [t, "m.onnx"], "not a str"),
     (lambda _: None, "not a NoneType"), (lambda t: t.scorer, "not a OnnxScorer")],
    ids=["alone", "path", "list with a path", "none", "scorer"],
)  # fmt: skip
def test_tag_says_what_it_takes(taggers, said):
    with pytest.raises(ConfigError, match=rf"^tag\(events, taggers\) takes a list of taggers.*{said}$"):
        ad.tag(opened("v15"), taggers(tagger()))


def test_a_model_is_a_path_or_bytes():
    for wrong in (None, 3, ["m.onnx"]):
        with pytest.raises(BadModel, match=f"path of an ONNX file, or its bytes, not a {type(wrong).__name__}"):
            ad.Tagger(wrong)


def test_a_feature_has_a_name():
    with pytest.raises(UnknownName, match="a feature is asked for by its name, not by a"):
        ad.features.compute(opened("v15"), "jet_substructure")


def test_printed_taggers_scorers_and_cards_are_one_line():
    model = tagger()
    for thing in (model, model.scorer, model.card):
        for text in (repr(thing), str(thing)):
            assert len(text) < 300
            assert "\n" not in text
            assert "wnae" in text
    assert repr(model).startswith("Tagger('wnae' scores FatJet")
    assert "regions: loose" in repr(model.card)
