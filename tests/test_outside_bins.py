"""Values outside a correction's bins: the chunk fails with its file and the values, or a policy says what becomes of them."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pytest
from fuzz_files import OPEN, changed, columns, event_of, reference, search, write
from test_corrections import binning, category, correction, corrector, scale_factor_file
from test_corrections import write as write_corrections
from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad.corrections.files import CorrectionFiles
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError

THIRD = np.flatnonzero(ak.to_numpy(ak.flatten(ak.local_index(columns()["FatJet_pt"]))) == 2)[:1]


def three_bins(folder, outside, **flow):
    file = write_corrections(folder / "x.json", correction("C", binning("a", [0, 1, 2], [3.0, 5.0], **flow), a="real"))
    return CorrectionFiles().correction(file, "C", outside)


def energies(folder):
    """A level that is 1 in its bins, which end at |η| = 5.2, and a source of uncertainty of 10 %."""
    return write_corrections(
        folder / "jec.json",
        correction("L2", binning("JetEta", [-5.2, 0, 5.2], [1.0, 1.0]), JetEta="real"),
        correction("Total", binning("JetEta", [-5.2, 0, 5.2], [0.1, 0.1]), JetEta="real"),
    )


def with_forward_jet(folder):
    return write(folder / "forward.root", {
        **columns(), "FatJet_eta": changed("FatJet_eta", THIRD, 5.3), "FatJet_rawFactor": columns()["FatJet_pt"] * 0,
        "FatJet_area": columns()["FatJet_pt"] * 0 + 2, "Rho_fixedGridRhoFastjetAll": columns()["genWeight"] * 0 + 20,
    })  # fmt: skip


def jec(folder, outside=None):
    content = {"file": str(energies(folder)), "level": "L2", "uncertainties": {"jes": "Total"}}
    return content | ({"outside": outside} if outside else {}) | {"level_data": "L2"}


@pytest.mark.parametrize(("outside", "expected"), [("clamp", [3, 3, 5, 5, 5]), ("unit", [1, 3, 5, 1, 1])])
def test_a_policy_says_what_becomes_of_values_outside(outside, expected, tmp_path):
    values = three_bins(tmp_path, outside)({"a": np.array([-7.0, 0.5, 1.5, 2.0, 99.0])}, 5)
    assert values.tolist() == expected


def test_values_outside_are_named_and_those_inside_are_as_ever(tmp_path):
    one = three_bins(tmp_path, "fail")
    assert one({"a": np.array([0.5, 1.5])}, 2).tolist() == [3, 5]
    with pytest.raises(
        BadFile, match=r"data.root: .*x.json: correction C is not defined for a = 99 .*outside: clamp or unit"
    ):
        one({"a": np.array([0.5, 99.0, 1.5])}, 3, place="data.root: ")


def test_numbers_that_are_not_finite_give_nan_and_leave_the_others(tmp_path):
    values = three_bins(tmp_path, "fail")({"a": np.array([np.nan, 0.5, np.inf])}, 3)
    assert np.isnan(values[[0, 2]]).all()
    assert values[1] == 3


def test_a_jet_outside_costs_its_chunk_and_not_the_run(tmp_path):
    path = with_forward_jet(tmp_path)
    event = int(event_of("FatJet_pt", THIRD)[0])
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    with pytest.raises(CoffeaADError, match=r"forward\.root.*correction L2 is not defined for JetEta = 5\.3") as caught:
        ad.run(
            fileset, "semivisible_jets", overrides=[*OPEN, f"corrections.jec={json.dumps(jec(tmp_path))}"], config="none",
            executor="iterative", progress=False, preflight=False, chunksize=10, output=tmp_path / "out",
        )  # fmt: skip
    assert not isinstance(caught.value, ConfigError)
    done = ad.load_results(tmp_path / "out").report["datasets"]["svj"]
    assert done["events"] == 30, f"the chunk of event {event} alone is lost"


@pytest.mark.parametrize("outside", ["clamp", "unit"])
def test_with_a_policy_a_soft_forward_jet_changes_nothing(outside, tmp_path):
    said = search([with_forward_jet(tmp_path)], overrides=[f"corrections.jec={json.dumps(jec(tmp_path, outside))}"])
    right = reference(tmp_path)
    assert said["selected"][-1] == right["selected"][-1]
    assert said["sumw"] == right["sumw"]


@pytest.mark.parametrize("outside", ["clamp", "unit"])
def test_jets_outside_are_varied_by_the_nearest_bin_or_not_at_all(outside, tmp_path):
    events = open_events(with_forward_jet(tmp_path), metadata={"dataset": "svj", "is_mc": True})
    jets = dict(corrector(jec=jec(tmp_path, outside)).jets(events))
    ratio = ak.to_numpy(ak.flatten(jets["jesUp"]["pt"] / jets["nominal"]["pt"]))
    expected = np.full(len(ratio), 1.1)
    expected[THIRD] = 1.1 if outside == "clamp" else 1.0
    assert ratio == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("outside", ["clamp", "unit"])
def test_weights_outside_follow_the_policy(outside, tmp_path):
    events = open_events(DATA / "svj_v15.root", metadata={"dataset": "svj", "is_mc": True})[:20]
    weight = {
        "file": str(scale_factor_file(tmp_path)), "name": "ID", "outside": outside,
        "inputs": {"eta": "PuppiMET_pt", "pt": "PuppiMET_pt", "WP": "Medium"}, "nominal": "sf", "up": "sfup", "down": "sfdown",
    }  # fmt: skip
    weights = corrector(correctionlib={"met": weight}).weights(events)
    assert ak.min(events.PuppiMET.pt) > 2.5
    got = {v: weights.weight(v).tolist() for v in (None, "metUp", "metDown")}
    expected = {"clamp": (1.0, 1.05, 0.9), "unit": (1.0, 1.0, 1.0)}[outside]
    assert got == {v: pytest.approx([e] * 20) for v, e in zip((None, "metUp", "metDown"), expected, strict=True)}


def test_another_policy_is_refused_with_the_right_ones(tmp_path):
    with pytest.raises(CoffeaADError, match=r"outside.*'fail', 'clamp' or 'unit'"):
        search([with_forward_jet(tmp_path)], overrides=[f"corrections.jec={json.dumps(jec(tmp_path, 'ignore'))}"])


def test_words_that_a_correction_lacks_stay_errors_of_the_configuration(tmp_path):
    file = write_corrections(tmp_path / "w.json", correction("W", category("word", a=1.0), word="string"))
    with pytest.raises(ConfigError, match="correction W"):
        CorrectionFiles().correction(file, "W", "unit")({"word": "b"}, 2)


@pytest.mark.parametrize("change", [{"inputs": 3}, {"inputs": [{"name": "a", "type": {"x": 1}}]}, {"name": None}])
def test_damaged_corrections_are_one_sentence(change, tmp_path):
    content = json.loads(_plain(tmp_path).read_text())
    content["corrections"][0] |= change
    _plain(tmp_path).write_text(json.dumps(content))
    with pytest.raises(BadFile, match=r"x.json: it is damaged"):
        CorrectionFiles().correction(str(tmp_path / "x.json"), "C")


def _plain(folder):
    path = folder / "x.json"
    if not path.exists():
        write_corrections(path, correction("C", binning("a", [0, 1], [3.0]), a="real"))
    return path
