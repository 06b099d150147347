"""Names that become files, files without an id, texts with brackets, primary datasets whose paths were not in the menu."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from test_own_processors import fileset
from toys import DATA, copy_events, open_events

import coffea_ad as ad
from coffea_ad import cli, files
from coffea_ad import selection as cuts
from coffea_ad.cli import words
from coffea_ad.cli.results import plot_figures
from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.luminosity.sections import golden_files
from coffea_ad.outputs import skimmed
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.skims.files import skim_files

ESCAPING = ["x/../../../escaped/pwn", "..", "", "a b", "a\n"]


@pytest.mark.parametrize("name", ESCAPING)
def test_a_card_with_a_name_that_leaves_the_folder_is_refused(name):
    region = {
        "name": name,
        "efficiency": 0.1,
        "thresholds": (1.0,),
        "error": 0,
        "n_effective": 9,
        "derived_from": "toy",
    }
    with pytest.raises(ValueError, match="cannot be a name, since files are named by it"):
        RegionSpec.model_validate(region)
    inputs = [{"features": [{"name": "f", "version": 1, "columns": [{"name": "x"}]}]}]
    with pytest.raises(ValueError, match="cannot be a name"):
        ModelCard.model_validate({"name": name, "method": "AE", "inputs": inputs})
    with pytest.raises(ConfigError, match="cannot name a tagger"):
        ad.Tagger(DATA / "wnae.onnx", name=name)


@pytest.mark.plot
def test_figures_of_any_region_stay_in_their_folder(tmp_path):
    import hist

    def process(events):
        h = hist.Hist(
            hist.axis.StrCategory(["x/../../../escaped/pwn"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"),
            hist.axis.Regular(2, 0, 1, name="x"), storage=hist.storage.Weight(),
        )  # fmt: skip
        h.fill("x/../../../escaped/pwn", "nominal", np.full(len(events), 0.5))
        return {"svj": {"sumw": float(len(events)), "histograms": {"a/b": h}}}

    folder = tmp_path / "one" / "two" / "results"
    ad.run(fileset("svj", xsec=1.0), process, executor="iterative", output=folder, progress=False)
    assert plot_figures(folder) == 1
    assert {p.relative_to(tmp_path).parts[:3] for p in tmp_path.rglob("*") if p.is_file()} == {
        ("one", "two", "results")
    }
    assert [p.name for p in (folder / "figures").iterdir()] == ["a_b_x_.._.._.._escaped_pwn.png"]


def test_golden_files_of_a_report_stay_in_their_folder():
    assert list(golden_files({"../../x": {"sections": {"1": [[1, 1]]}}})) == [".._.._x.json"]
    assert all(files.is_name(files.as_name(name)) for name in ESCAPING)


# Files without an id


def without_id(path):
    """Overwrite the random id of a ROOT file by zeros, as some writers leave it."""
    with uproot.open(path) as file:
        uuid = file.file.fUUID
    path.write_bytes(path.read_bytes().replace(uuid, bytes(16)))
    with uproot.open(path) as file:
        assert not any(file.file.fUUID)
    return path


def test_skims_of_files_without_an_id_do_not_overwrite_each_other(tmp_path):
    paths = []
    for i in range(2):
        path = tmp_path / f"{i}.root"
        copy_events(DATA / "svj_v15.root", path, change=lambda c, i=i: c.update(run=c["run"] + np.uint32(i)))
        paths.append(str(without_id(path)))
    data = {"svj": {"files": dict.fromkeys(paths, "Events"), "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(
        data, "skim_jets", executor="iterative", output=tmp_path / "s", overrides=["lepton_pt_min=null"], progress=False
    )
    assert skimmed(tmp_path / "s") == {"svj"}
    tables = [pq.read_table(p) for p in skim_files(tmp_path / "s")["svj"]]
    assert len(tables) == 2
    assert sum(map(len, tables)) == report.outputs["svj"]["rows"] > 0
    assert {f["uuid"] for f in report.datasets["svj"]["files"].values()} == {""}
    for i, path in enumerate(paths):  # nor are they taken for the same file
        one = {"svj": {"files": {path: "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
        ad.run(one, "semivisible_jets", executor="iterative", output=tmp_path / f"r{i}", progress=False)
    ad.merge([tmp_path / "r0", tmp_path / "r1"], tmp_path / "both")


# Jets of any chunk


def test_tagged_jets_are_flattened_in_every_chunk(model_file):
    """Also where no event of a chunk has a jet, and where none is above the cut."""
    import awkward as ak

    tagger = ad.Tagger(model_file)
    for least in (0, 300, 1500):

        def process(events, least=least):
            jets = tagger(events.FatJet[events.FatJet["pt"] > least])
            return {"svj": {"n": len(ak.flatten(jets)), "sumw": 0.0}}

        report = ad.run(fileset("svj", xsec=1.0), process, executor="iterative", progress=False, chunksize=4)
        pt = ak.flatten(open_events(DATA / "svj_v15.root").FatJet["pt"])
        assert report.outputs["svj"]["n"] == ak.sum(pt > least)


# Texts


@pytest.mark.parametrize("text", ["phi [rad]", "[/b] :smile: [red]"])
def test_texts_with_brackets_are_printed_as_they_are(text, capsys):
    table = words.table_of("title [rad]", "what", "value")
    table.add_row("unit", text)
    words.out.print(table)
    out = capsys.readouterr().out
    assert text in out
    assert "title [rad]" in out


def test_units_are_in_the_table_of_a_feature(capsys):
    assert cli.main(["features", "jet_constituents"]) == 0
    assert "dphi [rad]" in capsys.readouterr().out


# Primary datasets


def test_an_earlier_primary_dataset_without_its_paths_has_no_overlap(tmp_path):
    menu = {"JetMET": ["HLT_NotInThisMenu"], "MET": ["HLT_PFHT1050"]}
    path = copy_events(DATA / "svj_v15.root", tmp_path / "data.root", drop=("gen", "Gen"))
    alone = cuts.any_trigger(open_events(path), ["HLT_PFHT1050"])
    events = open_events(path, metadata={"is_mc": False, "primaryDataset": "MET"})
    assert cuts.triggered(events, menu).tolist() == alone.tolist()
    data = {"met": {"files": {str(path): "Events"}, "metadata": {"is_mc": False, "primaryDataset": "MET"}}}
    config = tmp_path / "s.yaml"
    config.write_text(json.dumps({"triggers": menu}))
    report = ad.run(data, "semivisible_jets", config=config, executor="iterative", progress=False)
    assert report.complete
    assert report.datasets["met"]["cutflow"]["trigger"]["events"] == alone.sum() > 0
    assert "no overlap with JetMET where a file has none of its trigger paths: met" in report.notes
    own = open_events(path, metadata={"is_mc": False, "primaryDataset": "JetMET"})
    with pytest.raises(MissingBranch, match="none of the triggers is there: HLT_NotInThisMenu"):
        cuts.triggered(own, menu)


# A processor without a sum of weights


def test_histograms_that_could_not_be_normalised_are_refused_before_the_run(tmp_path, monkeypatch):
    import hist

    from coffea_ad.running import plan

    def process(events):
        h = hist.Hist(
            hist.axis.StrCategory(["inclusive"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"),
            hist.axis.Regular(2, 0, 1, name="x"), storage=hist.storage.Weight(),
        )  # fmt: skip
        return {"svj": {"histograms": {"x": h}}}

    ad.run(
        fileset("svj", xsec=1.0), process, executor="iterative", progress=False
    )  # nothing is written, nothing normalised
    monkeypatch.setattr(plan, "open_files", lambda *_: pytest.fail("the run has begun"))
    with pytest.raises(
        ConfigError, match=r"dataset svj: the processor returns histograms over region and variation.* no sumw"
    ):
        ad.run(fileset("svj", xsec=1.0), process, executor="iterative", progress=False, output=tmp_path / "r")


def test_the_page_of_processors_says_what_normalises():
    page = (DATA.parent.parent / "docs" / "processors.md").read_text()
    for word in ("sumw", "fraction", "luminosity_fraction", "RegionFiller"):
        assert re.search(rf"`[^`]*\b{word}\b|\.{word}\(", page), word
