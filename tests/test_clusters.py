"""Clusters: what listens where, what comes to the jobs, TLS, scaling, and every refusal."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import dask
import psutil
import pytest
from distributed import LocalCluster

from coffea_ad.errors import ConfigError
from coffea_ad.running.clusters.config import ClusterConfig, TLSFiles, load_cluster
from coffea_ad.running.clusters.connect import connect, describe
from coffea_ad.running.clusters.jobs import job_script

LOOPBACK = ("127.0.0.1", "::1")


def eventually(condition, what):
    """Wait until something comes true; the limit only ends a test that would hang."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail(f"never came true: {what}")


def listening(*roots):
    """(process, address) of every listening socket of these processes and all their children."""
    out = set()
    for root in roots:
        for process in (root, *root.children(recursive=True)):
            with_status = [c for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
            out |= {(process.pid, c.laddr.ip, c.laddr.port) for c in with_status}
    return out


def refused(sentence, **settings):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        ClusterConfig(**settings)
    assert "\n" not in str(caught.value)


# settings


def test_the_defaults_are_a_cluster_on_this_machine():
    config = ClusterConfig()
    assert (config.kind, config.workers, config.minimum, config.encrypted) == ("local", 2, None, False)
    assert ClusterConfig(kind="slurm").encrypted
    assert not ClusterConfig(kind="slurm", encrypt=False).encrypted
    assert ClusterConfig(encrypt=True).encrypted


def test_settings_that_make_no_sense_are_refused_in_one_sentence(tmp_path):
    refused("a cluster of kind scheduler needs its address", kind="scheduler")
    refused("address has no effect for a cluster of kind local", address="tcp://127.0.0.1:1")
    refused("minimum is 3, but workers, the most there may be, is 2", minimum=3)
    refused("minimum has no effect for a cluster of kind scheduler", kind="scheduler", address="tcp://x:1", minimum=1)
    for size in ("lots", "-2GB", "2", 2, True, "1e400GB", [1], ""):
        refused(f"{size!r} is no size of memory or disk; write it like 2GB", memory=size)
    refused("'much' is no size", kind="htcondor", disk="much")
    refused("disk has no effect for a cluster of kind slurm", kind="slurm", disk="2GB")
    refused("queue has no effect for a cluster of kind htcondor; say it in options", kind="htcondor", queue="long")
    refused("walltime has no effect for a cluster of kind lpc; say it in options", kind="lpc", walltime="01:00:00")
    refused("walltime is the number 36000; write it in quotes", kind="slurm", walltime=36000)
    refused("cores has no effect for a cluster of kind local", cores=2)
    refused("tls needs both ca_file and cert", kind="slurm", tls={"ca_file": "ca.pem"})
    refused("tls needs both ca_file and cert", kind="slurm", tls={"key": "key.pem"})
    there = tmp_path / "there.pem"
    there.touch()
    refused("tls.cert: there is no file gone.pem", kind="slurm", tls={"ca_file": str(there), "cert": "gone.pem"})
    tls = {"ca_file": str(there), "cert": str(there)}
    refused(
        "tcp://x:1: certificates are for an address that begins with tls://",
        kind="scheduler",
        address="tcp://x:1",
        tls=tls,
    )
    refused("tls has no effect for a cluster of kind local", tls=tls)
    refused("encrypt is off, but tls names certificates", kind="slurm", tls=tls, encrypt=False)
    refused("options.cores: has a setting of its own", kind="slurm", options={"cores": 4})
    refused("options.security: has a setting of its own", options={"security": True})


def test_a_key_in_the_file_of_the_certificate_needs_no_name(tmp_path):
    for name in ("ca.pem", "both.pem"):
        (tmp_path / name).touch()
    paths = TLSFiles(ca_file=str(tmp_path / "ca.pem"), cert=str(tmp_path / "both.pem")).paths()
    assert paths["key"] == paths["cert"] == str(tmp_path / "both.pem")


def test_the_command_line_says_its_part_over_the_settings_of_a_site(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("kind: slurm\nworkers: 10\nqueue: long\nwalltime: '02:00:00'\noptions: {nanny: false}\n")
    config = load_cluster("slurm", workers=50, site=site, overrides=["memory=4GB"])
    assert (config.workers, config.queue, config.walltime, config.memory) == (50, "long", "02:00:00", "4GB")
    assert load_cluster(site, workers=3) == load_cluster("slurm", workers=3, site=site)
    assert load_cluster(site, minimum=0).minimum == 0
    assert load_cluster() == ClusterConfig()
    assert load_cluster("local", workers=3).workers == 3


def test_an_address_is_a_kind_of_cluster():
    for config in (load_cluster("tcp://10.0.0.1:8786"), load_cluster(address="tcp://10.0.0.1:8786")):
        assert (config.kind, config.address) == ("scheduler", "tcp://10.0.0.1:8786")
    assert load_cluster("127.0.0.1:8786").address == "127.0.0.1:8786"


def test_wrong_words_and_keys_fail_with_the_nearest_right_one(tmp_path):
    site = tmp_path / "site.yaml"
    for text, sentence in (
        ("kind: slurm\nquue: long\n", "unknown key 'quue'; did you mean 'queue'?"),
        (
            "kind: scheduler\naddress: tls://x:1\ntls: {cafile: ca.pem}\n",
            "unknown key 'cafile' in tls; did you mean 'tls.ca_file'?",
        ),
        ("workers: 0\n", "workers = 0"),
        ("kind: condor\n", "kind = 'condor'"),
    ):
        site.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            load_cluster(site=site)
    with pytest.raises(ConfigError, match=re.escape("unknown cluster 'htcondr'; did you mean 'htcondor'?")):
        load_cluster("htcondr")
    with pytest.raises(ConfigError, match="say one file of site settings"):
        load_cluster(site, site=site)
    with pytest.raises(ConfigError, match="gone.yaml: cannot be read"):
        load_cluster(tmp_path / "gone.yaml")


# on this machine


@pytest.mark.dask
def test_a_local_cluster_listens_on_the_loopback_address_only():
    me = psutil.Process()
    before, others = listening(me), set(me.children(recursive=True))
    with connect(ClusterConfig(workers=2)) as client:
        opened = listening(me) - before
        info = client.scheduler_info(n_workers=-1)
        known = {int(a.rsplit(":", 1)[1]) for a in (info["address"], *info["workers"])}
        known |= {int(w["nanny"].rsplit(":", 1)[1]) for w in info["workers"].values()}
        known |= {w["services"]["dashboard"] for w in (info, *info["workers"].values())}
        assert len(known) == 8  # one scheduler, two workers with nannies, and the web pages of all three
        assert known <= {port for _, _, port in opened}
        assert {address for _, address, _ in opened} <= set(LOOPBACK)
        sentence = describe(client)
        assert re.fullmatch(r"2 of 2 workers are there; dashboard http://127.0.0.1:\d+/status", sentence)
        children = set(me.children(recursive=True)) - others
    assert listening(me) <= before
    assert not [c for c in children if c.is_running() and "spawn_main" in " ".join(c.cmdline())]


@pytest.mark.dask
def test_the_memory_limit_reaches_the_workers():
    def limits(client):
        return {w["memory_limit"] for w in client.scheduler_info(n_workers=-1)["workers"].values()}

    with connect(ClusterConfig(workers=1, memory="300MB")) as client:
        assert limits(client) == {300_000_000}
    with connect(ClusterConfig(workers=2, memory="auto")) as client:
        from distributed.system import MEMORY_LIMIT

        assert limits(client) == {MEMORY_LIMIT // 2}


@pytest.mark.dask
def test_a_cluster_scales_within_its_bounds():
    seen = set()

    def workers():
        now = len(client.cluster.plan)
        seen.add(now)
        return now

    quick = {"interval": "50ms", "wait-count": 2, "target-duration": "1s"}
    with (
        dask.config.set({f"distributed.adaptive.{k}": v for k, v in quick.items()}),
        connect(ClusterConfig(workers=2, minimum=0)) as client,
    ):
        assert workers() == 0
        futures = client.map(lambda _: time.sleep(0.5), range(24), pure=False)
        eventually(lambda: workers() == 2, "two workers are asked for")
        client.gather(futures)
        del futures
        eventually(lambda: workers() == 0, "no worker is left")
    assert seen <= {0, 1, 2}


@pytest.mark.dask
def test_a_worker_that_dies_and_is_given_up_is_started_again(monkeypatch):
    """dask gives up who is not back in 15 s, as on a busy machine; here at once."""
    monkeypatch.setattr(sys.modules["coffea_ad.running.clusters.connect"], "_LOOK", 0.1)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "0s"}),
        connect(ClusterConfig(workers=1)) as client,
    ):
        first = client.submit(os.getpid, pure=False).result(timeout=120)
        os.kill(first, signal.SIGKILL)
        assert client.submit(os.getpid, pure=False).result(timeout=120) != first
        assert len(client.cluster.worker_spec) == 1


