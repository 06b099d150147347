"""Work that is done is never done again, and never taken for other work; workers and clients may die."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dask
import pytest
from toys import DATA, HERE, assert_identical

import coffea_ad as ad
from coffea_ad.errors import ConfigError, IncompleteRun, ProcessorFailed
from coffea_ad.running.checkpoints import Checkpoints, digest_of, file_digests

FILESET = {
    n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
    for n, x in (("svj", 1.0), ("qcd", 1000.0))
}
CHUNKS = 15 + 20  # of 10 events


@pytest.fixture
def mine(tmp_path):
    """The counting processor, in a file that may be edited."""
    return shutil.copy(HERE / "counting_processor.py", tmp_path / "counting.py")


def run(mine, tmp_path, *more, executor="iterative", output="results", kept=True, fileset=FILESET, **kwargs):
    folder = tmp_path / output
    report = ad.run(
        fileset, mine, executor=executor, chunksize=10, overrides=[f"folder={tmp_path}", *more], output=folder,
        checkpoints=str(tmp_path / "kept") if kept else None, progress=False, **kwargs,
    )  # fmt: skip
    return report, ad.load_results(folder).histograms


def started(tmp_path):
    """How often each chunk was begun."""
    lines = (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []
    return Counter(lines)


def test_a_second_run_computes_nothing(mine, tmp_path):
    one, first = run(mine, tmp_path, preflight=False)
    assert sum(started(tmp_path).values()) == CHUNKS
    two, second = run(mine, tmp_path, preflight=False)
    assert sum(started(tmp_path).values()) == CHUNKS
    assert one.throughput["resumed_chunks"] == 0
    assert two.throughput["resumed_chunks"] == CHUNKS
    assert f"{CHUNKS} of {CHUNKS} chunks were there from an earlier run" in two.notes
    assert_identical(first, second)


@pytest.mark.parametrize("what", ["cut", "code", "metadata", "table", "chunks"])
def test_what_a_result_depends_on_is_computed_anew_when_it_changes(mine, tmp_path, what):
    table = tmp_path / "table.json"
    table.write_text("1")
    more = [f"table={table}"]
    _, before = run(mine, tmp_path, *more, preflight=False)
    fileset = FILESET
    if what == "cut":
        more.append("met_min=50")
    elif what == "code":  # a cut edited in the processor's file
        text = Path(mine).read_text()
        Path(mine).write_text(text.replace("cut = met > c.met_min", "cut = met > 80"))
    elif what == "metadata":
        fileset = {d: {**e, "metadata": {**e["metadata"], "year": 2022}} for d, e in FILESET.items()}
    elif what == "table":  # a file that the configuration names
        table.write_text("2")
    _, after = run(mine, tmp_path, *more, preflight=False, fileset=fileset, force=True)
    again = sum(started(tmp_path).values()) - CHUNKS
    assert again == (0 if what == "chunks" else CHUNKS)
    less = after["svj"]["met"].sum(flow=True).value < before["svj"]["met"].sum(flow=True).value
    assert less == (what in ("cut", "code"))


def test_another_model_computes_anew(tmp_path):
    loose = ["met_min=0", "rt_min=0", "dphi_max=4"]
    entries = {"svj": FILESET["svj"]}

    def search(model, output):
        report = ad.run(entries, "semivisible_jets", model=DATA / model, overrides=loose, executor="iterative",
                        output=tmp_path / output, checkpoints=str(tmp_path / "kept"), progress=False)  # fmt: skip
        return report.throughput["resumed_chunks"], ad.load_results(tmp_path / output).histograms

    first, one = search("wnae.onnx", "a")
    other, _ = search("ae_stored.onnx", "b")
    again, two = search("wnae.onnx", "c")
    assert (first, other, again) == (0, 0, 1)
    assert_identical(one, two)


def test_a_damaged_checkpoint_is_computed_anew(mine, tmp_path):
    _, first = run(mine, tmp_path, preflight=False)
    files = sorted((tmp_path / "kept").rglob("*.lz4"))
    assert len(files) == CHUNKS
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 1
    files[0].write_bytes(data)
    files[1].write_bytes(b"")
    report, second = run(mine, tmp_path, preflight=False)
    assert report.throughput["resumed_chunks"] == CHUNKS - 2
    assert_identical(first, second)


def test_a_checkpoint_whose_files_are_gone_is_computed_anew(tmp_path):
    """A skim's result is its files: without them, the chunk has not been done."""
    folder = tmp_path / "skims"

    def skim():
        report = ad.run({"svj": FILESET["svj"]}, "skim_jets", executor="iterative", chunksize=50, output=folder,
                        checkpoints=str(tmp_path / "kept"), progress=False)  # fmt: skip
        return report.throughput["resumed_chunks"]

    assert skim() == 0
    next(folder.rglob("*.parquet")).unlink()
    assert skim() == 2
    assert len(list(folder.rglob("*.parquet"))) == 3


