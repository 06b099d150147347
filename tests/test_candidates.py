"""Candidates of other producers: links in any spelling, and PUPPI weights applied once, whoever has stored what."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from fuzz_files import columns, search, write
from toys import DATA, REAL, open_events

import coffea_ad as ad
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError
from coffea_ad.filesets.inspection import inspect_files
from coffea_ad.nanoaod.candidates import usual_name

NAME = "jet_substructure"
SPELLINGS = ("PFCandIdx", "pFCandsIdx", "pfcandIdx", "pFCandIdx", "PFCandsIdx", "pfCandsIdx", "candIdx")
INDEX = "FatJetPFCand_pfCandIdx"


def raw_factor():
    with_it = open_events(DATA / "svj_v15.root")[: len(columns()["event"])]
    return ak.Array(with_it.FatJet["rawFactor"].to_list())


def weights():
    """Half of the neutral candidates are pile-up in parts; powers of two, so that the product is exact."""
    neutral = abs(columns()["PFCand_pdgId"]) < 100
    place = ak.local_index(columns()["PFCand_pt"])
    return ak.values_astype(ak.where(neutral & (place % 2 == 0), 0.25, 1.0), np.float32)


def branches(*, weighted, factor=True, plural=False, stored_weight=True, index=None):
    """The file's columns as a producer writes them that stores pT before or after PUPPI."""
    out, w = dict(columns()), weights()
    if not weighted:
        out |= {f"PFCand_{f}": out[f"PFCand_{f}"] / w for f in ("pt", "mass")}
    if stored_weight:
        out["PFCand_puppiWeight"] = w
    if factor:
        out["FatJet_rawFactor"] = raw_factor()
    if plural:
        rest = {"PFCand_": "PFCands_", INDEX: "FatJetPFCands_pFCandsIdx", "FatJetPFCand_jetIdx": "FatJetPFCands_jetIdx"}
        out = {
            rest.get(k, k.replace("PFCand_", "PFCands_") if k.startswith("PFCand_") else k): v for k, v in out.items()
        }
        out["PFCands_charge"] = out["PFCands_pdgId"] * 0
    if index is not None:
        out[f"FatJetPFCand_{index}"] = out.pop(INDEX)
    return out


def features(path, **metadata):
    return ad.features.compute(NAME, open_events(path, metadata={"dataset": "svj", **metadata}))[0]


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """Features and results of the file as it is, in which pT is weighted and no weight is stored."""
    path = write(tmp_path_factory.mktemp("right") / "x.root", columns())
    return features(path), search([path])


@pytest.mark.parametrize("weighted", [False, True], ids=["before PUPPI", "after PUPPI"])
@pytest.mark.parametrize("plural", [False, True], ids=["PFCand", "PFCands"])
def test_stored_weights_are_applied_once_whatever_the_names(weighted, plural, right, tmp_path):
    path = write(tmp_path / "x.root", branches(weighted=weighted, plural=plural))
    np.testing.assert_array_equal(features(path), right[0])
    assert search([path]) == right[1]
    assert search([path], chunksize=7, preflight=True) == right[1]  # a few jets tell it too


@pytest.mark.parametrize("index", SPELLINGS)
def test_every_spelling_of_the_link_is_read(index, right, tmp_path):
    path = write(tmp_path / "x.root", branches(weighted=True, stored_weight=False, index=index))
    np.testing.assert_array_equal(features(path), right[0])
    assert search([path], preflight=True) == right[1]
    found = inspect_files({"svj": {"files": {str(path): "Events"}, "metadata": {}}})
    assert found["svj"][str(path)].layout == "NanoAOD v15"


def test_another_spelling_before_puppi_is_read_through_all_parts_of_a_run(right, tmp_path):
    path = write(tmp_path / "x.root", branches(weighted=False, index="PFCandIdx"))
    assert search([path], preflight=True, chunksize=11) == right[1]


def test_what_cannot_be_told_is_asked_for_and_then_right(right, tmp_path):
    for weighted in (False, True):
        path = write(tmp_path / "x.root", branches(weighted=weighted, factor=False))
        with pytest.raises(BadFile, match="it cannot be told .* say puppi_weighted: true or false in the metadata"):
            features(path)
        with pytest.raises(CoffeaADError, match="x.root: it cannot be told .* PFCand_puppiWeight"):
            search([path], preflight=True)
        np.testing.assert_array_equal(features(path, puppi_weighted=weighted), right[0])
        assert search([path], metadata={"is_mc": True, "xsec": 1.0, "puppi_weighted": weighted}) == right[1]


def test_where_nothing_tells_it_pfnanos_names_do(right, tmp_path):
    path = write(tmp_path / "x.root", branches(weighted=False, factor=False, plural=True))
    np.testing.assert_array_equal(features(path), right[0])


def test_weights_of_one_need_no_answer(right, tmp_path):
    out = branches(weighted=True, factor=False)
    path = write(tmp_path / "x.root", {**out, "PFCand_puppiWeight": out["PFCand_puppiWeight"] * 0 + 1})
    np.testing.assert_array_equal(features(path), right[0])


def test_jets_without_puppi_take_their_candidates_as_they_are(right, tmp_path):
    """AK4 CHS jets of PFNano: their candidates have weights, which are not theirs."""
    out = branches(weighted=True, plural=True)  # the jets are the sums of the stored pT
    path = write(tmp_path / "x.root", out)
    np.testing.assert_array_equal(features(path), right[0])


@pytest.mark.parametrize("value", ["yes", 1.5, [True]])
def test_the_answer_is_true_or_false(value, tmp_path):
    path = write(tmp_path / "x.root", branches(weighted=True))
    with pytest.raises(ConfigError, match="svj: puppi_weighted is .*, but must be true or false"):
        search([path], metadata={"is_mc": True, "xsec": 1.0, "puppi_weighted": value})


def test_only_links_have_another_name():
    assert usual_name("FatJetPFCand_jetIdx") == "FatJetPFCand_jetIdx"
    assert usual_name("PFCand_pt") == "PFCand_pt"
    assert usual_name("SubJetPFCand_PFCandIdx") == "SubJetPFCand_pfCandIdx"


@pytest.mark.real
def test_real_files_say_what_their_producers_do():
    """PFNano stores pT before PUPPI, and the sums over its jets say so."""
    from coffea_ad.nanoaod.constituents import _tables, _unweighted
    from coffea_ad.nanoaod.objects import Objects

    events = open_events(REAL / "pfnano.root")
    objects = Objects.of(events)
    table = _tables(events, "FatJet")
    assert table.puppi == "puppiWeight"
    links = events[table.links.format("FatJet")]
    first = np.r_[0, np.cumsum(ak.to_numpy(ak.num(events.FatJet)))][:-1]
    starts = np.r_[0, np.cumsum(ak.to_numpy(ak.num(events[table.candidates])))][:-1]
    jet = ak.to_numpy(ak.flatten(links["jetIdx"] + first))
    candidate = ak.to_numpy(ak.flatten(links[table.index] + starts))
    assert len(objects) > 0
    assert _unweighted(events, "FatJet", table, jet, candidate, ak.to_numpy(ak.num(events.FatJet)))
