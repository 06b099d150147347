"""Chain and skim through real servers, XRootD and S3, on the loopback address: `nox -s servers`."""

from __future__ import annotations

import contextlib
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
from coffea_ad import files
from coffea_ad.cli.main import main
from coffea_ad.errors import IncompleteRun
from coffea_ad.filesets.sources import expand_source
from coffea_ad.nanoaod.reading import OPEN_FILES
from coffea_ad.skims.reading import load_skim

pytestmark = pytest.mark.servers
XSEC = {"svj": 1.0, "qcd": 1000.0}
COUNTING = str(HERE / "counting_processor.py")


def free_port():
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return any_socket.getsockname()[1]


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class XRootD:
    """An XRootD server that keeps its files in a folder; it does not run as root."""

    def __init__(self, folder):
        self.folder, self.port = Path(folder), free_port()
        (self.folder / "data").mkdir()
        (self.folder / "x.cfg").write_text(
            f"all.export /\noss.localroot {folder}/data\nall.adminpath {folder}\nall.pidpath {folder}\n"
            f"xrd.port {self.port}\nxrd.network nodnr\nxrd.allow host 127.0.0.1\n"
        )
        self.owner = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.owner:
            self.folder.chmod(0o755)
            for path in (self.folder, self.folder / "data"):
                shutil.chown(path, "nobody", "nogroup")
        self.url = f"root://127.0.0.1:{self.port}/"
        self.start()

    def start(self):
        words = ["xrootd", "-c", str(self.folder / "x.cfg"), "-l", str(self.folder / "log"), "-I", "v4"]
        self.process = subprocess.Popen(
            words, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **self.owner
        )
        for _ in range(200):
            if answers(self.port):
                return
            time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def xrootd():
    with tempfile.TemporaryDirectory(prefix="coffea-ad-xrootd-") as folder:
        server = XRootD(folder)
        yield server
        server.kill()


@pytest.fixture(scope="module")
def s3():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
                            "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}.items():  # fmt: skip
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        yield
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["xrootd", "s3"])
def storage(request):
    """The address of a folder with two data files."""
    server = request.getfixturevalue(request.param)
    url = f"{server.url}/{request.node.name[:20]}" if request.param == "xrootd" else "s3://bucket/folder"
    for name in XSEC:
        files.write(f"{url}/data/{name}.root", (DATA / f"{name}_v15.root").read_bytes())
    return url


def fileset(folder):
    return {
        name: {
            "files": dict.fromkeys(expand_source(f"{folder}/data/{name}*.root"), "Events"),
            "metadata": {"is_mc": True, "xsec": x},
        }
        for name, x in XSEC.items()
    }


def local_fileset():
    return {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
        for n, x in XSEC.items()
    }


def count(inputs, output, tmp_path, *more, **kwargs):
    return ad.run(
        inputs, COUNTING, overrides=[f"folder={tmp_path}", *more], output=output, progress=False, chunksize=50, **kwargs
    )


@pytest.mark.dask
def test_run_resume_merge_and_resubmit_through_a_server(storage, tmp_path):
    count(local_fileset(), tmp_path / "local", tmp_path, executor="iterative")
    expected = ad.load_results(tmp_path / "local").histograms
    inputs = fileset(storage)
    kept = {"checkpoints": f"{storage}/kept", "workers": 2}
    first = count(inputs, f"{storage}/results", tmp_path, **kept)
    assert_identical(expected, ad.load_results(f"{storage}/results").histograms)
    again = count(inputs, f"{storage}/again", tmp_path, **kept)
    assert (first.throughput["resumed_chunks"], again.throughput["resumed_chunks"]) == (0, 7)
    for name, entry in inputs.items():
        count({name: entry}, f"{storage}/each/{name}", tmp_path, executor="iterative")
    ad.merge([f"{storage}/each/{name}" for name in inputs], f"{storage}/merged")
    assert_identical(expected, ad.load_results(f"{storage}/merged").histograms)
    files.remove(f"{storage}/data/svj.root")
    OPEN_FILES.close()
    part = count(inputs, f"{storage}/part", tmp_path, executor="iterative", retries=0, allow_missing=True)
    assert {Path(f["file"]).name for f in part.failed} == {"svj.root"}
    files.write(f"{storage}/data/svj.root", (DATA / "svj_v15.root").read_bytes())
    assert ad.resubmit(f"{storage}/part", executor="iterative", progress=False).complete
    assert_identical(expected, ad.load_results(f"{storage}/part").histograms)


