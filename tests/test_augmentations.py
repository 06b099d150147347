"""Views of jets: what they conserve, what they change, and what becomes of empty slots; how views are composed."""

from __future__ import annotations

import math
import pickle
from functools import partial

import numpy as np
import pytest
import vector
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad.errors import ConfigError
from coffea_ad.nn.self_supervised import jet_augmentations as jets
from coffea_ad.nn.self_supervised.augmentations import chain, one_of, packed, wrapped

few = settings(max_examples=8, deadline=None)
seeds, sizes = st.integers(0, 2**32 - 1), st.integers(0, 12)
each = pytest.mark.parametrize("name", sorted(jets.AUGMENTATIONS))
NOTHING_DRAWN = {"pt_reweight"}
DROPPING = {"drop", "subjet_shift"}


def of(*names):
    return pytest.mark.parametrize("name", names)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def toy(seed, n=6, slots=9, dtype=torch.float64, least=0, offset=0.0):
    """Jets of a random number of constituents by falling pT; a fourth column numbers them, and goes along."""
    generator = seeded(seed)
    number = torch.randint(least, slots + 1, (n, 1), generator=generator)
    mask = torch.arange(slots) < number
    pt = 100 * torch.rand(n, slots, generator=generator).exp().square().sort(dim=1, descending=True).values
    places = 0.3 * torch.randn(n, slots, 2, generator=generator) + offset
    tag = torch.arange(1, n * slots + 1).reshape(n, slots)
    return (torch.cat([pt[..., None], places, tag[..., None]], dim=2) * mask[..., None]).to(dtype), mask


def view(name, x, mask, seed, **options):
    return jets.AUGMENTATIONS[name](x, mask, seeded(seed), **options)


def total(x):
    return x[..., 0].sum(dim=1)


def centroid(x):
    """Centre of each jet that has constituents, (jets, 2)."""
    filled = x[total(x) > 0]
    return (filled[..., :1] * filled[..., 1:3]).sum(dim=1) / total(filled)[:, None]


def by_tag(x, mask):
    return {int(row[3]): row for row in x[mask]}


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- what all have in common


@each
@few
@given(seeds, sizes, st.integers(1, 9))
def test_empty_slots_stay_empty_and_rows_are_sorted(name, seed, n, slots):
    x, mask = toy(seed, n, slots)
    before = x.clone(), mask.clone()
    y, filled = view(name, x, mask, seed)
    assert torch.equal(x, before[0])
    assert torch.equal(mask, before[1])
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert torch.equal(filled, y[..., 0] > 0)
    assert (y[~filled] == 0).all()
    assert torch.equal(filled, torch.arange(slots) < filled.sum(dim=1, keepdim=True))
    assert (y[..., 0].diff(dim=1) <= 0).all()
    assert torch.equal(filled.any(dim=1), mask.any(dim=1))  # no jet is emptied, and no empty one filled


@each
@few
@given(seeds)
def test_the_same_generator_gives_the_same_bits(name, seed):
    x, mask = toy(seed, 20, 7, torch.float32, least=3)
    one, two, other = (view(name, x, mask, s) for s in (seed, seed, seed + 1))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert torch.equal(one[0], other[0]) == (name in NOTHING_DRAWN)
    assert one[0].dtype == torch.float32
    column_wise = x.movedim(2, 0).contiguous().movedim(0, 2)
    assert torch.equal(view(name, column_wise, mask, seed)[0], one[0])


@each
@few
@given(seeds)
def test_other_columns_go_along_with_their_particle(name, seed):
    x, mask = toy(seed)
    y, filled = view(name, x, mask, seed)
    for before, after, one, two in zip(x, y, mask, filled, strict=True):
        assert set(after[two][:, 3].tolist()) <= set(before[one][:, 3].tolist())
        if name == "collinear_split":
            assert max(after[two][:, 3].unique(return_counts=True)[1].tolist(), default=1) <= 2
        else:
            assert len(after[two][:, 3].unique()) == len(after[two])


