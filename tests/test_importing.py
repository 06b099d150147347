"""Public benchmark files as small files of the same layout, written here."""

from __future__ import annotations

import json
import math

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_ad import cli
from coffea_ad.errors import ConfigError, SkimError, UnknownName
from coffea_ad.features.kitchen_sink import KITCHEN_SINK, kitchen_sink
from coffea_ad.features.spec import FeatureSpec
from coffea_ad.features.substructure import Conventions
from coffea_ad.skims import load_skim
from coffea_ad.skims.files import SKIM_KEY
from coffea_ad.skims.importing import FORMATS, skim_from

DIJET = {"R0": 1.0}
COLUMNS = [f"{k}j{j}" for j in (1, 2) for k in ("px", "py", "pz", "m", "tau1", "tau2", "tau3")]


def write_frame(path, columns, *blocks, group="df"):
    """A table as pandas writes it with format="fixed": names of all columns, and blocks of one type each."""
    h5py = pytest.importorskip("h5py", reason="not installed: h5py")
    with h5py.File(path, "w") as file:
        g = file.create_group(group)
        g.attrs["pandas_type"] = np.bytes_(b"frame")
        g["axis0"] = np.array(columns, np.bytes_ if isinstance(columns[0], str) else np.int64)
        g["axis1"] = np.arange(len(blocks[0][1]))
        for i, (names, values) in enumerate(blocks):
            g[f"block{i}_items"] = np.array(names, np.bytes_ if isinstance(names[0], str) else np.int64)
            g.create_dataset(f"block{i}_values", data=values, compression="gzip")
    return path


def two_jets(n, seed=1):
    """px … τ3 of two jets in the order of `COLUMNS`, (n, 14); some of them too soft or too far forward."""
    rng = np.random.default_rng(seed)
    pt, eta, phi = rng.uniform(150, 2000, (n, 2)), rng.normal(0, 1.2, (n, 2)), rng.uniform(-3, 3, (n, 2))
    tau = np.cumsum(rng.uniform(0.01, 0.1, (n, 2, 3)), axis=2)[:, :, ::-1]
    jets = np.concatenate(
        [np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), rng.uniform(10, 600, (n, 2))], axis=2), tau],
        2,
    )
    return jets.reshape(n, 14), pt, eta, phi


def lhco_file(path, n=60, *, label=True, seed=1):
    table, *rest = two_jets(n, seed)
    truth = np.arange(n) % 3 == 0
    if label:
        blocks = [(COLUMNS, table), (["label"], truth.astype(np.int64)[:, None])]
        return write_frame(path, [*COLUMNS, "label"], *blocks), table, truth, rest
    return write_frame(path, COLUMNS, (COLUMNS, table)), table, truth, rest


def read(folder, *feature, **options):
    """A skim with its rows in the order of the file; and where in the file they were."""
    skim = load_skim(folder, *feature, **options)
    order = np.argsort(skim.spectators["event"])
    return skim.select(order), skim.spectators["event"][order].astype(int) - 1


def rows_of(skim):
    return dict(zip([c.name for c in skim.features[0].columns], skim.x.T, strict=True))


# ---- features of the LHC Olympics


