"""Skims that are larger than memory: the same rows, and the same training to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import DATA

import coffea_ad as ad
from coffea_ad.errors import SkimError
from coffea_ad.skims import rows as module
from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.rows import DenseRows, Rows, RowWriter, SparseRows


@pytest.fixture(scope="module")
def skims(tmp_path_factory):
    """Jets and events of two datasets, in several files."""
    folder = tmp_path_factory.mktemp("skims")
    fileset = {
        name: {"files": {str(DATA / f"{name}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": xsec}}
        for name, xsec in (("ttbar", 3.0), ("svj", 1.0))
    }
    ad.run(fileset, "skim_jets", executor="iterative", chunksize=70, output=folder / "jets")
    overrides = ["leading_lepton_pt_min=0", "features=[{name: rmm}, {name: dijet, options: {inputs: extended2}}]"]
    ad.run(fileset, "skim_events", overrides=overrides, executor="iterative", chunksize=30, output=folder / "events")
    return folder


CASES = {
    "dense": ("jets", "jet_substructure", {}, {}),
    "sparse": ("events", "rmm", {}, {}),
    "filtered": ("jets", "jet_substructure", {}, {"filters": [["met", ">", 60]], "weights": "flat_pt"}),
    "filtered sparse": ("events", "rmm", {}, {"filters": [["met", ">", 60], ["n_jets", ">=", 4]]}),
    "undefined": ("events", "dijet", {"inputs": "extended2"}, {"datasets": ["ttbar"], "weights": "none"}),
}


def both(skims, tmp_path, case, **more):
    folder, feature, options, settings_ = CASES[case]
    arguments = (skims / folder, feature, options)
    return load_skim(*arguments, **settings_), load_skim(*arguments, **settings_, out_of_core=tmp_path / "rows", **more)


@pytest.mark.parametrize("case", CASES)
def test_rows_weights_splits_and_order_are_those_in_memory(skims, tmp_path, case, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7 * 1287)  # many blocks a file
    memory, disk = both(skims, tmp_path, case)
    assert isinstance(memory.x, np.ndarray)
    assert isinstance(disk.x, Rows)
    assert disk.x.shape == memory.x.shape
    assert len(disk.x) == len(memory.x) > 20
    np.testing.assert_array_equal(disk.x[:], memory.x)
    for name in ("weight", "dataset", "split"):
        np.testing.assert_array_equal(getattr(disk, name), getattr(memory, name))
    assert disk.spectators.keys() == memory.spectators.keys()
    for name, column in memory.spectators.items():
        np.testing.assert_array_equal(disk.spectators[name], column)
    assert disk.provenance == memory.provenance
    assert disk.feature == memory.feature
    for part in ("train", "validation"):
        np.testing.assert_array_equal(disk.splits(part).x[:], memory.splits(part).x)


def test_rows_read_like_an_array(skims, tmp_path):
    memory, disk = both(skims, tmp_path, "sparse")
    x, want = disk.x, memory.x
    rng = np.random.default_rng(1)
    mask, places = rng.random(len(want)) < 0.3, rng.integers(0, len(want), 50)
    for which in (slice(3, 17), slice(None, None, -2), slice(5, 5), places, mask, places[:0], 4, -1):
        got = x[which]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want[which])
    assert np.array_equal(np.asarray(x), want)
    assert np.array_equal(np.stack(list(x.select(places))), want[places])
    assert (x.ndim, x.dtype) == (2, np.float32)


def test_no_row_is_read_where_rows_are_only_chosen(skims, tmp_path, monkeypatch):
    _, disk = both(skims, tmp_path, "sparse")

    def read(*_):
        raise AssertionError("a row was read")

    monkeypatch.setattr(SparseRows, "rows", read)
    half = disk.splits("train", "test")
    half = half.select(half.weight > 0)
    assert half.x.shape[1:] == disk.x.shape[1:]
    assert 0 < len(half.x) < len(disk.x)
    with pytest.raises(AssertionError):
        half.x[:1]


def test_files_in_the_folder_are_mapped_and_replaced(skims, tmp_path):
    _, first = both(skims, tmp_path, "sparse")
    before = first.x[:]
    assert isinstance(first.x.store.value, np.memmap)
    assert sorted(p.name for p in (tmp_path / "rows").iterdir()) == ["rows.index", "rows.value"]
    _, second = both(skims, tmp_path, "filtered sparse")
    assert len(second.x) < len(first.x)
    np.testing.assert_array_equal(first.x[:], before)  # who still reads the old files keeps them
    _, dense = both(skims, tmp_path, "dense")
    assert isinstance(dense.x.store, DenseRows)
    assert isinstance(dense.x.store.values, np.memmap)


def test_sparse_rows_stay_sparse_in_memory_above_a_size(skims, monkeypatch):
    arguments = (skims / "events", "rmm")
    memory = load_skim(*arguments)
    assert isinstance(load_skim(*arguments, keep="auto").x, np.ndarray)  # small
    monkeypatch.setattr(module, "_LARGE", 1000)
    kept = load_skim(*arguments, keep="auto")
    assert isinstance(kept.x, Rows)
    assert not isinstance(kept.x.store.value, np.memmap)
    np.testing.assert_array_equal(kept.x[:], memory.x)
    size = sum(a.nbytes for a in (kept.x.store.value, kept.x.store.index, kept.x.store.offsets))
    assert size < 0.3 * memory.x.nbytes
    assert isinstance(load_skim(*arguments).x, np.ndarray)  # only who asks gets it
    assert isinstance(load_skim(skims / "jets", "jet_substructure", keep="auto").x, np.ndarray)


def test_a_skim_without_any_defined_row_is_refused_alike(skims, tmp_path):
    for more in ({}, {"out_of_core": tmp_path / "rows"}):
        with pytest.raises(SkimError, match=r"none passes met > 1e\+09: met lies between"):
            load_skim(skims / "events", "rmm", filters=[["met", ">", 1e9]], **more)
    with pytest.raises(SkimError, match=r"the filter .* cannot be applied"):
        load_skim(skims / "events", "rmm", filters=[["no_such", ">", 1]], out_of_core=tmp_path / "rows")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 9), st.booleans())
def test_what_was_written_is_read(seed, n, size, sparse):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, size)) * (rng.random((n, size)) < 0.3)).astype(np.float32)
    writer = RowWriter((size,), sparse=sparse)
    for block in np.array_split(x, 3):
        row, column = np.nonzero(block)
        if sparse:
            writer.append(block[row, column], column, np.bincount(row, minlength=len(block)))
        else:
            writer.append(block)
    store = writer.finish()
    order = rng.permutation(n)
    np.testing.assert_array_equal(Rows(store, order)[:], x[order])
    places = rng.integers(0, n, 5) if n else np.zeros(0, int)
    np.testing.assert_array_equal(store.rows(places), x[places])


@pytest.mark.torch
@pytest.mark.parametrize("case", ["dense", "sparse"])
@pytest.mark.parametrize("kept", [True, False])
def test_training_gives_the_same_model_to_the_bit(skims, tmp_path, case, kept, monkeypatch):
    torch = pytest.importorskip("torch", reason="not installed: torch")
    import sys

    from coffea_ad import nn

    if not kept:  # as if they did not fit
        monkeypatch.setattr(sys.modules["coffea_ad.nn.training.batches"], "IN_MEMORY", 0)
    states, histories = [], []
    for data in both(skims, tmp_path, case):
        torch.manual_seed(1)
        columns = data.x.shape[1]
        transform = nn.QuantileNormal(columns) if case == "dense" else nn.Unchanged(columns)
        model = nn.AE(columns, hidden=(16,), latent=4, transform=transform)
        config = nn.TrainConfig(epochs=3, samples_per_epoch=256, batch_size=64, validation_rows=50)
        histories.append(nn.fit(model, data, config))
        states.append(model.state_dict())
    assert histories[0] == histories[1]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.torch
def test_a_checkpoint_in_memory_is_resumed_out_of_core(skims, tmp_path):
    torch = pytest.importorskip("torch", reason="not installed: torch")
    from coffea_ad import nn

    memory, disk = both(skims, tmp_path, "sparse")
    histories = []
    for name, data in (("whole", (memory, memory)), ("mixed", (memory, disk))):
        for epochs, part, resume in ((2, data[0], False), (4, data[1], True)):
            torch.manual_seed(1)
            model = nn.AE(1287, hidden=(16,), latent=4, transform=nn.Unchanged(1287))
            config = nn.TrainConfig(epochs=epochs, samples_per_epoch=128, batch_size=64, validation_rows=50)
            history = nn.fit(model, part, config, tmp_path / name, resume=resume)
        histories.append(history)
    assert histories[0] == histories[1]