def test_checkpoints_that_cannot_be_kept_are_said(mine, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="nosuchprotocol"):
        Checkpoints("nosuchprotocol://x", "k")
    monkeypatch.setattr(Checkpoints, "save", lambda *_: "OSError: no space left")
    report, _ = run(mine, tmp_path, preflight=False)
    assert report.complete
    assert any("could not be kept as checkpoints (OSError: no space left)" in note for note in report.notes)


def test_digests_follow_content(tmp_path):
    (tmp_path / "mod_a.py").write_text("import mod_b\nX = 1\n")
    (tmp_path / "mod_b.py").write_text("Y = 1\n")
    code = (
        "import sys, json; sys.path.insert(0, '.'); import mod_a, numpy\n"
        "from coffea_ad.running.checkpoints import code_digests; print(json.dumps(code_digests(mod_a)))"
    )

    def digests():
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    one = digests()
    assert {Path(k).name for k in one} == {"mod_a.py", "mod_b.py"}
    (tmp_path / "mod_b.py").write_text("Y = 2\n")
    two = digests()
    changed = {Path(k).name for k in one if one[k] != two[k]}
    assert changed == {"mod_b.py"}
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})
    assert file_digests({"x": [str(tmp_path / "mod_a.py"), "no file", 3]}).keys() == {str(tmp_path / "mod_a.py")}


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


CLIENT = """
import sys
import coffea_ad as ad
if __name__ == "__main__":
    mine, folder, kept, out = sys.argv[1:]
    fileset = {fileset!r}
    ad.run(fileset, mine, executor="dask", workers=2, chunksize=10, overrides=["folder=" + folder, "pause=0.1"], output=out,
           checkpoints=kept, progress=False, preflight=False)
"""


@pytest.mark.dask
def test_a_client_that_is_killed_again_and_again_goes_on_where_it_was(mine, tmp_path):
    """Killed at four random moments; no chunk is begun twice but those that were under way."""
    (tmp_path / "whole").mkdir()
    _, expected = run(mine, tmp_path / "whole", kept=False, preflight=False)
    script = tmp_path / "client.py"
    script.write_text(CLIENT.replace("{fileset!r}", repr(FILESET)))
    log, rng = tmp_path / "log", random.Random(11)
    words = [sys.executable, str(script), str(mine), str(tmp_path), str(tmp_path / "kept"), str(tmp_path / "out")]

    def lines():
        return len(log.read_text().split()) if log.exists() else 0

    kills = 0
    while kills < 4:
        before = lines()
        client = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        while client.poll() is None and lines() == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        if client.poll() is not None:
            break  # all is done
        os.kill(client.pid, signal.SIGKILL)
        client.wait()
        kills += 1
        patience = time.monotonic() + 3
        while alive(client.pid):  # its workers notice that it is gone, and go
            if time.monotonic() > patience:
                os.killpg(client.pid, signal.SIGKILL)
            time.sleep(0.05)
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert kills == 4
    assert_identical(expected, ad.load_results(tmp_path / "out").histograms)
    counts = Counter(log.read_text().split())
    assert len(counts) == CHUNKS
    assert sum(counts.values()) - CHUNKS <= 2 * kills  # two workers, one chunk each


