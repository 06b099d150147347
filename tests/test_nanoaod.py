from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from coffea.nanoevents import NanoAODSchema as StockSchema
from toys import open_events

import coffea_ad as ad
from coffea_ad.errors import MissingBranch, MissingIndex, UnknownName
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.nanoaod.schema import NanoAODSchema

NAME = "jet_substructure"


def flat(values):
    return np.asarray(ak.to_numpy(ak.flatten(values, axis=None)))


def test_every_jagged_collection_knows_its_event_and_position(svj):
    for name in ("FatJet", "Jet", "Muon", "PFCand"):
        counts = ak.to_numpy(ak.num(svj[name]))
        np.testing.assert_array_equal(flat(svj[name]["eventIdxG"]), np.repeat(np.arange(len(svj)), counts))
        np.testing.assert_array_equal(flat(svj[name]["objectIdxG"]), np.arange(counts.sum()))


def test_constituents_sum_to_their_jets(svj):
    objects = Objects.of(svj)
    c = objects.constituents
    jet = np.repeat(np.arange(len(objects)), np.diff(c.offsets))
    px, py = (np.bincount(jet, c.pt * f(c.phi), len(objects)) for f in (np.cos, np.sin))
    stored = np.diff(c.offsets) > 0
    np.testing.assert_allclose(np.hypot(px, py)[stored], objects.field("pt")[stored], rtol=1e-3)


def test_v15_and_pfnano_layouts_of_the_same_events_give_the_same_features(data):
    """PFNano keeps pT before PUPPI: the weight must be applied there once, and in v15 not at all."""
    v15, _ = ad.features.compute(NAME, open_events(data / "svj_v15.root"))
    pfnano, _ = ad.features.compute(NAME, open_events(data / "svj_pfnano.root"))
    np.testing.assert_array_equal(v15, pfnano)


def test_jets_outside_the_acceptance_of_stored_constituents_are_undefined(svj):
    values, _ = ad.features.compute(NAME, svj)
    forward = np.abs(flat(svj.FatJet["eta"])) > 2.5
    assert forward.any()
    assert np.isnan(values[forward]).all()
    assert np.isfinite(values[~forward]).all()


def test_constituents_are_counted_from_the_links_not_from_n_constituents(svj):
    """nConstituents is there for forward jets too, whose candidates are not stored."""
    counts = np.diff(Objects.of(svj).constituents.offsets)
    claimed = flat(svj.FatJet["nConstituents"])
    assert ((counts == 0) & (claimed > 0)).any()


@pytest.mark.parametrize(
    "view",
    [
        lambda e: e.FatJet[e.FatJet["pt"] > 300],
        lambda e: e.FatJet[ak.argsort(e.FatJet["mass"], axis=1)],
        lambda e: e.FatJet[:, :1],
        lambda e: ak.firsts(e.FatJet),
        lambda e: e.FatJet[ak.num(e.FatJet) > 1][:, 1],
        lambda e: e[e.PuppiMET["pt"] > 100].FatJet,
        lambda e: e[::-1].FatJet,
        lambda e: ak.pad_none(e.FatJet, 3),
        lambda e: ak.mask(e.FatJet, e.FatJet["pt"] > 300),
        lambda e: ak.with_field(e.FatJet, e.FatJet["pt"] * 2, "pt"),
        lambda e: e.FatJet[e.FatJet["pt"] > 1e9],
    ],
    ids=[
        "mask",
        "sort",
        "slice",
        "firsts",
        "second",
        "events mask",
        "reversed",
        "padded",
        "option",
        "varied",
        "none left",
    ],
)
def test_features_of_any_view_of_a_collection_are_those_of_its_jets(svj, view):
    whole, _ = ad.features.compute(NAME, svj)
    jets = view(svj)
    objects = Objects.of(jets)
    values, counts = ad.features.compute(NAME, jets)
    np.testing.assert_array_equal(values, whole[objects.index])
    index = jets["objectIdxG"]
    shaped = objects.restore(objects.index)
    assert ak.to_list(ak.Array(shaped)) == ak.to_list(index)
    assert len(counts) == len(jets)


