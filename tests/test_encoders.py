"""Encoders of sets: no order, no padding, nothing lost between torch and the runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_ad.scoring.batches import batches

torch = pytest.importorskip("torch", reason="not installed: torch", exc_type=ImportError)

from coffea_ad import nn
from coffea_ad.errors import ConfigError
from coffea_ad.features.base import Column
from coffea_ad.nn.self_supervised.encoder import PRESETS, in_buckets

JET, EVENT = ("pt", "deta", "dphi"), ("pt", "eta", "phi", "type")
TINY = {"width": 8, "heads": 2, "layers": 2, "feedforward": 8, "outputs": 6}


def sets(n=12, slots=10, seed=1):
    """Rows of jets with 0 to `slots` constituents by falling pT."""
    rng = np.random.default_rng(seed)
    filled = np.arange(slots) < rng.integers(0, slots + 1, n)[:, None]
    pt = -np.sort(-rng.exponential(20, (n, slots)) * filled, axis=1)
    x = np.stack([pt, *(rng.normal(0, 0.2, (2, n, slots)) * (pt > 0))], axis=2)
    return torch.from_numpy(x.astype(np.float32))


def encoder(seed=1, columns=JET, slots=10, tokens=None, **options):
    torch.manual_seed(seed)
    return nn.SetEncoder(slots, nn.Tokens(columns, **(tokens or {})), **{**TINY, **options}).eval()


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("pooling", ["sum", "mean", "pt"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_the_order_of_objects_changes_no_bit(pooling, scale, seed):
    x, e = sets(seed=seed), encoder(pooling=pooling, tokens={"scale": scale})
    order = torch.from_numpy(np.random.default_rng(seed).permuted(np.tile(np.arange(10), (12, 1)), axis=1))
    assert torch.equal(e(x), e(x.gather(1, order[:, :, None].expand_as(x))))


def test_objects_of_equal_momentum_are_told_apart_by_their_angles():
    x = sets()
    x[:, :, 0] = (x[:, :, 0] > 0) * 7.0
    assert torch.equal(encoder()(x), encoder()(x.flip(1)))


@pytest.mark.parametrize("pooling", ["sum", "mean", "pt"])
def test_empty_slots_change_nothing(pooling):
    x, e = sets(), encoder(pooling=pooling)
    n = int((x[:, :, 0] > 0).sum(dim=1).max())
    wide = torch.cat([x, torch.zeros(12, 5, 3)], dim=1)
    torch.testing.assert_close(e(wide), e(x), rtol=0, atol=2e-6)
    torch.testing.assert_close(e(x[:, :n]), e(x), rtol=0, atol=2e-6)


def test_a_set_without_objects_is_defined():
    e = encoder()
    assert torch.equal(e.h(torch.zeros(2, 10, 3)), torch.zeros(2, 8))
    assert torch.isfinite(e.z(torch.zeros(2, 10, 3))).all()


@given(groups=st.integers(1, 6), n=st.integers(1, 80), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_rows_apart_by_their_number_of_objects_are_encoded_alike(groups, n, seed):
    x, e = sets(n=n, seed=seed), encoder()
    torch.testing.assert_close(in_buckets(e.z, x, groups), e.z(x), rtol=0, atol=2e-6)


@given(eta=st.floats(-2, 2), phi=st.floats(-4, 4), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_a_centred_jet_may_lie_anywhere(eta, phi, seed):
    x, e = sets(seed=seed), encoder()
    moved = x.clone()
    real = x[:, :, 0] > 0
    moved[:, :, 1] += eta * real
    moved[:, :, 2] = torch.remainder(x[:, :, 2] + phi + np.pi, 2 * np.pi).sub(np.pi) * real
    torch.testing.assert_close(e(moved), e(x), rtol=0, atol=1e-4)
    fixed = encoder(tokens={"centre": False})
    assert abs(eta) < 0.01 or not torch.allclose(fixed(moved), fixed(x), atol=1e-4)


def test_pooling_by_momentum_is_safe_against_soft_objects():
    x = sets()
    soft = x.clone()
    soft[:, -1] = torch.tensor([1e-6, 0.3, -0.2])
    filled = (x[:, 0, 0] > 0) & (x[:, -1, 0] == 0)
    safe, plain = encoder(pooling="pt"), encoder(pooling="sum")
    torch.testing.assert_close(safe(soft)[filled], safe(x)[filled], rtol=0, atol=1e-4)
    assert (plain(soft)[filled] - plain(x)[filled]).abs().max() > 1e-2


def test_the_softest_objects_are_left_out_beyond_the_size():
    x = sets()
    assert torch.equal(encoder(tokens={"size": 4})(x.flip(1)), encoder(tokens={"size": 4})(x[:, :4]))


def test_layers_do_not_start_alike():
    blocks = encoder().blocks
    assert not torch.equal(blocks[0].attend.weight, blocks[1].attend.weight)


def test_presets_have_the_sizes_that_were_published():
    e = nn.SetEncoder(50, nn.Tokens(JET), norm_first=False, **PRESETS["darkclr"])
    assert (e.width, e.outputs, len(e.blocks)) == (128, 512, 4)
    n = sum(p.numel() for p in e.parameters())
    assert n == 1_122_304  # as counted of the authors' code


def test_kinds_and_angles_of_event_objects_are_tokens():
    objects = nn.Tokens(EVENT)(torch.tensor([[[30.0, 0, 0.0, 1], [60.0, 2.0, np.pi / 2, 4], [0.0, 0, 0, 0]]]))
    expected = [[0.2, 0.5, 1, 0, 0, 0, 0, 1], [0.1, 0, 0, 1, 1, 0, 0, 0], [0] * 8]
    torch.testing.assert_close(objects.tokens[0], torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)
    assert objects.occupied.tolist() == [[1, 1, 0]]
    torch.testing.assert_close(objects.share, torch.tensor([[2, 1, 0]]) / 3)


@pytest.mark.parametrize(
    ("columns", "match"),
    [(["eta", "phi"], "needs pt"), (["pt", "energy"], "may have"), (["pt", "deta"], None)],
)
def test_columns_that_cannot_be_scaled_are_named(columns, match):
    if match is None:
        assert nn.Tokens(columns).width == 2
        return
    with pytest.raises(ConfigError, match=match):
        nn.Tokens(columns)


def test_a_scaled_azimuth_is_refused():
    with pytest.raises(ConfigError, match="options.scaling=none"):
        nn.Tokens.of([Column("pt", "GeV"), Column("eta"), Column("phi", "")])


def test_an_encoder_gives_h_or_z_with_the_same_weights():
    e = encoder()
    other = e.giving("z")
    assert (e.features, other.features) == (8, 6)
    assert torch.equal(other(sets()), e.z(sets()))
    assert e.space == "h"


@pytest.mark.parametrize("wrong", [{"width": 9}, {"pooling": "max"}, {"space": "y"}])
def test_a_wrong_encoder_is_refused(wrong):
    with pytest.raises(ConfigError, match="encoder"):
        encoder(**wrong)


@given(
    n=st.integers(0, 40), size=st.integers(1, 50), slots=st.integers(1, 6), vary=st.booleans(), seed=st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_batches_hold_every_row_once_and_all_of_its_objects(n, size, slots, vary, seed):
    x = sets(n, max(slots, 2), seed).numpy()
    back = np.full_like(x, np.nan)
    for places, part in batches({"x": x}, size, slots_vary=vary):
        length = part["x"].shape[1]
        assert np.isnan(back[places]).all()
        back[places] = 0
        back[places, :length] = part["x"]
    np.testing.assert_array_equal(back, x)


def test_batches_of_sets_have_no_slots_that_no_row_needs():
    x = sets(300, 10).numpy()
    needed = (x[:, :, 0] > 0).sum(axis=1)
    parts = list(batches({"x": x}, 1024, slots_vary=True))
    assert [part["x"].shape[1] for _, part in parts] == [max(2, needed[places].max()) for places, _ in parts]
    assert len({part["x"].shape[1] for _, part in parts}) > 1