@pytest.mark.dask
def test_a_worker_that_dies_in_the_middle_changes_nothing(mine, tmp_path):
    (tmp_path / "whole").mkdir()
    _, expected = run(mine, tmp_path / "whole", kept=False, preflight=False)
    report, found = run(mine, tmp_path, "deadly=50", executor="dask", kept=False, preflight=False)
    assert (tmp_path / "dead").exists()
    assert report.complete
    assert_identical(expected, found)


@pytest.mark.parametrize("executor", ["futures", pytest.param("dask", marks=pytest.mark.dask)])
def test_a_chunk_that_kills_every_worker_is_a_failed_chunk(mine, tmp_path, executor):
    one = {"svj": FILESET["svj"]}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),  # instead of 3 workers of each chunk
        pytest.raises(IncompleteRun, match="1 files or chunks are missing: .*it ends the (workers|process)") as caught,
    ):
        run(mine, tmp_path, "deadly=50", "once=false", executor=executor, kept=False, preflight=False, fileset=one)
    report = caught.value.report
    assert [(f["start"], f["stop"], f["error"]) for f in report.failed] == [(50, 60, "KilledWorker")]
    assert report.datasets["svj"]["events"] == report.datasets["svj"]["sumw"] == 140


def test_a_resubmission_does_what_is_missing_and_no_more(mine, tmp_path):
    """One file is not there yet, and one chunk cannot be read: both are mended, and the rest is added."""
    from toys import copy_events, damage

    late, damaged = tmp_path / "late.root", tmp_path / "damaged.root"
    copy_events(DATA / "svj_v15.root", damaged, baskets=3)
    sound = damaged.read_bytes()
    fileset = {
        "svj": {"files": {str(p): "Events" for p in (DATA / "svj_v15.root", damaged, late)}, "metadata": {"is_mc": True, "xsec": 1.0}},
        "qcd": FILESET["qcd"],
    }  # fmt: skip
    shutil.copy(DATA / "svj_pfnano.root", late)
    (tmp_path / "whole").mkdir()
    _, expected = run(mine, tmp_path / "whole", kept=False, preflight=False, fileset=fileset)
    late.unlink()
    damage(damaged, "genWeight", basket=1)
    with pytest.raises(IncompleteRun):
        run(mine, tmp_path, kept=False, preflight=False, fileset=fileset)
    before = started(tmp_path)
    with pytest.raises(
        IncompleteRun, match="6 files or chunks are missing: .*damaged.root: events 50 to 60: branch genWeight"
    ):  # nothing was mended yet
        ad.resubmit(tmp_path / "results", executor="iterative", progress=False)
    damaged.write_bytes(sound)
    shutil.copy(DATA / "svj_pfnano.root", late)
    report = ad.resubmit(tmp_path / "results", executor="iterative", progress=False)
    assert report.complete
    again = started(tmp_path) - before
    assert {k.split(":")[0] for k in again} == {"damaged", "late"}
    results = ad.load_results(tmp_path / "results")
    assert_identical(expected, results.histograms)
    assert results.report["complete"] is True
    assert report.datasets["svj"]["events"] == report.datasets["svj"]["sumw"] == 450
    assert report.datasets["svj"]["chunks_processed"] == report.datasets["svj"]["chunks_expected"] == 45
    with pytest.raises(ConfigError, match="nothing is missing in it"):
        ad.resubmit(tmp_path / "results", executor="iterative")