def test_counts_per_event_add_up(svj):
    values, counts = ad.features.compute(NAME, svj)
    np.testing.assert_array_equal(counts, ak.to_numpy(ak.num(svj.FatJet)))
    first, ones = ad.features.compute(NAME, ak.firsts(svj.FatJet))
    assert ones.sum() == len(first)
    assert len(values) == counts.sum()


def test_event_masked_with_the_factory_still_finds_constituents_when_the_events_are_gone(svj_file):
    jets = open_events(svj_file)[10:60].FatJet
    values, _ = ad.features.compute(NAME, jets)
    whole, counts = ad.features.compute(NAME, open_events(svj_file))
    edges = np.r_[0, np.cumsum(counts)]
    np.testing.assert_array_equal(values, whole[edges[10] : edges[60]])


def test_the_stock_schema_works_for_whole_events(svj_file):
    with pytest.warns(RuntimeWarning, match="Missing cross-reference"):
        stock = open_events(svj_file, StockSchema)
    np.testing.assert_array_equal(
        ad.features.compute(NAME, stock)[0], ad.features.compute(NAME, open_events(svj_file))[0]
    )


@pytest.mark.parametrize(
    "view",
    [
        lambda e: e[5:],
        lambda e: e.FatJet,
        lambda e: e.FatJet[:, :1],
        lambda e: ak.with_field(e, e.FatJet[ak.argsort(e.FatJet["mass"], axis=1)], "FatJet"),
    ],
    ids=["events", "collection", "slice", "re-sorted in place"],
)
def test_the_stock_schema_is_refused_where_it_would_mislead(svj_file, view):
    with pytest.warns(RuntimeWarning, match="Missing cross-reference"):
        stock = open_events(svj_file, StockSchema)
    with pytest.raises(MissingIndex, match="NanoAODSchema"):
        ad.features.compute(NAME, view(stock))


def test_another_collection_than_asked_for_is_refused(svj):
    with pytest.raises(MissingIndex, match="FatJet collection is needed, but this is Jet"):
        ad.features.compute(NAME, svj.Jet)


def test_a_missing_collection_or_field_is_named(svj):
    with pytest.raises(MissingBranch, match="ScoutingFatJet"):
        ad.features.compute(NAME, svj, collection="ScoutingFatJet")
    with pytest.raises(MissingBranch, match="Jet constituents needs JetPFCand_jetIdx"):
        ad.features.compute(NAME, svj, collection="Jet")
    with pytest.raises(MissingBranch, match="Jet_tau1"):
        ad.features.compute(NAME, svj, collection="Jet", source="stored")


def test_only_declared_branches_are_read(svj_file):
    for options in ({}, {"source": "stored"}):
        log = []
        events = open_events(svj_file, access_log=log)
        ad.features.compute(NAME, events, **options)
        read = {entry.branch for entry in log if not entry.branch.startswith("n")}
        alternatives = ad.features.get(NAME).reads("FatJet", ad.features.get(NAME).resolve(options))
        assert any(read == set(branches) for branches in alternatives)


def test_stored_features_use_item_access_since_tau2_as_an_attribute_is_mass_squared(svj):
    values, _ = ad.features.compute(NAME, svj, source="stored")
    np.testing.assert_allclose(values[:, 1], flat(svj.FatJet["tau2"]))
    assert not np.allclose(flat(svj.FatJet.tau2), flat(svj.FatJet["tau2"]))


def test_negative_stored_soft_drop_masses_become_zero(svj):
    jets = ak.with_field(svj.FatJet, svj.FatJet["msoftdrop"] * 0 - 1, "msoftdrop")
    values, _ = ad.features.compute(NAME, jets, source="stored")
    assert (values[:, 4] == 0).all()