@each
@few
@given(seeds)
def test_a_jet_does_not_depend_on_the_others(name, seed):
    x, mask = toy(seed, 8, 9, least=1)
    y, filled = view(name, x, mask, seed)
    x, mask = x.clone(), mask.clone()
    x[3, 1:] = 0
    mask[3, 1:] = False
    x[5], mask[5] = 0, False
    z, others = view(name, x, mask, seed)
    rest = [i for i in range(8) if i not in (3, 5)]
    assert torch.equal(z[rest], y[rest])
    assert torch.equal(others[rest], filled[rest])


@each
def test_rows_of_the_feature_go_through(name):
    rows, _ = ad.features.compute(
        "jet_constituents", open_events(DATA / "svj_v15.root"), n=40, columns=("pt", "deta", "dphi", "charge")
    )
    x = torch.from_numpy(rows[np.isfinite(rows).all(axis=(1, 2))])
    mask = x[..., 0] > 0
    assert mask.sum() > 1000
    y, filled = view(name, x, mask, 1)
    assert y.isfinite().all()
    assert torch.equal(filled, y[..., 0] > 0)
    assert (y[..., 0].diff(dim=1) <= 0).all()
    assert torch.isin(y[..., 3], torch.tensor([-1.0, 0.0, 1.0])).all()


# ---- conserved quantities


@of("rotation", "translation", "soft_smear", "collinear_split", "drop", "pt_reweight", "subjet_shift", "recluster")
@few
@given(seeds)
def test_the_pt_of_a_jet_is_conserved(name, seed):
    x, mask = toy(seed)
    close(total(view(name, x, mask, seed)[0]), total(x))
    single = x.float()
    close(total(view(name, single, mask, seed)[0]), total(single), 2e-6)


@of("rotation", "translation", "soft_smear", "energy_smear", "pt_reweight", "shift_pt")
@few
@given(seeds)
def test_the_multiplicity_is_conserved(name, seed):
    x, mask = toy(seed)
    assert torch.equal(view(name, x, mask, seed)[1], mask)


@of("drop", "pt_reweight", "subjet_shift", "energy_smear")
@few
@given(seeds, st.sampled_from([0.0, 0.4, math.pi]))
def test_each_jet_is_centred_by_itself(name, seed, offset):
    x, mask = toy(seed, offset=offset)
    x[..., 2] = wrapped(x[..., 2])
    y, _ = view(name, x, mask, seed)
    close(centroid(y), torch.zeros_like(centroid(y)))


@of("drop", "pt_reweight", "subjet_shift", "energy_smear")
@few
@given(seeds)
def test_a_jet_across_the_end_of_the_azimuth_stays_one_jet(name, seed):
    x, mask = toy(seed, least=1)
    turned = x.clone()
    turned[..., 2] = torch.where(mask, wrapped(x[..., 2] + 3.1), 0.0)
    options = {"radius": 100.0} if name == "subjet_shift" else {}  # else more is out of the radius
    expected, got = (view(name, jet, mask, seed, **options)[0] for jet in (x, turned))
    close(got, expected, 1e-9)
    assert (got[..., 2].abs() <= math.pi).all()


@of("rotation", "translation")
@few
@given(seeds)
def test_distances_in_a_jet_stay(name, seed):
    x, mask = toy(seed)
    y, _ = view(name, x, mask, seed)
    for before, after, real in zip(x, y, mask, strict=True):
        close(
            torch.cdist(after[real][:, 1:3], after[real][:, 1:3]),
            torch.cdist(before[real][:, 1:3], before[real][:, 1:3]),
            1e-6,
        )
        assert torch.equal(after[:, [0, 3]], before[:, [0, 3]])


# ---- one by one


