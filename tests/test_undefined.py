"""NaN and infinities in every input of a model: counted, in no region and no flow bin, and nothing else moves."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from toys import DATA, assert_identical, copy_events

import coffea_ad as ad

OPEN = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=20", "lepton_pt_min=1e4", "jet_scale=0"]
STORED = sorted({b for f in ad.Tagger(DATA / "ae_stored.onnx").card.reads.values() for way in f for b in way})
CANDIDATES = ["PFCand_pt", "PFCand_eta", "PFCand_phi", "PFCand_mass"]


def search(path, model, output):
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(fileset, "semivisible_jets", model=DATA / model, overrides=OPEN, config="none", executor="iterative", output=output,
                    chunksize=60, progress=False, preflight=False)  # fmt: skip
    return report, ad.load_results(output).in_regions


def chosen(model):
    """Three events whose two leading jets are both scored, and the places of their leading jets."""
    from toys import open_events

    events = open_events(DATA / "svj_v15.root")
    jets = ad.Tagger(DATA / model)(events)
    order = ak.argsort(jets["pt"], axis=1, ascending=False)
    lead = jets[order][:, :2]
    good = ak.sum((lead["pt"] > 200) & (abs(lead["eta"]) < 2.4) & (lead["ad_region"] >= 0), axis=1) == 2
    where = np.flatnonzero(ak.to_numpy(good))[[3, 20, 40]]
    first = ak.to_numpy(ak.firsts(lead["objectIdxG"])[where])
    return where, first


def poison(columns, branch, places, value):
    collection, field = branch.split("_", 1)
    counts = ak.num(columns[collection][field])
    flat = np.array(ak.to_numpy(ak.flatten(columns[collection][field])))
    flat[places] = value
    columns[collection] = ak.with_field(columns[collection], ak.unflatten(flat, counts), field)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """The run in which the poisoned events are not there."""
    found = {}

    def make(model):
        if model not in found:
            folder = tmp_path_factory.mktemp("without")
            where, _ = chosen(model)

            def drop(columns):
                for k, v in columns.items():
                    columns[k] = v[np.setdiff1d(np.arange(len(v)), where)]

            copy_events(DATA / "svj_v15.root", folder / "x.root", change=drop)
            found[model] = search(folder / "x.root", model, folder / "r")
        return found[model]

    return make


def undefined(report):
    return report.inputs["ad"]["datasets"]["svj"]["undefined"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    ("model", "branch"), [("ae_stored.onnx", b) for b in STORED] + [("wnae.onnx", b) for b in CANDIDATES], ids=str
)
def test_an_undefined_input_is_counted_and_nothing_else_moves(model, branch, value, without, tmp_path):
    where, first = chosen(model)
    if branch.startswith("PFCand"):
        from toys import open_events

        events = open_events(DATA / "svj_v15.root")
        links = events.FatJetPFCand
        jet = ak.flatten(links["jetIdx"] + np.cumsum(np.r_[0, ak.num(events.FatJet)[:-1]]))
        candidate = ak.flatten(links["pfCandIdx"] + np.cumsum(np.r_[0, ak.num(events.PFCand)[:-1]]))
        places = [int(candidate[ak.to_numpy(jet) == j][0]) for j in first]
    else:
        places = first
    copy_events(
        DATA / "svj_v15.root", tmp_path / "x.root", change=lambda columns: poison(columns, branch, places, value)
    )
    report, histograms = search(tmp_path / "x.root", model, tmp_path / "r")
    reference, expected = without(model)
    assert_identical(expected, histograms)  # in all regions, flow bins included
    entry, other = report.datasets["svj"], reference.datasets["svj"]
    counted = sum(undefined(report).values()) - sum(undefined(reference).values())
    lost = entry["unscored"] - other["unscored"]
    kinematics = entry["undefined"] - other["undefined"]
    assert lost == len(where) or (branch == "FatJet_mass" and lost == 0 and kinematics == len(where))
    assert counted >= lost
    assert entry["events"] == 150
