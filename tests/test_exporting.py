"""What a search leaves for others: workspaces, datacards, tables, visible cross-sections."""

from __future__ import annotations

import json

import numpy as np
import pytest
from search_toys import with_signal

from coffea_ad.search.config import SearchConfig
from coffea_ad.search.counting import counting_limit
from coffea_ad.search.search import search
from coffea_ad.search.visible import read_limits

pyhf = pytest.importorskip("pyhf", reason="not installed: the extra `search`", exc_type=ImportError)
pytest.importorskip("hepdata_lib", reason="not installed: the extra `search`", exc_type=ImportError)
pytestmark = [
    pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning"),  # of pyhf
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the validator of HEPData leaves the tables open
]


def few(**changes):
    limits = {"widths": (0.05,), "masses": (2500.0, 3500.0)}
    fit = {"low": 1500.0, "high": 6000.0, "orders": (3, 3)}
    return SearchConfig(fit=fit, toys=0, widths=(0.05,), regions=("inclusive",), limits=limits, **changes)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    with_signal(folder / "results", background=True)
    content = search(folder / "results", folder / "search", few(), figures=False)
    return folder / "search", content


def test_a_workspace_gives_the_limit_of_the_search(searched):
    folder, content = searched
    (limit,) = [m for m in content["limits"] if m["signal"]]
    (path,) = (folder / "workspaces").iterdir()
    assert path.name in {"mjj_Z_.json", "mjj_in_inclusive_Z_.json"}
    space = pyhf.Workspace(json.loads(path.read_text()))
    model = space.model()
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(), precision="64b")
    told = limit["strength"]
    grid = np.geomspace(0.5 * told["expected"][0], 1.4 * max(told["observed"], told["expected"][-1]), 24)
    observed, expected = pyhf.infer.intervals.upper_limits.upper_limit(space.data(model), model, scan=grid)
    assert float(observed) == pytest.approx(told["observed"], rel=0.03)
    assert float(expected[2]) == pytest.approx(told["expected"][2], rel=0.03)


def test_tables_and_cards_are_there(searched):
    folder, content = searched
    assert not [note for note in content["notes"] if note.startswith("export")]
    names = {p.name for p in (folder / "hepdata").iterdir()}
    assert "submission.yaml" in names
    assert any(n.startswith("spectrum_") for n in names)
    assert any(n.startswith("limits_") for n in names)
    (card,) = (folder / "datacards").iterdir()
    assert {p.name for p in card.iterdir()} == {"datacard.txt", "shapes.root"}


def test_an_export_that_fails_is_a_note(tmp_path, monkeypatch):
    with_signal(tmp_path / "results")

    def refuse(*_, **__):
        raise RuntimeError("no such table")

    monkeypatch.setattr("coffea_ad.search.exporting.write_hepdata", refuse)
    monkeypatch.setattr("coffea_ad.search.exporting.workspace", refuse)
    content = search(tmp_path / "results", tmp_path / "search", few(), figures=False)
    stored = json.loads((tmp_path / "search" / "search.json").read_text())
    assert "export hepdata: it was not written (no such table)" in stored["notes"]
    assert sum("it was not written" in note for note in content["notes"]) == 2
    assert not (tmp_path / "search" / "limits.json").exists()  # there is no simulated background


def test_regions_have_visible_cross_sections(searched):
    folder, _ = searched
    content = json.loads((folder / "limits.json").read_text())
    told = content["inclusive"]
    assert told["background"] == pytest.approx(20_000, rel=1e-3)  # 2 pb × 10 fb⁻¹ in place of 200 000 entries
    error = np.hypot(20_000 / np.sqrt(200_000), 0.2 * 20_000)
    assert told["background_error"] == pytest.approx(error, rel=1e-3)
    observed, expected = counting_limit(told["events"], told["background"], told["background_error"])
    assert told["observed"] == pytest.approx(observed / 10_000)
    assert told["expected"] == pytest.approx(expected[2] / 10_000)
    assert read_limits(folder)["inclusive"] == {"observed": told["observed"], "expected": told["expected"]}


def test_pseudo_data_have_no_observed_cross_section(tmp_path):
    with_signal(tmp_path / "results", background=True, data=False)
    search(tmp_path / "results", tmp_path / "search", few(exports=False), figures=False)
    content = json.loads((tmp_path / "search" / "limits.json").read_text())
    assert content["inclusive"]["observed"] is None
    assert content["inclusive"]["expected"] > 0
    assert not (tmp_path / "search" / "hepdata").exists()