@few
@given(seeds)
def test_a_rotation_is_about_the_origin_by_an_angle_of_each_jet(seed):
    x, mask = toy(seed, 200, 5, least=2)
    y, _ = view("rotation", x, mask, seed)
    close(y[..., 1:3].norm(dim=2), x[..., 1:3].norm(dim=2))
    turned = torch.atan2(y[..., 2], y[..., 1]) - torch.atan2(x[..., 2], x[..., 1])
    angle = wrapped(turned)[:, :1]
    close(wrapped(turned - angle)[mask], torch.zeros_like(turned[mask]), 1e-9)
    assert all(
        ((angle > low) & (angle <= low + math.pi / 2)).sum() > 20 for low in (-math.pi, -math.pi / 2, 0, math.pi / 2)
    )


@few
@given(seeds, st.sampled_from([0.3, 1.0]), st.sampled_from([0.0, 2.5, 3.0]))
def test_a_translation_knows_no_empty_slots_and_stays_within_the_azimuth(seed, width, offset):
    """Far from the origin, empty slots at (0, 0) would make a jet look several times as wide as it is."""
    x, mask = toy(seed, 200, 8, offset=offset)
    x[..., 1:3] = x[..., 1:3] * mask[..., None]
    x[..., 2] = x[..., 2].clamp(-math.pi, math.pi)
    y, _ = view("translation", x, mask, seed, width=width)
    assert (y[..., 2].abs() <= math.pi + 1e-12).all()
    shifts = []
    for before, after, real in zip(x, y, mask, strict=True):
        if not real.any():
            continue
        shift = (after - before)[real][:, 1:3]
        close(shift, shift[:1].expand_as(shift))
        places = before[real][:, 1:3]
        extent = places.amax(dim=0) - places.amin(dim=0)
        assert (shift[0].abs() <= width * extent + 1e-12).all()
        if extent[0] > 0:
            shifts.append(float(shift[0, 0] / (width * extent[0])))
    assert min(shifts) < -0.6  # and all of that width is used
    assert max(shifts) > 0.6


def test_soft_constituents_are_smeared_most():
    x = torch.zeros(1, 4000, 3, dtype=torch.float64)
    x[0, :2000, 0], x[0, 2000:, 0] = 5.0, 0.01
    y, _ = view("soft_smear", x, x[..., 0] > 0, 1, strength=0.1, floor=0.5)
    assert y[0, :2000, 1:].std().item() == pytest.approx(0.1 / 5, rel=0.05)
    assert y[0, 2000:, 1:].std().item() == pytest.approx(0.1 / 0.5, rel=0.05)
    assert torch.corrcoef(y[0, :, 1:].T)[0, 1].abs() < 0.05
    assert (y[..., 2].abs() <= math.pi).all()


@few
@given(seeds, sizes, st.integers(1, 9))
def test_a_split_fills_free_slots_and_keeps_momentum(seed, n, slots):
    x, mask = toy(seed, n, slots)
    y, filled = view("collinear_split", x, mask, seed)
    number = mask.sum(dim=1)
    assert torch.equal(filled.sum(dim=1), torch.minimum(2 * number, torch.tensor(slots)))
    parents, halves = by_tag(x, mask), {}
    for row in y[filled]:
        halves.setdefault(int(row[3]), []).append(row)
    assert halves.keys() == parents.keys()
    for tag, rows in halves.items():
        close(sum(row[0] for row in rows), parents[tag][0])
        assert all(torch.equal(row[1:], parents[tag][1:]) for row in rows)


def test_which_constituents_are_split_and_how_is_random():
    x, mask = torch.ones(400, 9, 3), torch.arange(9).expand(400, -1) < 6
    x = x * mask[..., None]
    x[..., 1] = torch.arange(9) * mask
    y, filled = view("collinear_split", x, mask, 1)
    twice = (y[..., 1, None] == torch.arange(6)).logical_and(filled[..., None]).sum(dim=1) == 2
    assert twice.sum(dim=1).eq(3).all()
    assert twice.float().mean(dim=0).sub(0.5).abs().max() < 0.1  # each of six as often as the others
    fractions = y[..., 0][filled & (y[..., 0] < 1)]
    assert fractions.mean().item() == pytest.approx(0.5, abs=1e-3)
    assert fractions.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)