def test_a_resubmission_under_changed_conditions_is_refused(mine, tmp_path):
    fileset = {"svj": {"files": {**FILESET["svj"]["files"], str(tmp_path / "no.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}  # fmt: skip
    with pytest.raises(IncompleteRun):
        run(mine, tmp_path, kept=False, preflight=False, fileset=fileset)
    text = Path(mine).read_text()
    Path(mine).write_text(text + "\n# edited\n")
    with pytest.raises(ConfigError, match=r"code \(.*counting.py\) changed since"):
        ad.resubmit(tmp_path / "results", executor="iterative")


def test_runs_are_merged_and_nothing_counts_twice(mine, tmp_path):
    one = {"svj": FILESET["svj"]}
    other = {"svj": {"files": {str(DATA / "svj_pfnano.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    both = {"svj": {**one["svj"], "files": {**one["svj"]["files"], **other["svj"]["files"]}}}
    _, expected = run(mine, tmp_path, kept=False, fileset=both, output="both")
    run(mine, tmp_path, kept=False, fileset=one, output="a")
    run(mine, tmp_path, kept=False, fileset=other, output="b")
    merged = ad.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    assert_identical(expected, ad.load_results(tmp_path / "ab").histograms)
    assert merged.report["datasets"]["svj"]["sumw"] == 300
    assert len(merged.report["runs"]) == 2
    with pytest.raises(ConfigError, match="is in both, and its events would count twice"):
        ad.merge([tmp_path / "a", tmp_path / "both"], tmp_path / "c")
    with pytest.raises(ConfigError, match="there are results in it already"):
        ad.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    with pytest.raises(ConfigError, match="at least two"):
        ad.merge([tmp_path / "a"], tmp_path / "c")


def test_years_keep_their_own_luminosity(mine, tmp_path):
    norms = {}
    for year, lumi in (("2022", 35.0), ("2023", 28.0)):
        run(mine, tmp_path, kept=False, fileset={f"svj_{year}": FILESET["svj"]}, output=year, lumi=lumi)
        norms[f"svj_{year}"] = ad.load_results(tmp_path / year).norm(f"svj_{year}")
    ad.merge([tmp_path / "2022", tmp_path / "2023"], tmp_path / "both")
    results = ad.load_results(tmp_path / "both")
    assert {d: results.norm(d) for d in norms} == norms
    run(mine, tmp_path, kept=False, fileset={"svj_2022": FILESET["qcd"]}, output="again", lumi=35.0)
    with pytest.raises(ConfigError, match="its metadata are not the same in both"):
        ad.merge([tmp_path / "2022", tmp_path / "again"], tmp_path / "c")


BAD_EVENT = """
import awkward as ak
import hist
from coffea import processor

class Mine(processor.ProcessorABC):
    def process(self, events):
        with open(LOG, "a") as log:
            log.write(f"{events.metadata['entrystart']}\\n")
        if PLACE in range(events.metadata["entrystart"], events.metadata["entrystop"]) and events.metadata["entrystart"]:
            raise ZeroDivisionError("one event")
        h = hist.Hist.new.Reg(5, 0, 50, name="n").Double().fill(ak.to_numpy(ak.num(events.FatJet)))
        return {events.metadata["dataset"]: {"h": h}}

    def postprocess(self, accumulator):
        return accumulator
"""


def bad_event(tmp_path, place):
    (tmp_path / "bad.py").write_text(f"LOG, PLACE = {str(tmp_path / 'log')!r}, {place}\n" + BAD_EVENT)
    return str(tmp_path / "bad.py")


ONE = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}


@pytest.mark.parametrize("executor", ["iterative", pytest.param("dask", marks=pytest.mark.dask)])
def test_a_bug_names_the_chunk_and_is_not_tried_again_and_again(tmp_path, executor, on):
    with pytest.raises(
        ProcessorFailed, match=r"svj_v15.root, events 100 to 150 of svj: .*ZeroDivisionError: one event"
    ):
        ad.run(ONE, bad_event(tmp_path, 120), **on(executor), chunksize=50, progress=False)
    starts = (tmp_path / "log").read_text().split()
    assert starts.count("100") == 2  # with the branches that were seen to be read, and with all


def test_a_run_on_this_machine_keeps_what_is_done_in_its_folder_until_all_is(tmp_path):
    def go(place, **options):
        return ad.run(
            ONE, bad_event(tmp_path, place), executor="iterative", chunksize=50, progress=False, output=tmp_path / "out", **options
        )  # fmt: skip

    with pytest.raises(ProcessorFailed):
        go(120)
    assert len(list((tmp_path / "out" / "checkpoints").rglob("*.lz4"))) == 2
    first = (tmp_path / "log").read_text().split()
    with pytest.raises(ProcessorFailed):
        go(120)
    again = (tmp_path / "log").read_text().split()[len(first) :]
    assert set(again) == {"0", "100"}  # the first events, and what is not done
    assert go(-1).complete
    assert not (tmp_path / "out" / "checkpoints").exists()
    go(-1, checkpoints="none", force=True)
    assert not (tmp_path / "out" / "checkpoints").exists()
