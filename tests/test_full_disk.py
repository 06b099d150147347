"""A disk that is full: one sentence with the path, the small report first, and earlier results as they were."""

from __future__ import annotations

import resource
import signal
from contextlib import contextmanager

import hist
import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import DATA

import coffea_ad as ad
from coffea_ad import files
from coffea_ad.errors import BadFile, IncompleteRun, NotWritten
from coffea_ad.results.folder import load_results, save_results

REPORT = {"datasets": {"qcd": {"metadata": {"is_mc": True, "xsec": 1.0}, "sumw": 1.0}}, "lumi": 1.0, "notes": [],
          "throughput": {}, "key": {}}  # fmt: skip


@contextmanager
def largest_file(size):
    """The system refuses to let any file grow above a size, as a quota or a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def histograms(bins):
    axes = (hist.axis.StrCategory(["inclusive"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"))
    h = hist.Hist(*axes, hist.axis.Regular(bins, 0, 500, name="met"), storage=hist.storage.Weight())
    h.view()["value"] = np.random.default_rng(1).random(bins)  # nothing to compress
    return {"qcd": {"met": h}}


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_report_survives_histograms_that_do_not_fit(tmp_path):
    with (
        largest_file(100_000),
        pytest.raises(
            NotWritten, match=r"histograms.zip: cannot be written \(File too large\); the report alone is in"
        ),
    ):
        save_results(histograms(50_000), REPORT, tmp_path)
    assert names(tmp_path) == ["report.json"]
    with pytest.raises(BadFile, match=r"there is a report, but its histograms.zip is not there"):
        load_results(tmp_path)


def test_earlier_results_are_as_they_were_if_new_ones_do_not_fit(tmp_path):
    save_results(histograms(20), REPORT, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with largest_file(100_000), pytest.raises(NotWritten, match=r"histograms.zip: cannot be written"):
        save_results(histograms(50_000), {**REPORT, "notes": ["new"]}, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_results_without_histograms_leave_none_of_an_earlier_run(tmp_path):
    save_results(histograms(20), REPORT, tmp_path)
    save_results({}, REPORT, tmp_path)
    assert names(tmp_path) == ["report.json"]


def test_a_chunk_of_a_skim_that_does_not_fit_is_a_failed_chunk_with_its_path(tmp_path, monkeypatch):
    def full(table, file, **_):
        file.write(b"some of it")
        raise OSError(28, "No space left on device")

    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    options = {"executor": "iterative", "chunksize": 100, "output": tmp_path, "progress": False, "preflight": False}
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(
            IncompleteRun, match=r"2 files .*svj/.*parquet: cannot be written \(No space left on device\)"
        ) as caught:
            ad.run(fileset, "skim_jets", **options)
    assert {f["error"] for f in caught.value.report.failed} == {"NotWritten"}
    assert list((tmp_path / "svj").iterdir()) == []
    assert ad.resubmit(tmp_path, executor="iterative", progress=False).complete
    assert len(list((tmp_path / "svj").iterdir())) == 2


def test_writers_of_the_same_file_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with files.replacing(path) as one, files.replacing(path) as two:
        one.write(b"one")
        two.write(b"two")
    assert path.read_bytes() in (b"one", b"two")
    assert names(tmp_path) == ["a"]
