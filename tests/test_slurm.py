"""Runs as jobs of a real Slurm, whose daemons and one node are on the loopback address: `nox -s slurm`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from toys import DATA, HERE, assert_identical

import coffea_ad as ad
from coffea_ad.cli.main import main
from coffea_ad.skims.reading import load_skim

pytestmark = [pytest.mark.slurm, pytest.mark.dask]
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
COUNTING = str(HERE / "counting_processor.py")
FILESET = {
    n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
    for n, x in (("svj", 1.0), ("qcd", 1000.0))
}


def free_port():
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return any_socket.getsockname()[1]


def configuration(folder, munge):
    host, user = (
        socket.gethostname().split(".")[0],
        subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip(),
    )
    return f"""
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny,EnableIPv6
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=all Nodes=node1 Default=YES MaxTime=60 State=UP
"""


def ask(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


def eventually(condition, what, patience=240):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm():
    """munged, slurmctld and slurmd in a folder of their own."""
    started = []
    with tempfile.TemporaryDirectory(prefix="coffea-ad-slurm-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o711)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        key, munge = folder / "munge.key", folder / "munge.socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (folder / "slurm.conf").write_text(configuration(folder, munge))
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", PATH)
        files = {
            "socket": munge,
            "key-file": key,
            "pid-file": folder / "m.pid",
            "log-file": folder / "m.log",
            "seed-file": folder / "m.seed",
        }
        for words in (["munged", "--foreground", "--force", *(f"--{k}={v}" for k, v in files.items())], ["slurmctld", "-D"],
                      ["slurmd", "-D", "-N", "node1"]):  # fmt: skip
            out = (folder / f"{words[0]}.out").open("wb")
            started.append(subprocess.Popen([shutil.which(words[0], path=PATH), *words[1:]], stdout=out, stderr=out))
            out.close()
            if words[0] == "munged":
                eventually(munge.exists, "munged makes its socket", 30)
        try:
            eventually(lambda: "idle" in ask("sinfo", "-h", "-o", "%T"), "the node is idle", 60)
            yield folder
        except AssertionError as error:
            raise AssertionError("\n".join(p.read_text()[-2000:] for p in folder.glob("*.[lo][ou][gt]"))) from error
        finally:
            ask("scancel", "--user", ask("id", "-un").strip())
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
            for process in reversed(started):
                process.wait(30)


@pytest.fixture
def site(slurm, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(
        f"kind: slurm\nworkers: 2\nmemory: 1GB\nwalltime: '00:10:00'\nlog_directory: {tmp_path}\nshared_temp_directory: {tmp_path}\n"
        f"options:\n  interface: lo\n  job_script_prologue: [export PYTHONPATH={os.environ.get('PYTHONPATH', '')}]\n"
    )
    yield path
    eventually(lambda: not ask("squeue", "-h").strip(), "no job is left")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    count(folder, folder / "results", executor="iterative")
    return ad.load_results(folder / "results").histograms


def count(folder, output, *more, **kwargs):
    """Seven chunks; a log in the folder says which were begun."""
    return ad.run(
        FILESET, COUNTING, overrides=[f"folder={folder}", *more], output=output, chunksize=50, progress=False, **kwargs
    )


def begun(folder):
    return len((folder / "log").read_text().split()) if (folder / "log").exists() else 0


def jobs(state):
    return ask("squeue", "-h", "-t", state, "-o", "%i").split()


def test_a_search_and_a_skim_as_jobs_are_those_of_this_process(site, expected, tmp_path, capsys):
    fileset = tmp_path / "fileset.json"
    import json

    fileset.write_text(json.dumps(FILESET))
    words = ["run", COUNTING, f"folder={tmp_path}", "--fileset", str(fileset), "-c", "50", "--cluster", str(site)]
    assert main([*words, "-o", str(tmp_path / "jobs")]) == 0, capsys.readouterr().err
    assert_identical(expected, ad.load_results(tmp_path / "jobs").histograms)
    ad.run(FILESET, "skim_jets", executor="iterative", output=tmp_path / "local", progress=False)
    ad.run(FILESET, "skim_jets", cluster=site, output=tmp_path / "skims", progress=False)
    local, remote = (load_skim(tmp_path / name, "jet_substructure") for name in ("local", "skims"))
    np.testing.assert_array_equal(local.x, remote.x)
    np.testing.assert_array_equal(local.weight, remote.weight)


def test_a_job_that_is_cancelled_in_the_middle_costs_nothing(site, expected, tmp_path):
    cancelled = []

    def cancel_one():
        eventually(lambda: begun(tmp_path) >= 2 and len(jobs("RUNNING")) == 2, "two jobs are at work")
        cancelled.append(jobs("RUNNING")[0])
        ask("scancel", cancelled[0])

    canceller = threading.Thread(target=cancel_one)
    canceller.start()
    report = count(tmp_path, tmp_path / "out", "pause=3", cluster=site, preflight=False)
    canceller.join()
    assert cancelled
    assert report.complete
    assert_identical(expected, ad.load_results(tmp_path / "out").histograms)


def test_jobs_of_a_drained_node_wait_and_come_and_go_with_the_work(site, expected, tmp_path):
    """Adaptive scaling from none, on a node that is given back after the job was submitted."""
    site.write_text(site.read_text() + "minimum: 0\n")
    ask("scontrol", "update", "nodename=node1", "state=drain", "reason=test")
    waited = []

    def resume():
        eventually(lambda: jobs("PENDING"), "a job waits")
        waited.extend(jobs("PENDING"))
        ask("scontrol", "update", "nodename=node1", "state=resume")

    resumer = threading.Thread(target=resume)
    resumer.start()
    report = count(tmp_path, tmp_path / "out", cluster=site, preflight=False)
    resumer.join()
    assert waited
    assert report.complete
    assert_identical(expected, ad.load_results(tmp_path / "out").histograms)
