"""Views of events: sums of momenta, caps, thresholds, acceptance, and what becomes of empty slots."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad.errors import ConfigError
from coffea_ad.nn.self_supervised import event_augmentations as events
from coffea_ad.nn.self_supervised.augmentations import chain, one_of, wrapped

few = settings(max_examples=8, deadline=None)
seeds, sizes = st.integers(0, 2**32 - 1), st.integers(0, 12)
each = pytest.mark.parametrize("name", sorted(events.AUGMENTATIONS))
SLOTS = torch.tensor([0] + 4 * [1] + 4 * [2] + 10 * [3])  # which kind
CAPS = {1: 4, 2: 4, 3: 10}
THRESHOLDS = torch.tensor([0.0, *events.THRESHOLDS], dtype=torch.float64)[SLOTS]
ACCEPTANCE = torch.tensor([0.0, *events.ACCEPTANCE], dtype=torch.float64)[SLOTS]
ADDING = {"multiplicity_shift", "multiplicity_shift_constant"}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def toy(seed, n=8, dtype=torch.float64, filled=None):
    """Events of random multiplicities, some without missing momentum or anything; a fifth column numbers objects."""
    generator = seeded(seed)
    number = torch.cat([torch.randint(0, cap + 1, (n, 1), generator=generator) for cap in (1, 4, 4, 10)], dim=1)
    number = torch.where(torch.rand(n, 1, generator=generator) < 0.15, 0, number)
    number = number if filled is None else torch.tensor(filled).expand(n, -1)
    rank = torch.tensor([0, *range(4), *range(4), *range(10)])
    mask = rank < number[:, SLOTS]
    draw = torch.rand(5, n, 19, generator=generator, dtype=torch.float64)
    pt = THRESHOLDS - 30 * draw[0].clamp_min(1e-6).log()
    for block in (slice(1, 5), slice(5, 9), slice(9, 19)):
        pt[:, block] = pt[:, block].sort(dim=1, descending=True).values
    eta, phi = ACCEPTANCE * (2 * draw[1] - 1), math.pi * (2 * draw[2] - 1)
    tag = torch.arange(1, 19 * n + 1).reshape(n, 19)
    return (torch.stack([pt, eta, phi, (SLOTS + 1).expand(n, -1), tag], dim=2) * mask[..., None]).to(dtype), mask


def view(name, x, mask, seed, **options):
    return events.AUGMENTATIONS[name](x, mask, seeded(seed), **options)


def momenta(x, slots=slice(None)):
    """Sums of px and py, (n, 2)."""
    pt, phi = x[:, slots, 0], x[:, slots, 2]
    return torch.stack([(pt * phi.cos()).sum(dim=1), (pt * phi.sin()).sum(dim=1)], dim=1)


def counts(mask):
    return torch.stack([mask[:, kind == SLOTS].sum(dim=1) for kind in range(4)], dim=1)


def by_tag(x, mask):
    return {int(row[4]): row for row in x[mask] if row[4] > 0}


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def assert_is_a_table_of_objects(x, mask, slack=1e-6):
    assert x.isfinite().all()
    assert torch.equal(mask, x[..., 0] > 0)
    assert (x[~mask] == 0).all()
    assert torch.equal(x[..., 3], ((SLOTS + 1) * mask).to(x.dtype))
    assert (x[..., 2].abs() <= math.pi + slack).all()
    for kind in CAPS:
        block = x[:, kind == SLOTS, 0]
        assert (block.diff(dim=1) <= 0).all()


# ---- what all have in common


@each
@few
@given(seeds, sizes)
def test_the_table_stays_one(name, seed, n):
    x, mask = toy(seed, n)
    before = x.clone(), mask.clone()
    y, filled = view(name, x, mask, seed)
    assert torch.equal(x, before[0])
    assert torch.equal(mask, before[1])
    assert y.shape == x.shape
    assert_is_a_table_of_objects(y, filled)
    assert not filled[~mask.any(dim=1)].any()  # nothing comes of nothing
    if name not in ADDING:
        assert (filled.sum(dim=1) <= mask.sum(dim=1)).all()


@each
@few
@given(seeds)
def test_the_same_generator_gives_the_same_bits(name, seed):
    x, mask = toy(seed, 30, torch.float32)
    one, two, other = (view(name, x, mask, s) for s in (seed, seed, seed + 1))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert one[0].dtype == torch.float32


@each
@few
@given(seeds)
def test_an_event_does_not_depend_on_the_others(name, seed):
    x, mask = toy(seed)
    y, filled = view(name, x, mask, seed)
    x, mask = x.clone(), mask.clone()
    x[3], mask[3] = 0, False
    z, others = view(name, x, mask, seed)
    rest = [i for i in range(8) if i != 3]
    assert torch.equal(z[rest], y[rest])
    assert torch.equal(others[rest], filled[rest])


@each
@few
@given(seeds)
def test_other_columns_go_along_with_their_object(name, seed):
    x, mask = toy(seed)
    y, filled = view(name, x, mask, seed)
    for i in range(8):
        tags = set(x[i][mask[i]][:, 4].tolist())
        assert set(y[i][filled[i]][:, 4].tolist()) <= tags | ({0.0} if name == "multiplicity_shift" else set())


@each
@pytest.mark.parametrize("file", ["ttbar_v15", "qcd_v15"])
def test_rows_of_the_feature_go_through(name, file):
    rows, _ = ad.features.compute(
        "event_objects", open_events(DATA / f"{file}.root"), scaling="none", leading_lepton_pt_min=0.0
    )
    x = torch.from_numpy(rows[np.isfinite(rows).all(axis=(1, 2))])
    mask = x[..., 0] > 0
    assert mask.sum() > 100
    assert_is_a_table_of_objects(x, mask, slack=2e-3)  # angles are stored with few bits
    assert_is_a_table_of_objects(*view(name, x, mask, 1), slack=2e-3)


@each
@pytest.mark.parametrize("shape", [(2, 18, 4), (2, 19, 3), (19, 4)])
def test_what_is_no_table_is_named(name, shape):
    with pytest.raises(ConfigError, match="19 slots"):
        view(name, torch.zeros(shape), torch.zeros(shape[:-1], dtype=torch.bool), 1)


# ---- views of the same physics


@few
@given(seeds)
def test_a_rotation_turns_all_objects_of_an_event_alike(seed):
    x, mask = toy(seed, 60)
    y, filled = view("rotation", x, mask, seed)
    assert torch.equal(filled, mask)
    assert torch.equal(y[..., [0, 1, 3, 4]], x[..., [0, 1, 3, 4]])
    close(momenta(y).norm(dim=1), momenta(x).norm(dim=1), 1e-9)
    angles = []
    for before, after, real in zip(x, y, mask, strict=True):
        turned = wrapped((after - before)[real][:, 2])
        if len(turned):
            close(wrapped(turned - turned[0]), torch.zeros_like(turned), 1e-9)
            angles.append(float(turned[0]))
    assert min(angles) < -1
    assert max(angles) > 1


@few
@given(seeds)
def test_soft_objects_are_smeared_and_hard_ones_and_missing_momentum_are_not(seed):
    x, mask = toy(seed, 40)
    y, filled = view("eta_phi_smear", x, mask, seed)
    before, after = by_tag(x, mask), by_tag(y, filled)
    assert torch.equal(y[:, 0], x[:, 0])
    for tag, row in after.items():
        assert torch.equal(row[[0, 3]], before[tag][[0, 3]])
        if row[0] > 30:
            close(row, before[tag])
    gone = before.keys() - after.keys()
    assert all(before[tag][0] < 30 and before[tag][1].abs() > ACCEPTANCE[(tag - 1) % 19] - 0.2 for tag in gone)


def test_the_width_of_the_smearing_and_its_end_at_25_gev():
    x, mask = toy(1, 3000, filled=(1, 4, 4, 10))
    x[..., 0] = torch.where(SLOTS > 0, 20.0, 50.0)
    x[..., 1] = 0.0
    x[..., 2] = 3.14
    y, filled = view("eta_phi_smear", x, mask, 1)
    assert filled.all()
    moved = torch.stack([y[:, 1:, 1], wrapped(y[:, 1:, 2] - 3.14)])
    assert moved[0].std().item() == pytest.approx(0.028, rel=0.02)
    assert moved[1].std().item() == pytest.approx(0.028, rel=0.02)
    assert (moved.abs() < 0.028 * 6).all()  # an angle beyond π comes out at −π, one turn away, not half of one
    assert (y[:, 1:, 2] < 0).double().mean() > 0.2
    x[..., 0] = 25.0
    half = view("eta_phi_smear", x, mask, 1, strength=2.0)[0][:, 1:, 1].std().item()
    assert half == pytest.approx(0.028, rel=0.02)


@pytest.mark.parametrize(("kind", "edge"), [(1, 3.0), (2, 2.1), (3, 4.0)])
def test_what_is_smeared_out_of_the_acceptance_of_its_kind_is_gone(kind, edge):
    x, mask = toy(1, 500, filled=(1, 4, 4, 10))
    x[..., 1] = torch.where(kind == SLOTS, edge - 1e-4, 0.0)
    x[..., 0] = 20.0
    y, filled = view("eta_phi_smear", x, mask, 1)
    survived = counts(filled).sum(dim=0) / counts(mask).sum(dim=0)
    assert survived[kind].item() == pytest.approx(0.5, abs=0.05)
    assert (survived[[k for k in range(4) if k != kind]] == 1).all()
    assert (y[..., 1].abs() <= edge).all()
    wide = [5.0, 5.0, 5.0]
    assert view("eta_phi_smear", x, mask, 1, acceptance=wide)[1].all()


@pytest.mark.parametrize("pt", [30.0, 200.0])
def test_jets_are_smeared_by_their_resolution_and_nothing_else_is(pt):
    x, mask = toy(1, 4000, filled=(1, 4, 4, 10))
    x[:, 9:, 0] = pt
    y, filled = view("energy_smear", x, mask, 1, strength=0.5)
    assert filled.all()
    assert torch.equal(y[:, :9], x[:, :9])
    change = y[:, 9:, 0] - pt
    assert change.mean().item() == pytest.approx(0, abs=0.01 * pt)
    assert change.std().item() == pytest.approx(0.5 * math.sqrt(0.052 * pt**2 + 1.502 * pt), rel=0.02)


def test_jets_that_are_smeared_below_zero_are_gone():
    x, mask = toy(1, 1000, filled=(1, 4, 4, 10))
    x[:, 9:, 0] = 0.5
    y, filled = view("energy_smear", x, mask, 1)
    assert_is_a_table_of_objects(y, filled)
    assert 0.1 < (~filled[:, 9:]).double().mean() < 0.4


# ---- anomalous views


@few
@given(seeds)
def test_missing_momentum_takes_the_recoil_of_new_objects_in_size_and_angle(seed):
    x, mask = toy(seed, 40)
    y, filled = view("multiplicity_shift", x, mask, seed)
    close(momenta(y), momenta(x), 1e-9)
    new = (y[..., 4] == 0) & filled
    new[:, 0] = False
    expected = momenta(x, slice(0, 1)) - momenta(torch.where(new[..., None], y, 0.0))
    close(momenta(y, slice(0, 1)), expected, 1e-9)
    untouched = ~new.any(dim=1)
    assert torch.equal(y[untouched], x[untouched])


@few
@given(seeds)
def test_new_objects_are_within_caps_thresholds_and_acceptance(seed):
    x, mask = toy(seed, 40)
    y, filled = view("multiplicity_shift", x, mask, seed)
    before, after = by_tag(x[:, 1:], mask[:, 1:]), by_tag(y[:, 1:], filled[:, 1:])
    assert before.keys() == after.keys()
    assert all(torch.equal(after[tag], row) for tag, row in before.items())
    new = (y[..., 4] == 0) & filled
    new[:, 0] = False
    most = torch.maximum(x[..., 0].amax(dim=1, keepdim=True), THRESHOLDS)
    assert (y[..., 0] >= THRESHOLDS)[new].all()
    assert (y[..., 0] <= most)[new].all()
    assert (y[..., 1].abs() <= ACCEPTANCE)[new].all()
    assert (y[..., 2][new].abs().max() if new.any() else 0) <= math.pi


def test_numbers_and_directions_of_new_objects_are_uniform():
    x, mask = toy(1, 5000, filled=(1, 1, 2, 4))
    x[..., 0] = torch.where(mask, 100.0, 0.0)
    y, filled = view("multiplicity_shift", x, mask, 1)
    for kind, more in ((1, 3), (2, 2), (3, 6)):
        added = (counts(filled) - counts(mask))[:, kind]
        share = added.bincount(minlength=more + 1) / 5000
        assert len(share) == more + 1
        assert share.sub(1 / (more + 1)).abs().max() < 0.03
    new = (y[..., 4] == 0) & filled
    new[:, 0] = False
    for values, low, high in (
        (y[..., 0] - THRESHOLDS, torch.zeros(19), 100 - THRESHOLDS),
        (y[..., 1], -ACCEPTANCE, ACCEPTANCE),
        (y[..., 2], torch.full((19,), -math.pi), torch.full((19,), math.pi)),
    ):
        scaled = ((values - low) / (high - low).clamp_min(1e-9))[new]
        assert scaled.mean().item() == pytest.approx(0.5, abs=0.01)
        assert scaled.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.03)


def test_an_event_softer_than_the_threshold_gets_objects_at_the_threshold():
    x, mask = toy(1, 200, filled=(1, 0, 0, 0))
    x[:, 0, 0] = 5.0
    y, filled = view("multiplicity_shift", x, mask, 1)
    assert filled[:, 9:].any()
    assert (y[:, 9:, 0][filled[:, 9:]] == 15).all()
    assert (y[:, 1:9, 0][filled[:, 1:9]] <= 5).all()


@few
@given(seeds)
def test_splits_conserve_every_sum_of_momenta(seed):
    """Sums of pT of each kind to rounding, not in the mean; missing momentum to the bit."""
    x, mask = toy(seed, 40)
    y, _ = view("multiplicity_shift_constant", x, mask, seed)
    assert torch.equal(y[:, 0], x[:, 0])
    for kind in CAPS:
        slots = kind == SLOTS
        close(y[:, slots, 0].sum(dim=1), x[:, slots, 0].sum(dim=1))
        close(momenta(y, slots), momenta(x, slots), 1e-9)
    single = x.float()
    ratio = view("multiplicity_shift_constant", single, mask, seed)[0][..., 0].sum(dim=1) / single[..., 0].sum(dim=1)
    close(ratio[mask.any(dim=1)], torch.ones(int(mask.any(dim=1).sum())), 1e-6)


@few
@given(seeds)
def test_splits_are_within_caps_and_thresholds_and_keep_a_leading_lepton(seed):
    x, mask = toy(seed, 60)
    y, filled = view("multiplicity_shift_constant", x, mask, seed)
    before, after = counts(mask), counts(filled)
    assert (after >= before).all()
    assert (after <= 2 * before).all()
    assert (y[..., 0] >= THRESHOLDS * (1 - 1e-12))[filled].all()
    hard = x[:, 1:9, 0].amax(dim=1) >= 23
    assert (y[hard, 1:9, 0].amax(dim=1) >= 23 * (1 - 1e-12)).all()
    parents, halves = by_tag(x, mask), {}
    for row in y[filled]:
        halves.setdefault(int(row[4]), []).append(row)
    assert halves.keys() == parents.keys()
    for tag, rows in halves.items():
        assert len(rows) <= 2
        close(sum(row[0] for row in rows), parents[tag][0])
        assert all(torch.equal(row[1:], parents[tag][1:]) for row in rows)


def test_numbers_of_splits_are_uniform_up_to_what_is_possible():
    x, mask = toy(1, 4000, filled=(1, 1, 3, 4))
    x[..., 0] = torch.where(mask, 100.0, 0.0)
    x[:, 12, 0] = 29.0  # two jets of 15 GeV need more
    _, filled = view("multiplicity_shift_constant", x, mask, 1)
    for kind, most in ((1, 1), (2, 1), (3, 3)):
        share = (counts(filled) - counts(mask))[:, kind].bincount() / 4000
        assert len(share) == most + 1
        assert share.sub(1 / (most + 1)).abs().max() < 0.03


@few
@given(seeds)
def test_a_shift_of_pt_and_missing_momentum_is_one_of_three(seed):
    x, mask = toy(seed, 900, filled=(1, 2, 2, 3))
    y, filled = view("pt_met_shift", x, mask, seed)
    assert torch.equal(filled, mask)
    assert torch.equal(y[..., 1:], x[..., 1:])
    factor = torch.where(mask, y[..., 0] / x[..., 0], torch.nan)
    met, objects = factor[:, 0], factor[:, 1]
    close(factor[:, 1:].nan_to_num(1.0), torch.where(mask, objects[:, None], 1.0)[:, 1:])
    alone, others, both = objects == 1, met == 1, torch.isclose(met, objects, rtol=1e-9)
    assert (alone.int() + others.int() + both.int() == 1).all()
    for which, values, low, high in ((alone, met, 0.5, 5), (others, objects, 1, 5), (both, objects, 1, 5)):
        assert which.double().mean().item() == pytest.approx(1 / 3, abs=0.09)
        assert low <= values[which].min() < low + 0.3
        assert high - 0.3 < values[which].max() <= high


@few
@given(seeds)
def test_the_anomalous_view_of_the_authors_can_be_composed(seed):
    x, mask = toy(seed, 30)
    anomalous = one_of(
        [
            chain(events.multiplicity_shift, events.eta_phi_smear),
            chain(events.multiplicity_shift_constant, events.eta_phi_smear),
        ]
    )
    y, filled = anomalous(x, mask, seeded(seed))
    assert_is_a_table_of_objects(y, filled)
    assert (counts(filled)[:, 1:] <= torch.tensor(list(CAPS.values()))).all()