def test_blocks_join_to_the_whole(svj):
    whole, _ = ad.features.compute(NAME, svj)
    parts = list(ad.features.blocks(NAME, svj, size=50))
    assert [len(p) for p in parts[:-1]] == [50] * (len(parts) - 1)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    kinematics = np.concatenate(list(ad.features.blocks("jet_kinematics", svj, size=37)))
    np.testing.assert_array_equal(kinematics, ad.features.compute("jet_kinematics", svj)[0])


def test_systematic_variations_are_read_from_the_passed_objects(svj):
    varied = ak.with_field(svj.FatJet, svj.FatJet["pt"] * np.float32(2), "pt")
    nominal, _ = ad.features.compute("jet_kinematics", svj)
    shifted, _ = ad.features.compute("jet_kinematics", varied)
    np.testing.assert_allclose(shifted[:, 0], 2 * nominal[:, 0])
    np.testing.assert_array_equal(shifted[:, 1:], nominal[:, 1:])


def test_unknown_features_and_options_get_the_nearest_right_name(svj):
    with pytest.raises(UnknownName, match="did you mean 'jet_substructure'"):
        ad.features.compute("jet_substructur", svj)
    with pytest.raises(ad.errors.ConfigError, match="did you mean 'source'"):
        ad.features.compute(NAME, svj, sorce="stored")
    with pytest.raises(
        ad.errors.ConfigError, match="option source is 'puppi': Input should be 'constituents' or 'stored'"
    ):
        ad.features.compute(NAME, svj, source="puppi")


def test_every_feature_describes_itself():
    for name, feature in ad.features.FEATURES.items():
        options = feature.resolve({})
        assert feature.name == name
        assert feature.convention
        assert feature.columns(options)
        assert feature.reads("FatJet", options)
        assert feature.key({}) == name
    assert ad.features.get(NAME).key({"source": "stored"}) == "jet_substructure[source=stored]"


def test_multiplicity_counts_candidates_with_pt(svj):
    values, _ = ad.features.compute("jet_kinematics", svj)
    counts = np.diff(Objects.of(svj).constituents.offsets)
    np.testing.assert_array_equal(values[counts > 0, 3], counts[counts > 0])
    assert np.isnan(values[counts == 0, 3]).all()


def test_a_single_event_and_fields_with_holes_are_refused(svj):
    with pytest.raises(MissingIndex, match=r"events\[3:4\]"):
        ad.features.compute(NAME, svj[3])
    holes = ak.with_field(svj.FatJet, ak.mask(svj.FatJet["mass"], svj.FatJet["pt"] > 300), "mass")
    with pytest.raises(ad.errors.BadFile, match="FatJet_mass has missing values"):
        ad.features.compute(NAME, holes, source="stored")


def test_options_are_checked():
    for wrong in ("abc", -1.0, True):
        with pytest.raises(ad.errors.ConfigError, match=f"option beta is {wrong!r}: "):
            ad.features.get(NAME).resolve({"beta": wrong})


def test_schema_survives_pickling_by_reference():
    import cloudpickle

    assert cloudpickle.loads(cloudpickle.dumps(NanoAODSchema)) is NanoAODSchema


def test_rows_and_counts_leave_out_what_is_missing(svj):
    """Padded and masked-out jets have no row."""
    jets = svj.FatJet
    for view, kept in (
        (ak.pad_none(jets, 4), ak.num(jets)),
        (ak.mask(jets, jets["pt"] > 300), ak.sum(jets["pt"] > 300, axis=1)),
        (ak.firsts(jets), ak.num(jets) > 0),
    ):
        values, counts = ad.features.compute("jet_kinematics", view)
        np.testing.assert_array_equal(counts, ak.to_numpy(kept).astype(int))
        assert len(values) == counts.sum()
    masked, _ = ad.features.compute("jet_kinematics", ak.mask(jets, jets["pt"] > 300))
    assert (masked[:, 0] > 300).all()


def test_events_of_two_files_are_not_taken_for_those_of_one(data):
    joined = ak.concatenate([open_events(data / "svj_v15.root"), open_events(data / "ttbar_v15.root")])
    with pytest.raises(MissingIndex, match="were events of two files joined"):
        ad.features.compute(NAME, joined)