def test_features_of_the_olympics_become_the_dijet(tmp_path):
    path, table, truth, (pt, eta, _) = lhco_file(tmp_path / "features.h5")
    made = skim_from([path], "lhco", tmp_path / "skims")
    skim, event = read(tmp_path / "skims", "dijet", DIJET)
    defined = ((pt > 200) & (np.abs(eta) < 2.5)).all(axis=1)
    assert 10 < defined.sum() < 60
    np.testing.assert_array_equal(event, np.flatnonzero(defined))
    assert (skim.dataset == np.where(truth, "signal", "background")[event]).all()
    assert skim.provenance["signals"] == ["signal"]
    assert {k: v["undefined"] for k, v in made.items()} == {
        name: int((~defined & (truth == (name == "signal"))).sum()) for name in made
    }
    values = rows_of(skim)
    for i, row in enumerate(event):
        one, two = table[row].reshape(2, 7)
        energy = sum(math.sqrt(sum(p * p for p in jet[:4])) for jet in (one, two))
        momentum = one[:3] + two[:3]
        assert values["mjj"][i] == pytest.approx(math.sqrt(energy**2 - momentum @ momentum), rel=1e-6)
        light, heavy = sorted((one, two), key=lambda jet: jet[3])
        assert values["mj1"][i] == pytest.approx(light[3], rel=1e-6)
        assert values["delta_mj"][i] == pytest.approx(heavy[3] - light[3], rel=1e-5, abs=1e-3)
        assert values["tau21_j1"][i] == pytest.approx(light[5] / (light[4] + 1e-5), rel=1e-6)
        assert values["tau21_j2"][i] == pytest.approx(heavy[5] / (heavy[4] + 1e-5), rel=1e-6)


def test_options_of_the_feature_are_those_that_are_asked_for(tmp_path):
    path, _, _, (_, eta, phi) = lhco_file(tmp_path / "features.h5")
    options = {"delta_r": True, "jet_pt_min": 0.0, "jet_eta_max": 9.0, "shift": 0.1}
    skim_from([path], "lhco", tmp_path / "a", options=options)
    values = rows_of(read(tmp_path / "a", "dijet", {**DIJET, **options})[0])
    dphi = np.abs(np.arctan2(np.sin(phi[:, 0] - phi[:, 1]), np.cos(phi[:, 0] - phi[:, 1])))
    np.testing.assert_allclose(values["delta_r"], np.hypot(eta[:, 0] - eta[:, 1], dphi), rtol=1e-6)
    skim_from([path], "lhco", tmp_path / "b", options={**options, "shift": 0.0})
    plain = rows_of(read(tmp_path / "b", "dijet", {**DIJET, **options, "shift": 0.0})[0])
    np.testing.assert_allclose(values["mj1"], plain["mj1"] + 0.1 * plain["mjj"], rtol=1e-6)
    with pytest.raises(SkimError, match="dijet"):
        load_skim(tmp_path / "a", "dijet")  # R = 0.8 is another input


def test_a_file_without_labels_is_named_after_itself_or_as_asked(tmp_path):
    path, *_ = lhco_file(tmp_path / "black box 1.h5", label=False)
    assert set(skim_from([path], "lhco", tmp_path / "a")) == {"black_box_1"}
    made = skim_from([path], "lhco", tmp_path / "b", dataset="box", signals=["box"])
    assert made["box"]["is_signal"]
    assert load_skim(tmp_path / "b", "dijet", DIJET).provenance["signals"] == ["box"]


def test_events_of_several_files_are_numbered_through_and_count_alike(tmp_path):
    paths = [lhco_file(tmp_path / f"{k}.h5", n, seed=k)[0] for k, n in ((1, 50), (2, 31))]
    everything = {"jet_pt_min": 0.0, "jet_eta_max": 99.0}
    made = skim_from(paths, "lhco", tmp_path / "s", options=everything)
    skim = load_skim(tmp_path / "s", "dijet", {**DIJET, **everything})
    assert sorted(skim.spectators["event"].tolist()) == list(range(1, 82))
    assert sum(facts["events"] for facts in made.values()) == 81
    np.testing.assert_allclose(skim.event_weight, 1.0)
    assert {"train", "validation", "test"} >= set(np.unique(skim.split).tolist())
    first = skim_from(paths, "lhco", tmp_path / "f", options=everything, events=20)
    assert sum(facts["events"] for facts in first.values()) == 40


