"""Luminosity of data: the sections that were processed, of files that are missing, read in part, or say nothing."""

from __future__ import annotations

import json

import hist
import numpy as np
import pytest
import uproot

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadFile, ConfigError, IncompleteRun
from coffea_ad.luminosity.sections import golden, listed
from coffea_ad.luminosity.tables import SectionTable

HEADER = "#run:fill,ls,time,beamstatus,E(GeV),delivered(/{unit}),recorded(/{unit}),avgpu,source\n"


def write(path, sections, *, mc=False, blocks=True):
    """Write a file with two events of each section, of run 7 (and of 8 beyond 100), and `LuminosityBlocks`."""
    run = np.where(np.asarray(sections) > 100, 8, 7).astype(np.uint32)
    block = np.asarray(sections, np.uint32)
    columns = {"run": np.repeat(run, 2), "luminosityBlock": np.repeat(block, 2)}
    columns["event"] = np.arange(len(block) * 2, dtype=np.uint64) + 1000 * np.repeat(block, 2).astype(np.uint64)
    if mc:
        columns["genWeight"] = np.ones(len(block) * 2, np.float32)
    with uproot.recreate(path) as file:
        file.mktree("Events", {k: v.dtype for k, v in columns.items()}).extend(columns)
        if blocks:
            file.mktree("LuminosityBlocks", {"run": "u4", "luminosityBlock": "u4"}).extend(
                {"run": run, "luminosityBlock": block}
            )
    return str(path)


def table(path, sections, unit="pb", each=1000.0):
    lines = [f"{8 if s > 100 else 7}:1,{s}:{s},x,STABLE BEAMS,6800,9,{each},30,HFOC\n" for s in sections]
    path.write_text(HEADER.format(unit=unit) + "".join(lines) + "#Summary:\n")
    return str(path)


