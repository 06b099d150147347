"""The same events in another file, or one file under several names: said, in data and in simulation, and left out of data."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_duplicates import GENERATED, SVJ, counted, entry, met, run
from toys import copy_events

from coffea_ad import cli
from coffea_ad.errors import ConfigError

N = 60
EXAMPLE = "such as entry 0 of {} and entry 0 of {}"


def other_events(columns):
    """Other events under the same numbers, as of two private samples."""
    columns["PuppiMET_pt"] = columns["PuppiMET_pt"] * 1.01


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    (folder / "sub").mkdir()
    made = {}
    for kind, drop in (("data", GENERATED), ("mc", ())):
        made[kind] = copy_events(SVJ, folder / f"{kind}.root", drop=drop, stop=N)
        made[f"{kind} written again"] = copy_events(SVJ, folder / f"{kind}_again.root", drop=drop, stop=N)
        made[f"{kind} copied"] = shutil.copy(made[kind], folder / f"{kind}_copy.root")
        (folder / f"{kind}_link.root").symlink_to(made[kind])
        made[f"{kind} linked"] = folder / f"{kind}_link.root"
        made[f"{kind} by another path"] = f"{folder}/sub/../{kind}.root"
        made[f"{kind} with two slashes"] = f"{folder}//{kind}.root"
        made[f"{kind} with a protocol"] = f"file://{folder}/{kind}.root"
    made["numbered alike"] = copy_events(SVJ, folder / "alike.root", stop=N, change=other_events)
    return made


AGAIN = ["written again", "copied", "linked", "by another path", "with two slashes", "with a protocol"]


def said(report):
    return [n for n in report.notes if "as well (" in n or "there twice" in n]


@pytest.mark.parametrize("again", ["", *AGAIN])
@pytest.mark.parametrize("kind", ["data", "mc"])
def test_the_same_events_in_two_datasets_are_said(files, kind, again):
    one, two = files[kind], files[f"{kind} {again}".strip()]
    report = run({"one": entry(one, mc=kind == "mc"), "two": entry(two, mc=kind == "mc")})
    assert counted(report) == {("one", "two"): N}
    (note,) = said(report)
    assert note.startswith(f"two: {N} events are in one as well (")
    assert EXAMPLE.format(one, two) in note
    assert note.endswith(
        "--duplicates drop leaves them out" if kind == "data"
        else "those of simulation are counted only, since sums of weights count them too"
    )  # fmt: skip
    assert [met(report, d) for d in ("one", "two")] == [N, N]


@pytest.mark.parametrize("again", AGAIN[1:])
@pytest.mark.parametrize("kind", ["data", "mc"])
def test_one_file_twice_in_a_dataset_is_refused(files, kind, again):
    with pytest.raises(ConfigError, match="^d: .* are the same file, and its events would count twice$"):
        run({"d": entry(files[kind], files[f"{kind} {again}"], mc=kind == "mc")})


@pytest.mark.parametrize("kind", ["data", "mc"])
def test_the_same_events_written_again_into_one_dataset_are_said(files, kind):
    report = run({"d": entry(files[kind], files[f"{kind} written again"], mc=kind == "mc")})
    assert counted(report) == {("d", "d"): N}
    (note,) = said(report)
    assert note.startswith(f"d: {N} events are there twice (")


def test_numbers_that_two_samples_share_are_no_repetition(files):
    report = run({"one": entry(files["mc"], mc=True), "two": entry(files["numbered alike"], mc=True)})
    assert counted(report) == {}
    assert said(report) == []
    assert report.duplicates["looked_at"] == 2 * N


def test_data_and_simulation_are_not_compared(files):
    report = run({"one": entry(files["data"]), "two": entry(files["mc"], mc=True)})
    assert counted(report) == {}


@pytest.mark.parametrize("again", ["", "written again", "by another path"])
def test_dropping_leaves_the_events_of_the_first_dataset(files, again):
    fileset = {"one": entry(files["data"]), "two": entry(files[f"data {again}".strip()])}
    report = run(fileset, duplicates="drop")
    assert [met(report, d) for d in fileset] == [N, 0]
    assert [n.endswith("; they were left out") for n in said(report)] == [True]


def test_the_command_line_drops_events_of_data_and_counts_those_of_simulation(files, tmp_path):
    fileset = {"one": entry(files["data"]), "two": entry(files["data by another path"]),
               "mc": entry(files["mc"], mc=True), "same": entry(files["mc written again"], mc=True)}  # fmt: skip
    (tmp_path / "f.json").write_text(json.dumps(fileset))
    words = ["run", "semivisible_jets", "--fileset", str(tmp_path / "f.json"), "-e", "iterative", "--lumi", "1",
             "met_min=0", "--duplicates", "drop", "-o", str(tmp_path / "out")]  # fmt: skip
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    first = {name: next(iter(d["cutflow"].values()), {"events": 0})["events"] for name, d in report["datasets"].items()}
    assert first == {"one": N, "two": 0, "mc": N, "same": N}
    notes = "\n".join(report["notes"])
    assert f"two: {N} events are in one as well" in notes
    assert "they were left out" in notes
    assert f"same: {N} events are in mc as well" in notes


def test_files_without_missing_momentum_are_compared_within_their_dataset(files, tmp_path):
    from coffea_ad.running.duplicates import of_content

    ids = np.arange(5, dtype=np.uint64)
    one, same, two = (of_content(ids, {}, ["run", "MET_pt"], d, 0, 5) for d in ("a", "a", "b"))
    np.testing.assert_array_equal(one, same)
    assert not np.isin(one, two).any()
