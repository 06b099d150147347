"""NaN and infinities do not decide which jets lead: the two hardest of those that have a pT do, and what is undefined is counted."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
from fuzz_files import OPEN, READ, changed, columns, reference, search, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_outside_bins import energies

import coffea_ad as ad
from coffea_ad import selection as cuts

PLACE = ak.to_numpy(ak.flatten(ak.local_index(columns()["FatJet_pt"])))
THIRD = np.flatnonzero(PLACE >= 2)
FIRST = np.flatnonzero(PLACE == 0)[[3, 20]]
ODD = [np.nan, np.inf, -np.inf]


def selected_by_hand():
    """Events whose two hardest jets are above 100 GeV and within 2.4, and close in η; no lepton; in plain numpy."""
    c = columns()
    n = 0
    for i in range(len(c["event"])):
        pt, eta = np.array(c["FatJet_pt"][i]), np.array(c["FatJet_eta"][i])
        order = np.argsort(-pt)[:2]
        if len(order) < 2 or (pt[order] <= 100).any() or (np.abs(eta[order]) >= 2.4).any():
            continue
        leptons = [
            (c[f"{kind}_pt"][i] > 10) & (abs(c[f"{kind}_eta"][i]) < 2.4) & (c[f"{kind}_miniPFRelIso_all"][i] < 0.1)
            & ((c["Muon_looseId"][i] != 0) if kind == "Muon" else (c["Electron_cutBased"][i] >= 2))
            for kind in ("Electron", "Muon")
        ]  # fmt: skip
        n += abs(eta[order[0]] - eta[order[1]]) < 1.5 and not any(ak.any(x) for x in leptons)
    return int(n)


def skim(path, output):
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(
        fileset, "skim_jets", overrides=["jet_pt_min=100"], config="none", executor="iterative", progress=False,
        preflight=False, output=output,
    )  # fmt: skip
    rows = [pq.read_table(p, columns=["event", "objectIdx"]) for p in sorted(output.rglob("*.parquet"))]
    return report.outputs["svj"], sorted((r["event"], r["objectIdx"]) for t in rows for r in t.to_pylist())


def test_the_file_as_it_is_has_the_events_that_plain_numpy_selects(tmp_path):
    assert len(THIRD) > 10
    assert reference(tmp_path)["selected"][-1] == selected_by_hand()


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("field", ["pt", "eta", "phi", "mass"])
def test_jets_behind_the_leading_ones_may_be_undefined(field, value, tmp_path):
    got = search(
        [write(tmp_path / "x.root", {**columns(), f"FatJet_{field}": changed(f"FatJet_{field}", THIRD, value)})]
    )
    right = reference(tmp_path)
    assert got["selected"] == right["selected"]
    assert got["cells"] == right["cells"]
    assert got["undefined"] == right["undefined"] + (len(THIRD) if field == "pt" else 0)


@pytest.mark.parametrize("field", ["pt", "eta", "phi", "mass"])
def test_events_with_undefined_leading_jets_are_lost_alone_and_counted(field, tmp_path):
    got = search(
        [write(tmp_path / "x.root", {**columns(), f"FatJet_{field}": changed(f"FatJet_{field}", FIRST, np.nan)})]
    )
    right = reference(tmp_path)
    lost = right["selected"][-1] - got["selected"][-1]
    assert 0 <= lost <= 2
    assert got["undefined"] - right["undefined"] >= lost
    assert got["sumw"] == right["sumw"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_skims_have_the_same_rows_if_jets_behind_are_undefined(value, tmp_path):
    _, right = skim(write(tmp_path / "a.root", columns()), tmp_path / "a")
    out, got = skim(
        write(tmp_path / "b.root", {**columns(), "FatJet_pt": changed("FatJet_pt", THIRD, value)}), tmp_path / "b"
    )
    assert got == right
    assert out["undefined"] == len(THIRD)


def test_jet_energy_corrections_leave_jets_of_no_pt_behind_the_others(tmp_path):
    branches = {
        **columns(), "FatJet_pt": changed("FatJet_pt", THIRD, 0.0), "FatJet_rawFactor": columns()["FatJet_pt"] * 0,
        "FatJet_area": columns()["FatJet_pt"] * 0 + 2, "Rho_fixedGridRhoFastjetAll": columns()["genWeight"] * 0 + 20,
    }  # fmt: skip
    jec = json.dumps(
        {"file": str(energies(tmp_path)), "level": "L2", "level_data": "L2", "uncertainties": {"jes": "Total"}}
    )
    got = search([write(tmp_path / "x.root", branches)], overrides=[f"corrections.jec={jec}"])
    assert got["selected"] == reference(tmp_path)["selected"]
    assert got["undefined"] == 0


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(st.lists(st.sampled_from([*ODD, 5.0, 9.0, 40.0, 300.0]), max_size=5), min_size=1, max_size=4))
def test_leading_jets_are_the_hardest_finite_ones(pts):
    jets = ak.zip({"pt": ak.Array([*pts, [1.0]])})[: len(pts)]
    leading, undefined = cuts.leading_jets(jets)
    for event, pt in enumerate(pts):
        finite = np.sort([p for p in pt if np.isfinite(p)])[::-1]
        assert undefined[event] == (not np.isfinite(pt[:2]).all())
        got = ak.to_numpy(leading["pt"][event])
        assert got[np.isfinite(got)].tolist() == finite[:2].tolist()
        assert np.isfinite(got[: len(finite[:2])]).all(), "what is finite comes first"
    others = sum(not np.isfinite(p) for pt, bad in zip(pts, undefined, strict=True) if not bad for p in pt)
    assert cuts.undefined_numbers(jets, undefined) == undefined.sum() + others


def test_all_that_is_needed_is_in_the_files():
    assert {f"FatJet_{f}" for f in ("pt", "eta", "phi", "mass")} <= set(READ)
    assert "jet_pt_min=100" in OPEN