def test_energies_are_smeared_by_a_resolution_and_keep_their_mean():
    x = torch.zeros(1, 20000, 3, dtype=torch.float64)
    x[0, :10000, 0], x[0, 10000:, 0] = 400.0, 4.0
    x[0, :10000, 1] = 0.1  # tells them apart, whatever their order is afterwards
    y, _ = view("energy_smear", x, x[..., 0] > 0, 1, constant=0.05, stochastic=0.4)
    hard = y[0, :, 1] > y[0, :, 1].mean()
    for of_kind, pt, sigma in ((hard, 400.0, math.hypot(0.05, 0.02)), (~hard, 4.0, math.hypot(0.05, 0.2))):
        ratio = y[0, of_kind, 0] / pt
        assert of_kind.sum() == 10000
        assert ratio.mean().item() == pytest.approx(1, abs=0.01)
        assert ratio.log().std().item() == pytest.approx(sigma, rel=0.05)


@few
@given(seeds, st.sampled_from([0.0, 0.3, 1.0]))
def test_dropping_scales_the_others_and_never_takes_the_leading_one(seed, probability):
    x, mask = toy(seed, least=1)
    y, filled = view("drop", x, mask, seed, probability=probability)
    assert torch.equal(y[:, 0, 3], x[:, 0, 3])
    if probability in (0, 1):
        assert torch.equal(filled.sum(dim=1), mask.sum(dim=1) if probability == 0 else torch.ones(len(x)).long())
    before = by_tag(x, mask)
    for row, real in zip(y, filled, strict=True):
        factors = torch.stack([r[0] / before[int(r[3])][0] for r in row[real]])
        close(factors, factors[:1].expand_as(factors))
        assert factors[0] >= 1 - 1e-12


def test_each_jet_draws_its_own_probability():
    x, mask = torch.ones(3000, 101, 3), torch.ones(3000, 101, dtype=torch.bool)
    rate = {}
    for probability in (0.35, (0.1, 0.6)):
        rate[probability] = 1 - (view("drop", x, mask, 1, probability=probability)[1].sum(dim=1) - 1) / 100
        assert rate[probability].mean().item() == pytest.approx(0.35, abs=0.01)
    binomial = 0.35 * 0.65 / 100
    assert rate[0.35].var().item() == pytest.approx(binomial, rel=0.1)
    assert rate[0.1, 0.6].var().item() == pytest.approx(0.5**2 / 12 + binomial, rel=0.1)


@pytest.mark.parametrize("probability", [-0.1, 1.1, (0.6, 0.1), (0.1, 2), math.nan])
def test_a_probability_that_is_none_is_named(probability):
    with pytest.raises(ConfigError, match="probability"):
        view("drop", *toy(1), 1, probability=probability)


@few
@given(seeds, st.sampled_from([0.0, 0.5, 1.0, 1.5, 40.0]))
def test_shares_of_pt_follow_the_power(seed, power):
    x, mask = toy(seed, least=1)
    y, filled = view("pt_reweight", x, mask, seed, power=power)
    assert torch.equal(filled, y[..., 0] > 0)
    close((y[..., 0] / y[:, :1, 0])[mask], ((x[..., 0] / x[:, :1, 0]) ** power)[mask], 1e-9)


def test_shares_that_turn_pt_around_are_refused():
    with pytest.raises(ConfigError, match="power is -1"):
        view("pt_reweight", *toy(1), 1, power=-1.0)