@pytest.mark.dask
def test_a_local_cluster_talks_tls_if_asked():
    pytest.importorskip("cryptography")
    with connect(ClusterConfig(workers=1, encrypt=True)) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        assert client.submit(lambda: 1).result(timeout=120) == 1
        with (
            pytest.raises(ConfigError, match="no dask scheduler answers"),
            connect(load_cluster(address.replace("tls", "tcp"))),
        ):
            pass


@pytest.mark.dask
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_an_interruption(error):
    me = psutil.Process()
    before = listening(me)
    with pytest.raises(error), connect(ClusterConfig(workers=1)):
        raise error
    assert listening(me) <= before


@pytest.mark.dask
def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from coffea_ad.running.clusters import ClusterConfig, connect\n"
        "with connect(ClusterConfig(workers=1)) as client:\n    print(client)\n"
    )
    out = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert out.returncode != 0
    assert 'in a script, call ad.run under if __name__ == "__main__":' in out.stderr


# existing schedulers


def write_certificates(folder):
    from distributed import Security

    folder.mkdir()
    security = Security.temporary()
    for name, text in security.get_tls_config_for_role("worker").items():
        if text:
            (folder / f"{name}.pem").write_text(text)
    return TLSFiles(
        **{
            name: str(folder / f"{file}.pem")
            for name, file in (("ca_file", "ca_file"), ("cert", "cert"), ("key", "key"))
        }
    )