def count(events):
    n = hist.Hist(
        hist.axis.StrCategory(["inclusive"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"),
        hist.axis.Regular(1, 0, 1, name="x"), storage=hist.storage.Weight(),
    )  # fmt: skip
    n.fill(region="inclusive", variation="nominal", x=np.full(len(events), 0.5))
    return {events.metadata["dataset"]: {"sumw": float(len(events)), "n": len(events), "histograms": {"x": n}}}


def entry(*paths, mc=False):
    return {
        "files": dict.fromkeys(map(str, paths), "Events"),
        "metadata": {"is_mc": True, "xsec": 2.0} if mc else {"is_mc": False},
    }


def go(fileset, output, **kwargs):
    return ad.run(fileset, count, executor="iterative", progress=False, output=output, **kwargs)


@pytest.fixture
def four(tmp_path):
    """Two files of data with sections 1 to 4 and 101 to 106, a simulated one, and the luminosity of each section, 1 fb⁻¹."""
    files = [write(tmp_path / "a.root", [1, 2, 3, 4]), write(tmp_path / "b.root", range(101, 107))]
    mc = write(tmp_path / "mc.root", [1, 2], mc=True)
    return files, mc, table(tmp_path / "lumi.csv", [*range(1, 5), *range(101, 107)])


def test_a_missing_file_of_data_takes_its_luminosity_with_it(four, tmp_path):
    (one, _), mc, csv = four
    fileset = {"met": entry(one, tmp_path / "gone.root"), "tt": entry(mc, mc=True)}
    report = go(fileset, tmp_path / "r", lumi=csv, allow_missing=True)
    results = ad.load_results(tmp_path / "r")
    assert report.lumi == results.report["lumi"] == pytest.approx(4.0)
    assert results.scaled("tt", "x").sum().value == pytest.approx(2.0 * 1000 * 4.0)
    assert results.report["datasets"]["met"]["luminosity"] == {
        "sections": 4, "of": 4, "unopened": 1, "without": 0, "recorded": pytest.approx(4.0),
    }  # fmt: skip
    assert json.loads((tmp_path / "r" / "sections" / "met.json").read_text()) == {"7": [[1, 4]]}
    assert not (tmp_path / "r" / "sections" / "tt.json").exists()
    told = [n for n in report.notes if "luminosity sections" in n]
    assert told == [
        "met: 4 of 4 luminosity sections that its files list were processed, and of 1 files that could not be opened none"
    ]


def test_without_a_table_the_given_luminosity_stays_and_the_part_is_said(four, tmp_path):
    (one, _), mc, _ = four
    fileset = {"met": entry(one, tmp_path / "gone.root"), "tt": entry(mc, mc=True)}
    report = go(fileset, tmp_path / "r", lumi=10, allow_missing=True)
    assert report.lumi == 10
    assert any(
        n.startswith("met: 4 of 4 luminosity sections") and "10 fb⁻¹ is taken as it was given" in n
        for n in report.notes
    )


def test_a_file_that_is_processed_in_part_counts_in_part(four, tmp_path):
    (one, two), _, csv = four
    report = go({"met": entry(two)}, tmp_path / "r", lumi=csv, chunksize=6, limit_chunks=1)
    assert (report.datasets["met"]["events"], report.lumi) == (6, pytest.approx(6 * 6 / 12))
    assert any(n.startswith("met: 3 of 6 luminosity sections that its files list were processed") for n in report.notes)
    whole = go({"met": entry(one, two)}, tmp_path / "whole", lumi=csv)
    assert whole.lumi == pytest.approx(10)
    assert not [n for n in whole.notes if "luminosity" in n]


def test_a_test_run_says_that_the_luminosity_is_of_all_files(four, tmp_path):
    (one, two), _, _ = four
    report = go({"met": entry(one, two)}, tmp_path / "r", lumi=10, test=True)
    assert "only the first files of data were processed: met (1 of 2); 10 fb⁻¹ is taken as it was given" in report.notes


def test_only_certified_sections_count(four, tmp_path):
    (one, two), _, csv = four
    mask = tmp_path / "golden.json"
    mask.write_text(json.dumps({"7": [[2, 3]], "8": [[106, 200]]}))
    path = tmp_path / "mine.py"
    path.write_text(
        "from pydantic import BaseModel\nfrom test_luminosity import count\n"
        "class Config(BaseModel):\n    lumi_mask: str = ''\n"
        "class Processor:\n    def __init__(self, config, taggers=(), output=None):\n        pass\n"
        "    def process(self, events):\n        return count(events)\n"
    )
    report = ad.run(
        {"met": entry(one, two)}, path, overrides=[f"lumi_mask={mask}"], executor="iterative", progress=False, lumi=csv
    )
    assert report.lumi == pytest.approx(3)
    assert report.datasets["met"]["sections"] == {"7": [[2, 3]], "8": [[106, 106]]}


def test_sections_that_primary_datasets_share_count_once(four, tmp_path):
    (one, two), _, csv = four
    again = write(tmp_path / "c.root", [1, 2])
    report = go({"met": entry(one, two), "jet": entry(again)}, tmp_path / "r", lumi=csv)
    assert report.lumi == pytest.approx(10)
    assert report.datasets["jet"]["luminosity"]["recorded"] == pytest.approx(2)
    assert any(n.startswith("jet: 8 luminosity sections of met were not processed in it") for n in report.notes)


def test_files_that_say_nothing_are_named(four, tmp_path):
    _, _, csv = four
    silent = write(tmp_path / "silent.root", [1, 2], blocks=False)
    report = go({"met": entry(silent)}, tmp_path / "r", lumi=3)
    assert any("silent.root, list no LuminosityBlocks" in n for n in report.notes)
    with pytest.raises(ConfigError, match="silent.root: it lists no LuminosityBlocks, so that .*lumi.csv cannot tell"):
        go({"met": entry(silent)}, tmp_path / "s", lumi=csv)


def test_sections_that_the_table_lacks_are_counted(four, tmp_path):
    (one, two), _, _ = four
    short = table(tmp_path / "short.csv", [1, 2, 3])
    report = go({"met": entry(one, two)}, tmp_path / "r", lumi=short)
    assert report.lumi == pytest.approx(3)
    assert any("short.csv: 7 of the processed luminosity sections are not in it" in n for n in report.notes)


def test_a_resubmission_brings_its_sections(four, tmp_path):
    (one, two), mc, csv = four
    hidden = tmp_path / "hidden.root"
    (tmp_path / "b.root").rename(hidden)
    path = tmp_path / "mine.py"
    path.write_text(
        "from pydantic import BaseModel\nfrom test_luminosity import count\nclass Config(BaseModel):\n    pass\n"
        "class Processor:\n    def __init__(self, config, taggers=(), output=None):\n        pass\n"
        "    def process(self, events):\n        return count(events)\n"
    )
    settings = {"executor": "iterative", "progress": False, "output": tmp_path / "r", "lumi": csv}
    with pytest.raises(IncompleteRun) as caught:
        ad.run({"met": entry(one, two), "tt": entry(mc, mc=True)}, path, **settings)
    assert caught.value.report.lumi == pytest.approx(4)
    hidden.rename(two)
    report = ad.resubmit(tmp_path / "r", executor="iterative", progress=False)
    assert report.lumi == ad.load_results(tmp_path / "r").report["lumi"] == pytest.approx(10)
    assert report.datasets["tt"]["lumi"] == pytest.approx(10)
    assert not [n for n in report.notes if "luminosity sections" in n]
    assert json.loads((tmp_path / "r" / "sections" / "met.json").read_text()) == {"7": [[1, 4]], "8": [[101, 106]]}


def test_parts_that_are_merged_add_their_luminosities(four, tmp_path):
    (one, two), _, csv = four
    for name, file in (("a", one), ("b", two)):
        go({"met": entry(file)}, tmp_path / name, lumi=csv)
    merged = ad.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab").report["datasets"]["met"]
    assert merged["lumi"] == merged["luminosity"]["recorded"] == pytest.approx(10)
    assert merged["sections"] == {"7": [[1, 4]], "8": [[101, 106]]}


@pytest.mark.parametrize(("unit", "each"), [("fb", 1.0), ("pb", 1e3), ("ub", 1e9)])
def test_the_unit_of_the_table_counts(tmp_path, unit, each):
    read = SectionTable(table(tmp_path / "t.csv", [1, 2], unit, each))
    assert read.recorded({"7": [[1, 1]]}) == pytest.approx(1.0)


def test_what_is_no_luminosity_is_refused(four, tmp_path, capsys):
    (one, _), mc, csv = four
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadFile, match="odd.csv: no table of brilcalc by luminosity section"):
        go({"met": entry(one)}, tmp_path / "r", lumi=tmp_path / "odd.csv")
    with pytest.raises(ConfigError, match="there are no data; give it in fb⁻¹"):
        go({"tt": entry(mc, mc=True)}, tmp_path / "r", lumi=csv)
    (tmp_path / "f.json").write_text(json.dumps({"met": entry(one)}))
    words = ["run", "skim_jets", "--fileset", str(tmp_path / "f.json"), "-o", str(tmp_path / "s"), "--lumi", "138/fb"]
    assert cli.main(words) == 1
    assert (
        "lumi is 138/fb, but must be a positive number of fb⁻¹, numbers of eras as in 2022=8.0,2023=17.8, or a brilcalc table that is there"
        in capsys.readouterr().err
    )


def test_golden_json_and_pairs_are_the_same_sections():
    pairs = [[7, 1], [7, 2], [7, 5], [8, 1]]
    assert listed(golden(pairs[::-1])).tolist() == pairs
    assert listed({}).shape == (0, 2)
    assert golden([]) == {}


def test_a_list_of_sections_that_is_not_there_is_unknown_and_one_that_cannot_be_read_is_an_error():
    from coffea_ad.luminosity.sections import sections_in

    class Broken:
        def array(self, library):
            raise OSError("no answer")

    assert sections_in({}) is None
    assert sections_in({"LuminosityBlocks": {"run": Broken()}}) is None
    with pytest.raises(OSError, match="no answer"):
        sections_in({"LuminosityBlocks": {"run": Broken(), "luminosityBlock": Broken()}})