def test_a_skim_says_where_it_comes_from(tmp_path):
    import hashlib

    path, *_ = lhco_file(tmp_path / "x.h5")
    skim_from([path], "lhco", tmp_path / "s")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())["datasets"]["signal"]
    assert manifest["config"]["sources"] == [{"file": str(path), "sha256": digest, "events": 60}]
    (name,) = manifest["files"]
    record = json.loads(pq.read_schema(tmp_path / "s" / name).metadata[SKIM_KEY])
    assert (record["filename"], record["sha256"], record["format"]) == (str(path), digest, "lhco")
    (key,) = record["features"]
    stored = record["features"][key]
    columns = [{"name": c} for c in stored["columns"]]
    FeatureSpec(name="dijet", version=stored["version"], options=stored["options"], columns=columns).check()
    assert key == "dijet[R0=1.0]"


def test_what_replaces_a_skim_leaves_nothing_of_it(tmp_path):
    one, *_ = lhco_file(tmp_path / "one.h5", label=False)
    two, *_ = lhco_file(tmp_path / "two.h5", label=False)
    skim_from([one], "lhco", tmp_path / "s")
    skim_from([two], "lhco", tmp_path / "s")
    assert set(load_skim(tmp_path / "s", "dijet", DIJET).dataset.tolist()) == {"two"}


# ---- arrays of CATHODE


def test_arrays_of_cathode_are_in_tev(tmp_path):
    rows = np.array([[3.4, 0.1, 0.4, 0.5, 0.6, 1.0], [3.6, 0.2, 0.3, 0.7, 0.8, 0.0]])
    np.save(tmp_path / "a.npy", rows)
    made = skim_from([tmp_path / "a.npy"], "lhco-npy", tmp_path / "s")
    assert {name: facts["events"] for name, facts in made.items()} == {"background": 1, "signal": 1}
    skim, _ = read(tmp_path / "s", "dijet", DIJET)
    np.testing.assert_allclose(skim.x, [[3400, 100, 400, 0.5, 0.6], [3600, 200, 300, 0.7, 0.8]], rtol=1e-6)
    assert skim.dataset.tolist() == ["signal", "background"]


@pytest.mark.real
def test_a_skim_in_a_relative_folder_is_read_from_anywhere(tmp_path, monkeypatch):
    rows = np.column_stack([np.linspace(3.3, 3.6, 40), np.full((40, 2), 0.1), np.full((40, 2), 0.5), np.arange(40) % 2])
    np.save(tmp_path / "inner.npy", rows)
    monkeypatch.chdir(tmp_path)
    skim_from(["inner.npy"], "lhco-npy", "skims")
    assert len(load_skim("skims", "dijet", {"R0": 1.0}).x) == 40
    monkeypatch.chdir("/")
    assert len(load_skim(tmp_path / "skims", "dijet", {"R0": 1.0}).x) == 40


def test_real_events_of_the_olympics_have_their_masses(tmp_path):
    from toys import DATA

    folder = DATA.parents[1].parent / "shared" / "data" / "lhco_cathode_features"
    if not folder.exists():
        pytest.skip("the arrays of CATHODE are not there")
    skim_from([folder / "innerdata_test.npy"], "lhco-npy", tmp_path / "s")
    skim = load_skim(tmp_path / "s", "dijet", DIJET)
    values, signal = rows_of(skim), skim.dataset == "signal"
    assert (signal.sum(), (~signal).sum()) == (20000, 40000)
    assert np.median(values["mj1"][signal]) == pytest.approx(105, abs=20)
    assert np.median(values["mjj"][signal]) == pytest.approx(3500, abs=50)
    assert ((values["mjj"] > 3299) & (values["mjj"] < 3701)).all()


# ---- particles of the LHC Olympics


def particles(n, seed=1):
    """Two jets of 25 massless particles far apart, filled up with zeros, (n, 700, 3)."""
    rng = np.random.default_rng(seed)
    out = np.zeros((n, 700, 3))
    for j, (eta, phi) in enumerate(((0.4, 3.0), (-0.3, -0.2))):
        jet = out[:, 25 * j : 25 * (j + 1)]
        jet[..., 0] = rng.exponential(40, (n, 25)) + 2
        jet[..., 1] = eta + rng.normal(0, 0.12, (n, 25))
        azimuth = phi + rng.normal(0, 0.12, (n, 25))
        jet[..., 2] = np.arctan2(np.sin(azimuth), np.cos(azimuth))
    return out