@pytest.fixture(scope="module")
def tls_scheduler(tmp_path_factory):
    """A scheduler and a worker, by themselves, that talk TLS on the loopback address."""
    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("scheduler")
    tls = write_certificates(folder / "right")
    common = ["--host", "127.0.0.1", "--tls-ca-file", tls.ca_file, "--tls-cert", tls.cert, "--tls-key", tls.key]
    common += [
        "--protocol",
        "tls",
        "--scheduler-file",
        str(folder / "scheduler.json"),
        "--dashboard-address",
        "127.0.0.1:0",
    ]
    with (folder / "log").open("w") as log:
        start = lambda module, *more: subprocess.Popen(
            [sys.executable, "-m", module, *common, *more], stdout=log, stderr=log, cwd=folder
        )
        processes = [
            start("distributed.cli.dask_scheduler", "--port", "0"),
            start("distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1"),
        ]
        try:
            eventually((folder / "scheduler.json").is_file, "the scheduler says its address")
            yield json.loads((folder / "scheduler.json").read_text())["address"], tls, folder, processes
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


@pytest.mark.dask
def test_an_encrypted_scheduler_is_joined_and_left_alone(tls_scheduler):
    address, tls, _, processes = tls_scheduler
    config = ClusterConfig(kind="scheduler", address=address, tls=tls)
    for _ in range(2):  # the second time it is still there
        with connect(config) as client:
            assert address.startswith("tls://127.0.0.1:")
            assert client.submit(os.getpid).result(timeout=120) == processes[1].pid
            assert describe(client) == f"1 workers at {address}"
        assert client.status == "closed"
    assert [p.poll() for p in processes] == [None, None]