@few
@given(seeds, st.sampled_from([0.4, 0.8]))
def test_a_second_prong_is_one_shift_of_some_within_the_radius(seed, radius):
    x, mask = toy(seed, 30, 12, least=1)
    y, filled = view("subjet_shift", x, mask, seed, radius=radius)
    before, moved, dropped = by_tag(x, mask), 0, 0
    for jet, row, one, two in zip(x, y, mask, filled, strict=True):
        assert row[0, 3] == jet[0, 3]
        shifts = torch.stack([r[1:3] - before[int(r[3])][1:3] for r in row[two]])
        shifts = shifts - shifts[:1]  # the leading one shows how the jet was centred
        aside = shifts.abs().amax(dim=1) > 1e-9
        moved, dropped = moved + int(aside.sum()), dropped + int(one.sum() - two.sum())
        close(shifts[aside], shifts[aside][:1].expand(int(aside.sum()), -1), 1e-9)
        assert (shifts.abs() <= 0.5 / radius + 1e-9).all()
        places = torch.stack([before[int(r[3])][1:3] for r in row[two]]) + shifts
        assert (places[aside].norm(dim=1) <= radius + 1e-9).all()
    assert moved > 0
    assert dropped > 0


@few
@given(seeds)
def test_a_shift_of_pt_is_one_factor_a_jet(seed):
    x, mask = toy(seed, 300, 4, least=1)
    y, _ = view("shift_pt", x, mask, seed, low=0.5, high=2.0)
    assert torch.equal(y[..., 1:], x[..., 1:])
    factor = y[:, :1, 0] / x[:, :1, 0]
    close(y[..., 0], x[..., 0] * factor)
    assert 0.5 <= factor.min() < 0.6
    assert 1.9 < factor.max() <= 2


def merged_by_kt(jet, number):
    """Groups of a jet's particles when kT leaves so many, by comparing all pairs at every step; four-momenta are added."""
    groups = [([i], vector.obj(pt=float(p[0]), eta=float(p[1]), phi=float(p[2]), mass=0.0)) for i, p in enumerate(jet)]
    while len(groups) > number:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a)]
        a, b = min(
            pairs, key=lambda ab: min(groups[i][1].pt for i in ab) * groups[ab[0]][1].deltaRapidityPhi(groups[ab[1]][1])
        )
        both = (groups[a][0] + groups[b][0], groups[a][1] + groups[b][1])
        groups = [g for i, g in enumerate(groups) if i not in (a, b)] + [both]
    return [sorted(members) for members, _ in groups]


@few
@given(seeds)
def test_reclustering_merges_what_kt_merges(seed):
    x, mask = toy(seed, 12, 9, least=1)
    y, filled = view("recluster", x, mask, seed, fewest=2)
    for jet, after in zip(
        (row[m] for row, m in zip(x, mask, strict=True)),
        (row[m] for row, m in zip(y, filled, strict=True)),
        strict=True,
    ):
        groups = merged_by_kt(jet, len(after))
        expected = {float(jet[g[0], 3]): jet[g] for g in groups}
        assert set(after[:, 3].tolist()) == set(expected)
        for protojet in after:
            members = expected[float(protojet[3])]
            close(protojet[0], members[:, 0].sum())
            close(protojet[1:3], (members[:, :1] * members[:, 1:3]).sum(dim=0) / members[:, 0].sum(), 1e-9)
    close(centroid(y), centroid(x), 1e-9)


def test_reclustering_leaves_any_number_from_the_fewest():
    x, mask = toy(1, 3000, 9, least=1)
    left, n = view("recluster", x, mask, 1, fewest=4)[1].sum(dim=1), mask.sum(dim=1)
    assert torch.equal(left[n <= 4], n[n <= 4])
    parts = torch.bincount(left[n == 9], minlength=10)
    assert parts[:4].sum() == 0
    assert (parts[4:] > 0.1 * parts.sum()).all()
    with pytest.raises(ConfigError, match="fewest is 0"):
        view("recluster", x, mask, 1, fewest=0)


# ---- parts


@few
@given(st.lists(st.floats(-50, 50), min_size=1))
def test_wrapped_angles_are_the_same_ones_within_half_a_turn(angles):
    angle = torch.tensor(angles, dtype=torch.float64)
    got = wrapped(angle)
    assert (got.abs() <= math.pi + 1e-12).all()
    turns = (angle - got) / (2 * math.pi)
    close(turns, turns.round(), 1e-9)


