"""Chunks whose results do not go together: the one that differs is a failure with the name of its histogram, the rest is kept."""

from __future__ import annotations

import hist
import pytest

import coffea_ad as ad
from coffea_ad.errors import ConfigError, IncompleteRun
from coffea_ad.running.adding import added, not_addable

PROCESSOR = """
import hist
import numpy as np
from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    what: str = "axis"


class Processor:
    def __init__(self, config, taggers=(), output=None):
        self.config = config

    def reads(self):
        return {"MET": (("PuppiMET_pt",),)}

    def process(self, events):
        m, what = events.metadata, self.config.what
        odd = m["entrystart"] == 50
        top = 500 + (200 if what == "wider" or (odd and what == "axis") else 0)
        met = hist.Hist(hist.axis.Regular(20, 0, top, name="met", growth=what == "growing"), storage=hist.storage.Weight())
        if what == "growing" and odd:
            met.fill(met=[900.0], weight=1)
        met.fill(met=np.clip(np.asarray(events.PuppiMET["pt"]), 0, 499), weight=1)
        kinds = hist.Hist(hist.axis.StrCategory([], name="kind", growth=True))
        kinds.fill(kind=["odd" if odd else "even"] * len(events))
        counts = np.zeros(4 if odd and what == "array" else 3)
        number = "many" if odd and what == "type" else 1
        return {m["dataset"]: {
            "sumw": float(len(events)), "histograms": {"met": met, "kinds": kinds}, "counts": counts, "number": number,
        }}

    def postprocess(self, accumulator):
        return accumulator
"""


def search(svj_file, folder, what, executor="iterative", **options):
    path = folder / "mine.py"
    path.write_text(PROCESSOR)
    fileset = {"svj": {"files": {str(svj_file): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    return ad.run(
        fileset, str(path), overrides=[f"what={what}"], config="none", executor=executor, progress=False, preflight=False,
        chunksize=50, output=folder / "out", **options,
    )  # fmt: skip


MET = "histogram svj: histograms: met"


@pytest.mark.parametrize(
    ("what", "named", "executor"),
    [
        ("axis", MET, "iterative"), ("growing", MET, "iterative"), ("growing", MET, "dask"),
        ("array", "svj: counts", "iterative"), ("type", "svj: number", "iterative"),
    ],
)  # fmt: skip
def test_a_chunk_that_does_not_go_with_the_others_is_lost_alone(svj_file, what, named, executor, tmp_path):
    with pytest.raises(IncompleteRun, match=f"svj_v15.root: its result cannot be added .*{named}") as caught:
        search(svj_file, tmp_path, what, executor)
    report = caught.value.report
    if executor == "iterative":
        assert [(f["start"], f["stop"]) for f in report.failed] == [(50, 100)]
        assert report.datasets["svj"]["events"] == 100
    assert ad.load_results(tmp_path / "out").report["datasets"]["svj"]["events"] == report.datasets["svj"]["events"] > 0


def test_categories_may_grow(svj_file, tmp_path):
    report = search(svj_file, tmp_path, "nothing")
    kinds = ad.load_results(tmp_path / "out").histograms["svj"]["kinds"]
    assert report.datasets["svj"]["events"] == 150
    assert dict(zip(kinds.axes[0], kinds.values().tolist(), strict=True)) == {"odd": 50, "even": 100}


def test_merged_runs_name_the_histogram_that_differs(svj_file, tmp_path):
    folders = []
    for what, file in (("nothing", svj_file), ("wider", svj_file.with_name("qcd_v15.root"))):
        (tmp_path / what).mkdir()
        search(file, tmp_path / what, what)
        folders.append(tmp_path / what / "out")
    with pytest.raises(ConfigError, match="svj: met: the histograms have different axes"):
        ad.merge(folders, tmp_path / "merged")


def test_storages_that_differ_are_told():
    one, two = (
        hist.Hist(hist.axis.Regular(2, 0, 1, name="x"), storage=s)
        for s in (hist.storage.Weight(), hist.storage.Double())
    )
    assert "another storage" in not_addable({"x": one}, {"x": two})
    assert not_addable({"x": one}, {"x": one}) == ""


def test_opened_files_and_empty_results_are_added_as_ever():
    assert added([{"processed": {1}}, {"processed": {2}, "out": {"n": 1}}, {"processed": {3}, "out": {"n": 2}}]) == {
        "processed": {1, 2, 3}, "out": {"n": 3},
    }  # fmt: skip