@pytest.mark.dask
def test_dasks_own_configuration_may_hold_the_certificates(tls_scheduler):
    address, tls, _, _ = tls_scheduler
    names = {"ca-file": tls.ca_file, "client.cert": tls.cert, "client.key": tls.key}
    with (
        dask.config.set({f"distributed.comm.tls.{k}": v for k, v in names.items()}),
        connect(load_cluster(address)) as client,
    ):
        assert client.submit(lambda: 1).result(timeout=120) == 1


@pytest.mark.dask
def test_a_certificate_of_somebody_else_is_refused(tls_scheduler):
    address, _, folder, _ = tls_scheduler
    wrong = write_certificates(folder / "wrong")
    with (
        pytest.raises(
            ConfigError, match=f"no dask scheduler answers at {address}, or it does not take the certificate"
        ),
        connect(ClusterConfig(kind="scheduler", address=address, tls=wrong, timeout=1)),
    ):
        pass


def test_an_encrypted_scheduler_needs_certificates():
    with (
        pytest.raises(
            ConfigError, match="tls://127.0.0.1:1: needs certificates; set tls.ca_file, tls.cert and tls.key"
        ),
        connect(load_cluster("tls://127.0.0.1:1")),
    ):
        pass


@pytest.mark.dask
def test_nobody_answers():
    with (
        pytest.raises(ConfigError, match="no dask scheduler answers at tcp://127.0.0.1:9") as caught,
        connect(load_cluster("tcp://127.0.0.1:9", overrides=["timeout=1"])),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.dask
def test_a_scheduler_without_workers_is_said_so_unless_it_starts_them_on_demand():
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with (
            pytest.raises(ConfigError, match=f"the scheduler at {address} has no worker after 0.2 s"),
            connect(load_cluster(address, overrides=["timeout=0.2"])),
        ):
            pass
        with connect(load_cluster(address, overrides=["timeout=0"])) as client:
            assert describe(client) == f"0 workers at {address}"


# batch systems, as far as they go without one


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of one's own, without a proxy; adapters write their configurations there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("X509_USER_PROXY", raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


BEGIN = """#!{python}
import os, pathlib, re, shutil, signal, subprocess, sys
jobs = pathlib.Path({jobs!r})
"""
READ = """
text = open(sys.argv[-1]).read()
if "refuse" in text:
    sys.exit("ERROR: No such queue,\\nand no such job")
number = str(len(list(jobs.glob("*.txt"))) + 1)
(jobs / (number + ".txt")).write_text(text)
scratch = jobs / number
scratch.mkdir()
"""
STANDS_IN = {
    # Makes a folder for the job, takes the files there that the submit file names, and starts the job in it.
    "condor_submit": """
submit = dict(re.findall(r"^(\\S+) = (.*)$", text, re.MULTILINE))
for file in filter(None, submit.get("transfer_input_files", "").split(",")):
    shutil.copy(file, scratch)
quoted = submit["Arguments"][1:-1].replace('""', '"')
words = [w[1:-1].replace("''", "'") if w[0] == "'" else w for w in re.findall(r"'(?:[^']|'')*'|\\S+", quoted)]
command = [submit["Executable"], *words]
environment = {"PATH": os.environ["PATH"], "_CONDOR_SCRATCH_DIR": str(scratch)}
answer = "1 job(s) submitted to cluster " + number + "."
""",
    "sbatch": """
(scratch / "script.sh").write_text(text)
command = ["bash", "script.sh"]
environment = {"PATH": os.environ["PATH"]}
answer = "Submitted batch job " + number
""",
}
START = """
job = subprocess.Popen(
    command, cwd=scratch, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
    stdout=open(scratch / "output", "w"), stderr=subprocess.STDOUT,
)
(jobs / (number + ".pid")).write_text(str(job.pid))
print(answer)
"""
STOP = """
number = sys.argv[-1].split(".")[0]
os.killpg(int((jobs / (number + ".pid")).read_text()), signal.SIGTERM)
(jobs / (number + ".pid")).unlink()
"""


@pytest.fixture
def batch_system(tmp_path, monkeypatch, home):
    """Commands that stand in for those of HTCondor and Slurm, and start the jobs here; returns the folder of the jobs."""
    jobs, commands = tmp_path / "jobs", tmp_path / "commands"
    jobs.mkdir()
    commands.mkdir()
    texts = {name: READ + text + START for name, text in STANDS_IN.items()} | {"condor_rm": STOP, "scancel": STOP}
    for name, text in texts.items():
        (commands / name).write_text(BEGIN.format(python=sys.executable, jobs=str(jobs)) + text)
        (commands / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    yield jobs
    for pid in jobs.glob("*.pid"):
        os.killpg(int(pid.read_text()), 9)


HERE = {"scheduler_options": {"host": "127.0.0.1"}, "worker_extra_args": ["--host", "127.0.0.1"]}


@pytest.mark.dask
@pytest.mark.parametrize("kind", ["htcondor", "slurm"])
def test_jobs_find_the_scheduler_and_their_certificates(kind, batch_system, home, monkeypatch, tmp_path):
    """HTCondor's jobs are started in a folder with what was transferred; Slurm's read the shared folder."""
    pytest.importorskip("dask_jobqueue")
    pytest.importorskip("cryptography")

    def of_worker():  # a function inside a function travels by value: the jobs cannot import this file
        names = ("MALLOC_TRIM_THRESHOLD_", "XRD_RUNFORKHANDLER", "X509_USER_PROXY")
        return {name: os.environ.get(name) for name in names}, str(Path.cwd()), os.getpid()

    proxy = tmp_path / "proxy"
    proxy.write_text("proxy")
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    config = ClusterConfig(kind=kind, workers=2, cores=2, memory="500MB", options=HERE)
    me = psutil.Process()
    before = listening(me)
    with connect(config) as client:
        client.wait_for_workers(2, timeout=180)
        assert describe(client).startswith("2 of 2 workers are there; dashboard http://127.0.0.1:")
        assert [p.name for p in batch_system.glob("*.txt")] == ["1.txt"]  # one job of two cores
        (folder,) = home.glob(".coffea-ad-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        environment, where, pid = client.submit(of_worker).result(timeout=120)
        assert where == str(batch_system / "1")
        assert environment["MALLOC_TRIM_THRESHOLD_"] == "0"
        assert environment["XRD_RUNFORKHANDLER"] == "1"
        if kind == "slurm":
            assert environment["X509_USER_PROXY"] == str(folder / "x509-proxy")
            assert (folder / "x509-proxy").read_text() == "proxy"
        # The dashboard and the web pages of the workers are seen on their own machines only.
        assert {a for _, a, _ in listening(me, psutil.Process(pid)) - before} == {"127.0.0.1"}
        sent = (batch_system / "1.txt").read_text()
        assert (folder / "dask-key.pem").read_text().split("\n")[1] not in sent
    assert not list(home.glob(".coffea-ad-*"))
    assert not list(batch_system.glob("*.pid"))
    # What was sent is what `job_script` shows, but for names and the address.
    shown = re.sub(r"tls://SCHEDULER|\.coffea-ad-RUN|WORKER", "X", job_script(config))
    sent = sent.replace(address, "X")
    assert re.sub(r"\.coffea-ad-\w+|(HTCondor|SLURM)Cluster-0", "X", sent) == shown


@pytest.mark.dask
def test_own_certificates_take_the_place_of_temporary_ones(batch_system, tmp_path):
    pytest.importorskip("dask_jobqueue")
    pytest.importorskip("cryptography")
    tls = write_certificates(tmp_path / "own")
    both = tmp_path / "both.pem"
    both.write_text(Path(tls.cert).read_text() + Path(tls.key).read_text())
    config = ClusterConfig(kind="htcondor", workers=1, options=HERE, tls={"ca_file": tls.ca_file, "cert": str(both)})
    with connect(config) as client:
        assert client.submit(lambda: 1).result(timeout=120) == 1
        with connect(ClusterConfig(kind="scheduler", address=client.scheduler.address, tls=tls)) as other:
            assert other.submit(lambda: 2).result(timeout=120) == 2


@pytest.mark.dask
def test_jobs_come_and_go_with_the_work(batch_system):
    pytest.importorskip("dask_jobqueue")
    quick = {"interval": "50ms", "wait-count": 2, "target-duration": "1s"}
    with (
        dask.config.set({f"distributed.adaptive.{k}": v for k, v in quick.items()}),
        connect(ClusterConfig(kind="htcondor", workers=1, minimum=0, encrypt=False, options=HERE)) as client,
    ):
        assert not list(batch_system.iterdir())
        assert client.submit(lambda: 1).result(timeout=120) == 1
        assert len(list(batch_system.glob("*.pid"))) == 1
        eventually(lambda: not list(batch_system.glob("*.pid")), "the job is taken back")


@pytest.mark.dask
def test_jobs_are_taken_back_after_an_interruption(batch_system, home):
    pytest.importorskip("dask_jobqueue")
    pytest.importorskip("cryptography")

    def interrupted():
        with connect(ClusterConfig(kind="slurm", workers=2, options=HERE)):
            eventually(lambda: len(list(batch_system.glob("*.pid"))) == 2, "two jobs are submitted")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(batch_system.glob("*.pid"))
    assert not list(home.glob(".coffea-ad-*"))


@pytest.mark.dask
@pytest.mark.parametrize("kind", ["htcondor", "slurm"])
def test_what_the_batch_system_says_comes_back(kind, batch_system):
    pytest.importorskip("dask_jobqueue")
    refuse = {"+refuse": "yes"} if kind == "htcondor" else ["--refuse"]
    config = ClusterConfig(kind=kind, workers=2, encrypt=False, options=HERE | {"job_extra_directives": refuse})
    with pytest.raises(ConfigError) as caught, connect(config):
        pass
    assert str(caught.value) == f"{kind}: the cluster cannot start (ERROR: No such queue, and no such job)"


def test_a_batch_cluster_starts_where_jobs_can_be_submitted(home, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", str(home))
    for kind, command in (("htcondor", "condor_submit"), ("slurm", "sbatch")):
        with (
            pytest.raises(ConfigError, match=f"{kind}: there is no {command} on this machine"),
            connect(ClusterConfig(kind=kind)),
        ):
            pass


@pytest.mark.filterwarnings("ignore:unclosed cluster")  # what refused its settings was never open
def test_what_the_clusters_class_refuses_is_one_sentence(batch_system):
    pytest.importorskip("dask_jobqueue")
    for options, sentence in (
        ({"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
        ({"dashboard_address": ":8787"}, "Please pass 'dashboard_address' through 'scheduler_options'"),
    ):
        config = ClusterConfig(kind="htcondor", encrypt=False, options=options)
        with pytest.raises(ConfigError, match=re.escape(sentence)) as caught, connect(config):
            pass
        assert "\n" not in str(caught.value)
        del caught
        gc.collect()
    gone = ClusterConfig(kind="htcondor", shared_temp_directory="gone")
    with (
        pytest.raises(ConfigError, match="htcondor: the cluster cannot start .*No such file or directory: 'gone"),
        connect(gone),
    ):
        pass
    assert not list(batch_system.iterdir())


# submit files


def test_a_submit_file_of_htcondor(home, monkeypatch, tmp_path):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("X509_USER_PROXY", "/proxies/mine")
    config = ClusterConfig(
        kind="htcondor", cores=4, memory="8GB", disk="20GB", log_directory=str(tmp_path / "logs"),
        options={
            "job_extra_directives": {"MY.MaxRuntime": 7200, "transfer_input_files": "mine.json", "transfer_output_files": "x"},
            "job_script_prologue": ["source setup.sh"], "python": "python3", "death_timeout": 99,
        },
    )  # fmt: skip
    text = job_script(config)
    lines = dict(re.findall(r"^(\S+) = (.*)$", text, re.MULTILINE))
    assert lines["MY.DaskWorkerCores"] == "4"
    assert lines["MY.DaskWorkerMemory"] == "8000000000"
    assert lines["MY.DaskWorkerDisk"] == "20000000000"
    assert lines["LogDirectory"] == str(tmp_path / "logs")
    assert lines["MY.MaxRuntime"] == "7200"
    assert lines["x509userproxy"] == "/proxies/mine"
    assert lines["should_transfer_files"] == "YES"
    assert lines["transfer_output_files"] == "x"
    folder = f"{home}/.coffea-ad-RUN"
    assert (
        lines["transfer_input_files"] == f"{folder}/dask-ca.pem,{folder}/dask-cert.pem,{folder}/dask-key.pem,mine.json"
    )
    assert lines["Arguments"] == (
        "\"-c 'export MALLOC_TRIM_THRESHOLD_=0; export XRD_RUNFORKHANDLER=1; source setup.sh; "
        "python3 -m distributed.cli.dask_worker tls://SCHEDULER --name WORKER --nthreads 1 --memory-limit 1.86GiB "
        "--nworkers 4 --nanny --death-timeout 99 --no-dashboard --dashboard-address 127.0.0.1:0 --protocol tls:// "
        "--tls-ca-file $_CONDOR_SCRATCH_DIR/dask-ca.pem --tls-cert $_CONDOR_SCRATCH_DIR/dask-cert.pem "
        "--tls-key $_CONDOR_SCRATCH_DIR/dask-key.pem'\""
    )
    assert not list(home.glob(".coffea-ad-*"))


def test_a_submit_file_of_slurm(home, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("X509_USER_PROXY", "/proxies/mine")
    config = ClusterConfig(
        kind="slurm", memory="3GB", queue="long", account="cms", walltime="02:00:00", log_directory="~/logs",
        shared_temp_directory="/shared/a place", options={"job_extra_directives": ["--constraint=avx2"]},
    )  # fmt: skip
    lines = job_script(config).splitlines()
    for line in (
        f"#SBATCH -e {home}/logs/dask-worker-%J.err", "#SBATCH -p long", "#SBATCH -A cms", "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=1", "#SBATCH --mem=3G", "#SBATCH -t 02:00:00", "#SBATCH --constraint=avx2",
        "export MALLOC_TRIM_THRESHOLD_=0", "export XRD_RUNFORKHANDLER=1",
        "export X509_USER_PROXY='/shared/a place/.coffea-ad-RUN/x509-proxy'",
    ):  # fmt: skip
        assert line in lines
    assert "--memory-limit 2.79GiB" in lines[-1]
    assert lines[-1].endswith("--tls-key '/shared/a place/.coffea-ad-RUN'/dask-key.pem")


def test_without_encryption_nothing_is_transferred_and_nothing_hidden(home):
    pytest.importorskip("dask_jobqueue")
    for kind in ("htcondor", "slurm"):
        text = job_script(ClusterConfig(kind=kind, encrypt=False))
        assert "tcp://SCHEDULER" in text
        assert not re.search("tls|transfer|x509|X509|pem", text)


@pytest.mark.parametrize("kind", ["local", "lpc", "lxplus"])
def test_other_clusters_show_no_submit_file(kind):
    with pytest.raises(ConfigError, match=f"a submit file can be shown for htcondor and slurm, not for {kind}"):
        job_script(ClusterConfig(kind=kind))


# sites


@pytest.fixture
def adapters(monkeypatch, batch_system):
    """Modules that take what those of LPC and lxplus take, and keep it; returns what they were given."""
    pytest.importorskip("dask_jobqueue")
    from dask_jobqueue.htcondor import HTCondorCluster, HTCondorJob, quote_arguments

    given = {}

    class LPCCondorJob(HTCondorJob):
        executable = "/usr/bin/env"
        config_name = "site"

        def job_script(self):
            line = f'Arguments = "{quote_arguments(self._command_template.split(" "))}"'
            return re.sub(r"^Arguments = .*$", lambda _: line, super().job_script(), flags=re.MULTILINE)

    class LPCCondorCluster(HTCondorCluster):
        job_cls = LPCCondorJob

        def __init__(self, **kwargs):
            given.update(kwargs)
            kwargs["scheduler_options"].setdefault("host", "127.0.0.1:0")
            del kwargs["image"]
            files = kwargs.pop("transfer_input_files")
            super().__init__(**kwargs, job_extra_directives={"transfer_input_files": ",".join(files)})

    class CernJob(HTCondorJob):
        config_name = "site"

    class CernCluster(HTCondorCluster):
        job_cls = CernJob

        def __init__(self, *, lcg=False, container_runtime=None, **kwargs):
            given.update(kwargs, lcg=lcg, container_runtime=container_runtime)
            super().__init__(**kwargs)

    for module, cluster in (("lpcjobqueue", LPCCondorCluster), ("dask_lxplus", CernCluster)):
        fake = types.ModuleType(module)
        setattr(fake, cluster.__name__, cluster)
        monkeypatch.setitem(sys.modules, module, fake)
    defaults = {**dask.config.get("jobqueue.htcondor"), "memory": "2GB", "disk": "200MB"}
    with dask.config.set({"jobqueue.site": defaults}):
        yield given


@pytest.mark.dask
def test_lpc_is_given_what_its_adapter_takes(adapters, monkeypatch, tmp_path):
    pytest.importorskip("cryptography")
    options = {"image": "coffeateam/coffea-dask-almalinux9:latest", "transfer_input_files": "mine.json"}
    monkeypatch.chdir(tmp_path)
    Path("mine.json").touch()
    with connect(ClusterConfig(kind="lpc", workers=1, options=options)) as client:
        assert client.submit(lambda: 1).result(timeout=120) == 1
    assert set(adapters) == {
        "cores", "processes", "image", "protocol", "scheduler_options", "security", "transfer_input_files"
    }  # fmt: skip
    assert adapters["scheduler_options"] == {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1:0"}
    assert [Path(f).name for f in adapters["transfer_input_files"]] == [
        "dask-ca.pem",
        "dask-cert.pem",
        "dask-key.pem",
        "mine.json",
    ]
    in_job = adapters["security"].get_tls_config_for_role("worker")
    assert (in_job["ca_file"], in_job["cert"], in_job["key"]) == ("dask-ca.pem", "dask-cert.pem", "dask-key.pem")


@pytest.mark.dask
def test_lxplus_is_given_what_its_adapter_takes(adapters):
    pytest.importorskip("cryptography")
    options = {
        "lcg": True, "container_runtime": "none", "job_extra_directives": {"MY.JobFlavour": '"longlunch"'},
        "scheduler_options": {"host": "127.0.0.1", "port": 0}, "worker_extra_args": ["--host", "127.0.0.1"],
    }  # fmt: skip
    with connect(ClusterConfig(kind="lxplus", workers=1, memory="1GB", options=options)) as client:
        assert client.submit(lambda: 1).result(timeout=120) == 1
    assert adapters["lcg"] is True
    assert adapters["container_runtime"] == "none"
    assert adapters["memory"] == "1GB"
    assert "disk" not in adapters  # the adapter's own
    assert adapters["job_extra_directives"]["MY.JobFlavour"] == '"longlunch"'
    assert "dask-key.pem" in adapters["job_extra_directives"]["transfer_input_files"]
    assert adapters["worker_extra_args"][:1] == ["--no-dashboard"]
    assert "export XRD_RUNFORKHANDLER=1" in adapters["job_script_prologue"]


# packages that are not there


@pytest.mark.parametrize(
    ("kind", "module", "sentence"),
    [
        ("htcondor", "dask_jobqueue", ("needs dask-jobqueue", "pip install 'coffea-ad[batch]'")),
        ("slurm", "dask_jobqueue", ("needs dask-jobqueue", "pip install 'coffea-ad[batch]'")),
        ("lpc", "lpcjobqueue", ("needs lpcjobqueue", "pip install git+https://github.com/CoffeaTeam/lpcjobqueue.git")),
        ("lxplus", "dask_lxplus", ("needs dask-lxplus", "pip install dask-lxplus")),
    ],
)
def test_a_package_that_is_not_there_is_named_with_its_command(kind, module, sentence, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught, connect(ClusterConfig(kind=kind)):
        pass
    assert all(part in str(caught.value) for part in sentence)


def test_encryption_without_cryptography_says_what_to_do(batch_system, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for config in (ClusterConfig(kind="slurm"), ClusterConfig(encrypt=True)):
        with (
            pytest.raises(ConfigError, match=re.escape("pip install 'coffea-ad[batch]'; encrypt=false does without")),
            connect(config),
        ):
            pass