def raw_file(path, x, label=None):
    flat = x.reshape(len(x), 2100) if label is None else np.c_[x.reshape(len(x), 2100), label]
    columns = list(range(flat.shape[1]))
    return write_frame(path, columns, (columns, flat))


@pytest.mark.simulate
def test_particles_are_clustered_and_measured_by_our_kernels(tmp_path):
    pytest.importorskip("fastjet", reason="not installed: fastjet")
    x = particles(30)
    x[7] = 0.0  # an event without particles
    x[8, 25:] = 0.0  # and one with a single jet
    shuffled = x[:, np.random.default_rng(2).permutation(700)]
    path = raw_file(tmp_path / "raw.h5", shuffled, np.arange(30) % 2)
    made = skim_from([path], "lhco-raw", tmp_path / "s", options={"inputs": "kitchen_sink"})
    assert {name: (f["events"], f["undefined"]) for name, f in made.items()} == {
        "background": (15, 1), "signal": (15, 1),
    }  # fmt: skip
    skim, event = read(tmp_path / "s", "dijet", {**DIJET, "inputs": "kitchen_sink"})
    values = rows_of(skim)
    assert event.tolist() == [i for i in range(30) if i not in (7, 8)]
    for k, i in enumerate(event):
        jets = []
        for part in (x[i, :25], x[i, 25:50]):
            pt, eta, phi = part.T
            px, py, pz, e = (
                np.sum(a) for a in (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
            )
            sink = kitchen_sink([0, 25], pt, eta, phi, np.zeros(25), Conventions(R0=1.0))[0]
            jets.append((math.sqrt(e * e - px * px - py * py - pz * pz), sink))
        jets.sort(key=lambda jet: jet[0])
        assert values["mj1"][k] == pytest.approx(jets[0][0], rel=1e-5)
        assert values["delta_mj"][k] == pytest.approx(jets[1][0] - jets[0][0], rel=1e-4, abs=1e-2)
        for j in (1, 2):
            got = np.array([values[f"{name}_j{j}"][k] for name in KITCHEN_SINK])
            np.testing.assert_allclose(got, jets[j - 1][1], rtol=2e-5, atol=1e-6)


@pytest.mark.simulate
def test_soft_drop_masses_of_clustered_jets_order_them(tmp_path):
    pytest.importorskip("fastjet", reason="not installed: fastjet")
    path = raw_file(tmp_path / "raw.h5", particles(20))
    made = skim_from([path], "lhco-raw", tmp_path / "s", options={"mass": "msoftdrop"})
    assert set(made) == {"raw"}
    soft = rows_of(read(tmp_path / "s", "dijet", {**DIJET, "mass": "msoftdrop"})[0])
    skim_from([path], "lhco-raw", tmp_path / "p")
    plain = rows_of(read(tmp_path / "p", "dijet", DIJET)[0])
    np.testing.assert_array_equal(soft["mjj"], plain["mjj"])
    assert (soft["mj1"] <= plain["mj1"] * (1 + 1e-6)).all()
    assert (soft["mj1"] < 0.99 * plain["mj1"]).any()
    assert (soft["delta_mj"] >= 0).all()


# ---- tables of objects


LINE = "{event};{process};{weight};112288;1.5;b,331927,147558,-1.45,-1.75;j,101406,85589,-0.57,-1.17;e-,52000,50000,0.3,0.2;m+,70000,60000,-0.5,1;g,9e4,8e4,0,0"


def test_objects_of_dark_machines_are_ordered_and_in_gev(tmp_path):
    lines = [
        LINE.format(event=k, process=p, weight=w)
        for k, (p, w) in enumerate([("ttbar", 0.5), ("stop_01", 2), ("ttbar", 1.5)])
    ]
    (tmp_path / "chan1.csv").write_text("\n".join(lines) + ";\n\n")
    made = skim_from([tmp_path / "chan1.csv"], "darkmachines", tmp_path / "s", signals=["stop_01"])
    assert {name: (f["events"], f["sumw"], f["is_signal"]) for name, f in made.items()} == {
        "ttbar": (2, 2.0, False), "stop_01": (1, 2.0, True)
    }  # fmt: skip
    skim, _ = read(tmp_path / "s", "event_objects", {"leading_lepton_pt_min": 0.0})
    assert skim.event_weight.tolist() == [0.5, 2.0, 1.5]
    x = skim.x[0]
    np.testing.assert_allclose(x[0], [112.288, 0, 1.5 / np.pi, 1], rtol=1e-6)
    np.testing.assert_allclose(x[1], [50, 0.1, 0.2 / np.pi, 2], rtol=1e-6)
    np.testing.assert_allclose(x[5], [60, -0.5 / 2.1, 1 / np.pi, 3], rtol=1e-6)
    np.testing.assert_allclose(x[9], [147.558, -1.45 / 4, -1.75 / np.pi, 4], rtol=1e-6)
    np.testing.assert_allclose(x[10], [85.589, -0.57 / 4, -1.17 / np.pi, 4], rtol=1e-6)
    assert (x[[2, 3, 4, 6, 7, 8, *range(11, 19)]] == 0).all()


def test_the_process_may_stand_before_the_event(tmp_path):
    (tmp_path / "a.csv").write_text(LINE.format(event="ttbar", process=17, weight=1) + "\n")
    assert set(skim_from([tmp_path / "a.csv"], "darkmachines", tmp_path / "s")) == {"ttbar"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1;ttbar;1", "line 2 is not"),
        ("1;ttbar;x;3;4;j,1,2,3,4", "line 2 is not"),
        ("1;ttbar;1;3;4;j,1,2,3", "line 2 is not"),
        ("1;ttbar;1;3;4;tau,1,2,3,4", "line 2: an object is 'tau', but must be one of e-"),
        ("1;../x;1;3;4;j,1,2,3,4", "line 2: its process '../x' cannot name a dataset"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, message):
    (tmp_path / "a.csv").write_text(LINE.format(event=1, process="ttbar", weight=1) + "\n" + line + "\n")
    with pytest.raises(SkimError, match=rf"a\.csv: {message}"):
        skim_from([tmp_path / "a.csv"], "darkmachines", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def adc_rows(n, seed=3):
    """(n, 19, 4) as ADC 2021 has them: MET, 4 electrons, 4 muons, 10 jets by falling pT, zeros after the last."""
    rng = np.random.default_rng(seed)
    out = np.zeros((n, 19, 4))
    out[:, 0] = np.stack([rng.uniform(5, 100, n), np.zeros(n), rng.uniform(-3, 3, n), np.ones(n)], 1)
    for first, slots, kind, eta_max in ((1, 4, 2, 2.9), (5, 4, 3, 2.0), (9, 10, 4, 3.9)):
        for i in range(n):
            k = rng.integers(0, slots + 1)
            pt = np.sort(rng.uniform(25, 200, k))[::-1]
            out[i, first : first + k] = np.stack(
                [pt, rng.uniform(-eta_max, eta_max, k), rng.uniform(-3, 3, k), np.full(k, kind)], 1
            )
    return out


def adc_file(path, rows):
    h5py = pytest.importorskip("h5py", reason="not installed: h5py")
    with h5py.File(path, "w") as file:
        file["Particles"] = rows
        file["Particles_Names"] = np.array([b"Pt", b"Eta", b"Phi", b"Class"])
    return path


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_table_of_adc_comes_back(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("adc")
    rows = adc_rows(20, seed)
    path = adc_file(folder / "Ato4l.h5", rows)
    options = {"scaling": "none", "leading_lepton_pt_min": 0.0}
    made = skim_from([path], "adc2021", folder / "s", options=options, signals=["Ato4l"])
    assert list(made) == ["Ato4l"]
    skim, _ = read(folder / "s", "event_objects", options)
    np.testing.assert_allclose(skim.x, rows.astype(np.float32), rtol=1e-6)


def test_events_of_adc_without_a_lepton_are_undefined_by_default(tmp_path):
    rows = adc_rows(40)
    made = skim_from([adc_file(tmp_path / "bg.h5", rows)], "adc2021", tmp_path / "s")
    without = (rows[:, 1:9, 0].max(axis=1) < 23).sum()
    assert 0 < made["bg"]["undefined"] == without
    assert len(load_skim(tmp_path / "s", "event_objects").x) == 40 - without


# ---- wrong files, one sentence each


def test_files_of_another_kind_are_refused_by_name(tmp_path):
    path, table, _, _ = lhco_file(tmp_path / "x.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    renamed = write_frame(tmp_path / "renamed.h5", ["a", *COLUMNS[1:]], (["a", *COLUMNS[1:]], table))
    labels = write_frame(
        tmp_path / "labels.h5", [*COLUMNS, "label"], ([*COLUMNS, "label"], np.c_[table, np.full(60, 2.0)])
    )
    np.save(tmp_path / "wide.npy", np.ones((3, 9)))
    np.save(tmp_path / "gev.npy", np.full((3, 6), 3500.0))
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "archive.npz", np.ones(3))
    types = adc_rows(3)
    types[1, 2, 3] = 4
    for file, form, message in (
        (tmp_path / "text.h5", "lhco", r"text\.h5: not a readable HDF5 file"),
        (
            renamed,
            "lhco",
            r"renamed\.h5: it has no column pxj1, as features of the LHC Olympics have; its columns are a, pyj1",
        ),
        (labels, "lhco", r"labels\.h5: its labels must be 0 for background or 1 for signal, but one is 2"),
        (path, "lhco-raw", r"x\.h5: it has 15 columns, but must have 2100"),
        (path, "adc2021", r"x\.h5: its array Particles is not there, but must be \(n, 19, 4\)"),
        (path, "lhco-npy", r"x\.h5: not a readable \.npy file"),
        (tmp_path / "wide.npy", "lhco-npy", r"wide\.npy: its array is \(3, 9\), but must be \(n, 6\)"),
        (tmp_path / "gev.npy", "lhco-npy", r"gev\.npy: its m_JJ is 3500 in the median, but must be in TeV"),
        (tmp_path / "object.npy", "lhco-npy", r"object\.npy: not a readable \.npy file"),
        (tmp_path / "archive.npz", "lhco-npy", r"archive\.npz: its array is of an archive"),
        (adc_file(tmp_path / "types.h5", types), "adc2021", r"types\.h5: row 2 of an event has type 4, but must be 2"),
        (adc_file(tmp_path / "flat.h5", types[0]), "adc2021", r"its array Particles is \(19, 4\)"),
        (tmp_path / "absent.h5", "lhco", r"absent\.h5: there is no such file"),
    ):
        with pytest.raises(SkimError, match=message):
            skim_from([file], form, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_pandas_tables_in_another_layout_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="not installed: h5py")
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["df/table"] = np.zeros(3)
        file.create_group("df/_i_table")
    with pytest.raises(SkimError, match=r"table\.h5: this is a table in pandas' layout 'table', which needs pytables"):
        skim_from([tmp_path / "table.h5"], "lhco", tmp_path / "s")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        for name in ("a", "b"):
            file[f"{name}/axis0"], file[f"{name}/block0_values"] = np.array([b"x"]), np.zeros((2, 1))
    with pytest.raises(SkimError, match="2 tables in pandas' fixed layout are in it, but one is needed"):
        skim_from([tmp_path / "two.h5"], "lhco", tmp_path / "s")


def test_wrong_words_are_refused_before_anything_is_read(tmp_path):
    absent = [tmp_path / "absent"]
    with pytest.raises(UnknownName, match="did you mean 'lhco-raw'"):
        skim_from(absent, "lhco_raw", tmp_path)
    with pytest.raises(ConfigError, match="unknown option 'R'"):
        skim_from(absent, "lhco", tmp_path, options={"R": 1.0})
    with pytest.raises(ConfigError, match="no files"):
        skim_from([], "lhco", tmp_path)
    with pytest.raises(ConfigError, match="events is 0"):
        skim_from(absent, "lhco", tmp_path, events=0)
    with pytest.raises(ConfigError, match="dataset 'a/b'"):
        skim_from(absent, "lhco", tmp_path, dataset="a/b")
    np.save(tmp_path / "a.npy", np.array([[3.4, 0.1, 0.4, 0.5, 0.6, 1.0]]))
    for options, message in (
        ({"inputs": "extended1"}, "inputs=baseline"),
        ({"delta_r": True}, "no directions of jets"),
    ):
        with pytest.raises(ConfigError, match=message):
            skim_from([tmp_path / "a.npy"], "lhco-npy", tmp_path / "s", options=options)
    with pytest.raises(UnknownName, match="unknown dataset 'signl'; did you mean 'signal'"):
        skim_from([tmp_path / "a.npy"], "lhco-npy", tmp_path / "s", signals=["signl"])
    np.save(tmp_path / "empty.npy", np.zeros((0, 6)))
    with pytest.raises(SkimError, match=r"empty\.npy: there are no events"):
        skim_from([tmp_path / "empty.npy"], "lhco-npy", tmp_path / "s")


# ---- the command line


def test_the_command_makes_a_skim_and_lists_the_formats(tmp_path, capsys):
    assert cli.main(["skim-from"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in FORMATS)
    np.save(tmp_path / "a.npy", np.array([[3.4, 0.1, 0.4, 0.5, 0.6, 1.0], [3.6, 0.2, 0.3, 0.7, 0.8, 0.0]]))
    words = ["skim-from", str(tmp_path / "a.npy"), "--format", "lhco-npy", "-o", str(tmp_path / "s")]
    assert cli.main([*words, "shift=0.1"]) == 0
    out = capsys.readouterr().out
    assert "background" in out
    assert read(tmp_path / "s", "dijet", {**DIJET, "shift": 0.1})[0].x[0, 1] == pytest.approx(440)
    assert cli.main(words) == 1
    assert "there are results in it already" in capsys.readouterr().err
    assert cli.main([*words, "--force"]) == 0
    assert read(tmp_path / "s", "dijet", DIJET)[0].x[0, 1] == pytest.approx(100)
    assert cli.main(words[:2]) == 1
    assert "needs --format and -o" in capsys.readouterr().err


def test_rows_of_the_feature_and_of_the_file_agree_for_simulated_jets(tmp_path):
    """The columns from plain jets are those that the feature computes from NanoAOD."""
    from toys import DATA, open_events

    import coffea_ad as ad

    events = open_events(DATA / "svj_v15.root")
    want = ad.features.compute("dijet", events, source="stored")[0]
    table = np.zeros((len(events), 14))
    two = ak.num(events.FatJet) >= 2
    for j in (0, 1):
        jets = events.FatJet[two][:, j]
        pt, eta, phi = (np.asarray(jets[k], np.float64) for k in ("pt", "eta", "phi"))
        columns = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), jets["mass"], jets["tau1"], jets["tau2"])
        for k, values in enumerate(columns):
            table[np.asarray(two), 7 * j + k] = np.asarray(values)
    path = write_frame(tmp_path / "svj.h5", COLUMNS, (COLUMNS, table))
    skim_from([path], "lhco", tmp_path / "s", options={"R0": 0.8, "source": "constituents"})
    skim, event = read(tmp_path / "s", "dijet")
    assert len(event) > 50
    np.testing.assert_allclose(skim.x, want[event], rtol=2e-5, atol=1e-3)
