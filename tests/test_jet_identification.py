"""The veto map does not trust the jetId of NanoAOD v12 to v14, whose bits are wrong."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from correctionlib import schemav2
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad.corrections import Corrections, Corrector
from coffea_ad.errors import MissingBranch

NEWER = ("btagPNetB", "btagRobustParTAK4B", "btagUParTAK4B", "PNetRegPtRawCorr")


def written(path, name, inputs, content):
    correction = schemav2.Correction(
        name=name, version=1, output={"name": "x", "type": "real"}, data=content,
        inputs=[{"name": n, "type": kind} for n, kind in inputs.items()],
    )  # fmt: skip
    path.write_text(schemav2.CorrectionSet(schema_version=2, corrections=[correction]).model_dump_json())
    return str(path)


@pytest.fixture
def maps(tmp_path):
    return written(tmp_path / "map.json", "Run3", {"type": "string", "eta": "real", "phi": "real"}, 0.0)


def jets(*more):
    fields = {"pt": 50.0, "eta": 0.1, "phi": 0.2, "mass": 5.0, "chEmEF": 0.1, "neEmEF": 0.1, "jetId": 6, "puId": 7}
    return ak.Array({"run": [1, 1], "Jet": [[fields | dict.fromkeys(more, 0.5)], []], "Muon": [[MUON], []]})


MUON = {"eta": 2.0, "phi": 2.0, "isPFcand": True}


@pytest.mark.parametrize("field", NEWER)
def test_a_wrong_jet_id_is_refused_and_asks_for_id_file(field, maps, tmp_path):
    config = {"file": maps, "name": "Run3"}
    veto = Corrector(Corrections(jet_veto_map=config)).outside_veto
    with pytest.raises(
        MissingBranch,
        match=f"Jet_jetId is wrong in NanoAOD v12 to v14, .* Jet_{field}; give id_file, or recipe: run3_v12 if it is v12",
    ):
        veto(jets(field))
    assert veto(jets()).all()
    identity = written(tmp_path / "id.json", "Tight", {"eta": "real", "neEmEF": "real"}, 1.0)
    other = Corrector(Corrections(jet_veto_map={**config, "id_file": identity, "id_name": "Tight"}))
    assert other.outside_veto(jets(field)).all()
    assert Corrector(Corrections(jet_veto_map={**config, "recipe": "run2"})).outside_veto(jets(field)).all()


def test_a_run_names_the_file(maps, tmp_path):
    def newer(columns):
        for field, value in {"chEmEF": 0.1, "neEmEF": 0.1, "jetId": 6, "btagPNetB": 0.5}.items():
            columns["Jet"] = ak.with_field(columns["Jet"], ak.full_like(columns["Jet"]["pt"], value), field)

    path = copy_events(DATA / "svj_v15.root", tmp_path / "v12.root", stop=20, change=newer)
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    overrides = [f"corrections.jet_veto_map={{file: {maps}, name: Run3}}"]
    with pytest.raises(MissingBranch, match=r"v12.root: Jet_jetId is wrong .* give id_file"):
        ad.run(fileset, "semivisible_jets", executor="iterative", progress=False, overrides=overrides)


def test_the_identification_of_v12_is_mended_region_by_region(maps):
    """Against the rule for one jet after the other."""
    rng = np.random.default_rng(3)
    n = 4000
    columns = {
        "pt": np.full(n, 50.0), "eta": rng.uniform(-5, 5, n), "phi": rng.uniform(-3, 3, n), "mass": np.full(n, 5.0),
        "chEmEF": rng.uniform(0, 1, n), "neEmEF": rng.uniform(0, 1, n) * 0.89, "neHEF": rng.choice([0.5, 0.995], n),
        "muEF": rng.uniform(0, 1, n), "jetId": rng.choice([0, 2, 6], n),
    }  # fmt: skip
    everywhere = Path(maps).with_name("all.json")
    written(everywhere, "Run3", {"type": "string", "eta": "real", "phi": "real"}, 1.0)

    def passes(j):
        if j["chEmEF"] + j["neEmEF"] >= 0.9 or not j["jetId"] & 2:
            return False
        eta = abs(j["eta"])
        if eta <= 2.7:
            return j["muEF"] < 0.8 and j["chEmEF"] < 0.8
        return j["neHEF"] < 0.99 if eta <= 3.0 else j["neEmEF"] < 0.4

    jets = [[{k: v[i].item() for k, v in columns.items()}] for i in range(n)]
    events = ak.Array({"run": [1] * n, "Jet": jets})
    config = {"file": str(everywhere), "name": "Run3", "recipe": "run3_v12"}
    kept = Corrector(Corrections(jet_veto_map=config)).outside_veto(events)
    expected = np.array([not passes(j[0]) for j in jets])
    assert (kept == expected).all()
    assert 0.1 < (~expected).mean() < 0.9