@pytest.mark.dask
def test_a_skim_through_a_server_trains_and_calibrates_like_a_local_one(storage, tmp_path, capsys):
    options = {"chunksize": 100, "progress": False}
    ad.run(local_fileset(), "skim_jets", output=tmp_path / "skims", executor="iterative", **options)
    ad.run(
        fileset(storage), "skim_jets", output=f"{storage}/skims", workers=2, checkpoints=f"{storage}/kept", **options
    )
    local, remote = (load_skim(folder, "jet_substructure") for folder in (tmp_path / "skims", f"{storage}/skims"))
    np.testing.assert_array_equal(local.x, remote.x)
    np.testing.assert_array_equal(local.weight, remote.weight)
    files.write(f"{storage}/wnae.onnx", (DATA / "wnae.onnx").read_bytes())
    made = {}
    for where, skims in (("local", tmp_path / "skims"), ("remote", f"{storage}/skims")):
        output = tmp_path / "a.onnx" if where == "local" else f"{storage}/a.onnx"
        words = ["regions", f"{storage}/wnae.onnx", "--from", str(skims), "--datasets", "qcd", "--efficiency", "0.5"]
        assert main([*words, "-o", str(output)]) == 0, capsys.readouterr().err
        made[where] = [r.thresholds for r in ad.Tagger(str(output)).card.regions]
    assert made["local"] == made["remote"]
    ad.run({"qcd": fileset(storage)["qcd"]}, "semivisible_jets", model=f"{storage}/wnae.onnx", executor="iterative", progress=False,
           overrides=["met_min=0", "rt_min=0", "dphi_max=4"], output=f"{storage}/search")  # fmt: skip
    words = [
        "regions",
        f"{storage}/wnae.onnx",
        "--from",
        f"{storage}/search",
        "--datasets",
        "qcd",
        "--efficiency",
        "0.5",
    ]
    assert main([*words, "-o", str(tmp_path / "b.onnx")]) == 0, capsys.readouterr().err


@pytest.mark.torch
def test_a_training_reads_its_skim_from_a_server(storage, tmp_path):
    ad.run(fileset(storage), "skim_jets", output=f"{storage}/skims", executor="iterative", progress=False)
    assert main(["run", "pca", f"data={storage}/skims", "datasets=[qcd]", "-o", str(tmp_path / "pca.onnx")]) == 0
    assert ad.Tagger(tmp_path / "pca.onnx").card.provenance["rows"].keys() == {"qcd"}


def test_a_server_that_dies_in_the_middle_costs_its_files_and_nothing_else(xrootd, tmp_path, capsys):
    """One sentence a file, an end within the time-out, and a resubmission that makes it whole."""
    folder = f"{xrootd.url}/dies"
    for name in XSEC:
        files.write(f"{folder}/data/{name}.root", (DATA / f"{name}_v15.root").read_bytes())
    count(local_fileset(), tmp_path / "local", tmp_path, executor="iterative")
    inputs = {"svj": local_fileset()["svj"], "qcd": fileset(folder)["qcd"]}
    (tmp_path / "log").unlink()

    def kill_after_first_chunk():
        while not (tmp_path / "log").exists() or "qcd" not in (tmp_path / "log").read_text():
            time.sleep(0.02)
        xrootd.kill()

    killer = threading.Thread(target=kill_after_first_chunk)
    killer.start()
    try:
        with pytest.raises(IncompleteRun) as caught:
            count(
                inputs,
                tmp_path / "out",
                tmp_path,
                "pause=0.5",
                executor="iterative",
                preflight=False,
                timeout=3,
                retries=1,
            )
    finally:
        killer.join(60)
        xrootd.start()
    report = caught.value.report
    failed = [f for f in report.failed if f["file"].endswith("qcd.root")]
    assert len(failed) == len(report.failed) >= 2
    assert report.datasets["svj"]["chunks_processed"] == 3
    assert str(caught.value).count("qcd.root: ") == 1
    assert "more chunk" in str(caught.value)
    assert ad.resubmit(tmp_path / "out", executor="iterative", progress=False).complete
    assert_identical(ad.load_results(tmp_path / "local").histograms, ad.load_results(tmp_path / "out").histograms)