@few
@given(seeds, sizes)
def test_packing_keeps_the_order(seed, n):
    x, mask = toy(seed, n)
    keep = mask & (torch.rand(mask.shape, generator=seeded(seed)) < 0.5)
    planes, filled = packed(x.movedim(2, 0).contiguous(), keep)
    for before, after, one, two in zip(x, planes.movedim(0, 2), keep, filled, strict=True):
        assert torch.equal(after[two], before[one])
        assert (after[~two] == 0).all()


def add(value, x, mask, generator):
    return torch.where(mask[..., None], x + value, 0.0), mask


def double(x, mask, generator):
    return 2 * x, mask


def test_a_chain_goes_from_left_to_right():
    x, mask = toy(1)
    close(chain(partial(add, 1), double)(x, mask, seeded(1))[0], 2 * x + 2 * mask[..., None])
    assert torch.equal(chain()(x, mask, seeded(1))[0], x)


@few
@given(seeds)
def test_each_row_goes_one_way(seed):
    x, mask = toy(seed, 2000, 3, least=1)
    one = one_of([chain(), partial(add, 1000), partial(drop_all_but_leading)], [0.5, 0.3, 0.2])
    y, filled = one(x, mask, seeded(seed))
    untouched = (y == x).all(dim=(1, 2)) & (filled == mask).all(dim=1)
    added = (y[..., 1] > 500).any(dim=1)
    single = (filled.sum(dim=1) == 1) & ~added & ~(untouched & (mask.sum(dim=1) == 1))
    assert (untouched | added | single).all()
    assert added.float().mean().item() == pytest.approx(0.3, abs=0.05)
    expected, _ = partial(add, 1000)(x, mask, None)
    assert torch.equal(y[added], expected[added])


def drop_all_but_leading(x, mask, generator):
    return jets.drop(x, mask, generator, probability=1.0)


@few
@given(seeds)
def test_equal_probabilities_by_default_and_the_same_bits_again(seed):
    x, mask = toy(seed, 3000, 2, least=1)
    some = one_of([partial(add, value) for value in (1000, 2000, 3000)])
    y, _ = some(x, mask, seeded(seed))
    assert torch.equal(some(x, mask, seeded(seed))[0], y)
    which = (y - x)[:, 0, 0].div(1000).round().long()
    assert which.bincount(minlength=4)[1:].float().div(3000).sub(1 / 3).abs().max() < 0.05


@pytest.mark.parametrize("probabilities", [[0.5], [0.5, 0.6], [-0.5, 1.5], [math.nan, 1.0], [0.0, 0.0]])
def test_probabilities_that_are_none_are_named(probabilities):
    with pytest.raises(ConfigError, match="probabilities"):
        one_of([double, double], probabilities)


def test_one_of_none_is_refused():
    with pytest.raises(ConfigError, match="probabilities"):
        one_of([])


def test_compositions_travel_to_other_processes():
    x, mask = toy(1)
    some = one_of([chain(jets.rotation, jets.translation), partial(jets.drop, probability=0.5)])
    got = pickle.loads(pickle.dumps(some))(x, mask, seeded(2))[0]
    assert torch.equal(got, some(x, mask, seeded(2))[0])


def test_views_that_are_made_in_inference_mode_train_a_network_once_they_are_joined():
    x, mask = toy(1, dtype=torch.float32)
    weight = torch.ones(4, requires_grad=True)
    with torch.inference_mode():
        one, two = (view(name, x, mask, 1)[0] for name in ("rotation", "drop"))
    (torch.cat([one, two]) @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, (one + two).sum(dim=(0, 1)))


@of("rotation", "translation", "drop", "collinear_split")
def test_no_jets_at_all_and_jets_of_padding_only(name):
    for n, slots in ((0, 5), (4, 5)):
        x, mask = torch.zeros(n, slots, 3), torch.zeros(n, slots, dtype=torch.bool)
        y, filled = view(name, x, mask, 1)
        assert torch.equal(y, x)
        assert not filled.any()
