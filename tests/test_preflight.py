"""What is found out before a run: on files, on first events, and on the workers of a dask cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import DATA, assert_identical

import coffea_ad as ad
from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.running import first_files, preflight
from coffea_ad.running.checkpoints import Checkpoints

FILESET = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
MODEL = (DATA / "wnae.onnx").read_bytes()


@pytest.mark.dask
def test_sound_workers_pass(client):
    notes = []
    preflight.check_workers(client, [MODEL], None, notes)
    assert notes == []


@pytest.mark.dask
def test_a_model_that_arrives_damaged_is_refused_by_the_worker(client):
    broken = bytearray(MODEL)
    broken[len(broken) // 2] ^= 1
    with pytest.raises(ConfigError, match=r"worker tcp://127.0.0.1:\d+ cannot take part \(BadModel: .*digest"):
        preflight.check_workers(client, [bytes(broken)], None, [])


@pytest.mark.dask
@pytest.mark.parametrize(("package", "refused"), [("coffea", True), ("python", True), ("numpy", False)])
def test_versions_that_must_agree_are_refused_and_others_are_said(client, monkeypatch, package, refused):
    own = preflight.package_versions()
    if package == "python":
        monkeypatch.setattr(preflight.platform, "python_version", lambda: "3.8.1")
    else:
        monkeypatch.setattr(preflight, "package_versions", lambda: {**own, package: "0.1"})
    notes = []
    if refused:
        with pytest.raises(ConfigError, match=rf"has {package} .*, the client (0.1|3.8.1); they must be the same"):
            preflight.check_workers(client, [], None, notes)
    else:
        preflight.check_workers(client, [], None, notes)
        assert notes == [f"versions differ: numpy {own['numpy']} on workers, 0.1 here"]


@pytest.mark.dask
def test_checkpoints_that_workers_do_not_see_are_refused(client, tmp_path):
    preflight.check_workers(client, [], Checkpoints(str(tmp_path), "key"), [])
    with pytest.raises(ConfigError, match=r"does not see the checkpoints at memory://kept"):
        preflight.check_workers(client, [], Checkpoints("memory://kept", "key"), [])
    assert not list(tmp_path.rglob(".probe*"))
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(ConfigError, match="checkpoints cannot be written there"):
        preflight.check_workers(client, [], Checkpoints(str(blocked), "key"), [])


@pytest.mark.dask
def test_workers_that_lack_the_package_are_sent_it(tmp_path):
    """Workers that have coffea and all else, but cannot import coffea_ad, as on a site's own image."""
    from distributed import Client, LocalCluster

    checkout = str(Path(ad.__file__).parent.parent)
    preload = tmp_path / "without.py"
    preload.write_text(
        "import sys\n"
        f"sys.path[:] = [p for p in sys.path if p not in ('', {checkout!r})]\n"
        "for name in [m for m in sys.modules if m.split('.')[0] == 'coffea_ad']:\n"
        "    del sys.modules[name]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
    )

    def found():
        import importlib.util

        spec = importlib.util.find_spec("coffea_ad")
        return None if spec is None else spec.origin

    cluster = LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
                           processes=True, preload=[str(preload)])  # fmt: skip
    with cluster, Client(cluster) as client:
        assert set(client.run(found).values()) == {None}
        report = ad.run(FILESET, "semivisible_jets", model=DATA / "ae_stored.onnx", cluster=client, output=tmp_path / "far",
                        chunksize=50, progress=False)  # fmt: skip
        assert all("coffea_ad.zip" in origin for origin in client.run(found).values())
    assert any("coffea_ad was sent to the workers; 1 of 1 lacked it" in note for note in report.notes)
    ad.run(
        FILESET,
        "semivisible_jets",
        model=DATA / "ae_stored.onnx",
        executor="iterative",
        output=tmp_path / "near",
        progress=False,
    )
    near, far = (ad.load_results(tmp_path / name).histograms for name in ("near", "far"))
    assert_identical(near, far)


def test_what_the_dry_run_writes_is_not_kept(tmp_path):
    report = ad.run(FILESET, "skim_jets", executor="iterative", chunksize=50, output=tmp_path, progress=False)
    assert report.complete
    assert len(list(tmp_path.rglob("*.parquet"))) == 3  # no file of the first hundred events


def test_branches_of_the_selection_are_checked_for_every_dataset(tmp_path):
    with pytest.raises(MissingBranch, match="svj_v15.root: the selection needs NoMET_pt, NoMET_phi"):
        ad.run(FILESET, "semivisible_jets", executor="iterative", overrides=["met=NoMET"], progress=False)


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_file_that_vanishes_after_it_was_opened_is_bad_and_nothing_else(monkeypatch, tolerant):
    def gone(file):
        raise FileNotFoundError("The specified key does not exist.")

    monkeypatch.setattr(first_files, "simulation_record", gone)
    check = {"notes": [], "tolerant": tolerant}
    if tolerant:
        assert preflight.check_files(FILESET, {}, **check) == ({}, {})
    else:
        with pytest.raises(BadFile, match=r"svj_v15.root: there is no such file"):
            preflight.check_files(FILESET, {}, **check)
