"""Links of objects that lead nowhere, and counters that have wrapped: missing, or one sentence, never somebody else's object."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import uproot
from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad.errors import BadFile, CoffeaADError

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]


@pytest.fixture(scope="module")
def columns():
    with uproot.open(DATA / "svj_v15.root") as old:
        return {k: old["Events"][k].array()[:40] for k in old["Events"].keys()}


def write(path, columns):
    with uproot.recreate(path) as new:
        new.mkrntuple("Events", {k: ak.type(v).content for k, v in columns.items()}).extend(columns)
    return path


def run(path, executor="iterative", **kwargs):
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    settings = {"overrides": LOOSE, "executor": executor, "progress": False, "model": DATA / "wnae.onnx", **kwargs}
    return ad.run(fileset, "semivisible_jets", **settings)


@pytest.mark.parametrize("wrong", [99, -2])
def test_a_link_to_no_subjet_is_missing_and_others_stay(wrong, columns, tmp_path):
    name = "FatJet_subJetIdx1"
    right = open_events(write(tmp_path / "right.root", columns)).FatJet.subjets.pt
    links = ak.values_astype(ak.full_like(columns[name], wrong), np.int16)
    path = write(tmp_path / "x.root", {**columns, name: links})
    subjets = open_events(path).FatJet.subjets.pt
    assert ak.all(ak.is_none(subjets[..., 0], axis=-1))
    assert subjets[..., 1].to_list() == right[..., 1].to_list()


@pytest.mark.parametrize("name", ["FatJetPFCand_jetIdx", "FatJetPFCand_pfCandIdx"])
@pytest.mark.parametrize("wrong", [9999, -2])
def test_a_link_of_constituents_outside_its_event_is_one_sentence(name, wrong, columns, tmp_path):
    links = columns[name]
    last = ak.local_index(links) == ak.num(links) - 1
    one = last & (np.arange(40) == 7)
    path = write(tmp_path / "x.root", {**columns, name: ak.values_astype(ak.where(one, wrong, links), np.int32)})
    with pytest.raises(BadFile, match=r"x.root: FatJetPFCand points outside its event"):
        run(path)


WRAPPED = {
    "nFatJet": lambda counts: (np.asarray(counts).astype(np.int64) - 5).astype(np.uint8),  # 4 becomes 255
    "nFatJetPFCand": lambda counts: (np.asarray(counts).astype(np.int64) % 64).astype(np.uint8),
}


@pytest.mark.parametrize("counter", WRAPPED)
@pytest.mark.parametrize("executor", ["iterative", pytest.param("dask", marks=pytest.mark.dask)])
def test_a_wrapped_counter_is_one_sentence(counter, executor, columns, tmp_path, on):
    path = write(tmp_path / "x.root", {**columns, counter: WRAPPED[counter](columns[counter])})
    more = {"preflight": False} if executor == "dask" else {}
    with pytest.raises(CoffeaADError, match=rf"x.root: {counter} is \d+ in event \d+ .*holds \d+ numbers"):
        run(path, **on(executor), **more)
