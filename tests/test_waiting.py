"""Waiting for servers: it is said what for, it ends, and nothing is asked for chunk by chunk that a server did not give."""

from __future__ import annotations

import io
import re
import time

import pytest
from distributed.comm import CommClosedError
from rich.console import Console
from toys import DATA

import coffea_ad as ad
from coffea_ad import files, progress
from coffea_ad.errors import ConfigError
from coffea_ad.nanoaod import reading
from coffea_ad.running import preflight

A = "root://host:1094//store/a.root"
SAME_SERVER, OTHER_SERVER = "root://host:1094//store/b.root", "root://other//store/a.root"


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setattr(reading, "SILENT", reading._Silent())
    monkeypatch.setattr(reading, "_PAUSE", 0.0)
    return reading.SILENT


def test_what_is_waited_for_is_said_and_said_less_often_the_longer_it_takes(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)
    out = io.StringIO()
    watch = progress._Watch(Console(file=out, width=500), lambda: [A, A, SAME_SERVER, "/local.root"])
    with watch:
        time.sleep(0.6)
    lines = out.getvalue().splitlines()
    assert re.fullmatch(rf"nothing came back for \d+ s; waiting for {A} \(2 chunks\), {SAME_SERVER}", lines[0])
    assert 1 <= len(lines) <= 4  # after 1, 2, 4, 8 times the patience


def test_nothing_is_said_of_local_files(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.02)
    out = io.StringIO()
    with progress._Watch(Console(file=out), lambda: ["/local.root"]):
        time.sleep(0.2)
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("what", "remembered"),
    [("(OSError: Failed to open file: [ERROR] Operation expired)", True), ("(ConnectionRefusedError: refused)", True),
     ("(ValueError: basket 3 is damaged)", False), ("there is no such file", False)],
)  # fmt: skip
def test_a_file_is_not_asked_for_again_only_if_its_server_did_not_answer(silent, what, remembered):
    cause = f"{A}: cannot be read {what}"
    silent.note(A, cause)
    assert silent.cause(A, 60.0) == (cause if remembered else "")
    assert silent.cause(SAME_SERVER, 60.0) == ""
    assert silent.cause(A, 0.0) == ""  # a while later


def test_a_silent_server_gets_one_try_and_others_get_all(silent):
    assert list(reading.attempts(SAME_SERVER, 2)) == [2, 1, 0]
    silent.note(A, f"{A}: cannot be read (timed out)")
    assert list(reading.attempts(SAME_SERVER, 2)) == [0]
    assert list(reading.attempts(OTHER_SERVER, 2)) == [2, 1, 0]
    silent.note("/local.root", "timed out")
    assert silent.cause("/local.root", 60.0) == ""


def test_the_timeout_must_be_a_time(tmp_path):
    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True}}}
    with pytest.raises(ConfigError, match="timeout is 0, but must be a positive number of seconds"):
        ad.run(fileset, "skim_jets", output=tmp_path, timeout=0)


def test_the_timeout_reaches_this_process():
    before = files.patience()
    try:
        files.limit_waiting(7.0)
        assert files.patience() == 7.0
    finally:
        files.limit_waiting(before)


class _Leaving:
    """A cluster whose only worker leaves when it is asked, so many times."""

    def __init__(self, times):
        self.times, self.waited = times, 0

    def submit(self, *_, **__):
        self.waited += 1
        return self

    def result(self):
        return 0

    def run(self, *_, **__):
        self.times -= 1
        return {"tls://a": CommClosedError("gone")} if self.times >= 0 else {"tls://b": {"unseen": []}}


def test_a_worker_that_leaves_while_it_is_asked_is_waited_for_anew():
    client = _Leaving(2)
    assert preflight._asked(client, [], []) == {"tls://b": {"unseen": []}}
    assert client.waited == 2
    with pytest.raises(ConfigError, match="workers leave as soon as they come"):
        preflight._asked(_Leaving(99), [], [])
