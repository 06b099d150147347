from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from toys import toy_jets

from coffea_ad.features.images import _align, jet_images, smear_images
from coffea_ad.features.naive import images as naive_images

SIZE, WIDTH = 40, 1.6
PIXEL = WIDTH / SIZE
FLOAT32 = 2e-7  # relative: two doubles equal within rounding may be stored as neighbouring floats, 2^-23 apart

seeds = st.integers(0, 2**32 - 1)
orientations = st.tuples(st.booleans(), st.booleans())


def pictures(offsets, pt, eta, phi, *, size=SIZE, width=WIDTH, rotate=True, flip=True, power=1.0):
    out = np.full((len(offsets) - 1, size, size), 7.0, np.float32)  # what a block held before must not matter
    jet_images(offsets, pt, eta, phi, size, width, rotate, flip, power, out)
    return out


def picture(pt, eta, phi, **options):
    """The image of a single jet."""
    pt, eta, phi = (np.asarray(a, float) for a in (pt, eta, phi))
    return pictures(np.array([0, len(pt)]), pt, eta, phi, **options)[0]


def hit(image):
    """Pixels above zero, as {(row, column): intensity}."""
    return {(int(i), int(j)): float(image[i, j]) for i, j in zip(*np.nonzero(image), strict=True)}


def smeared(images, sigma):
    out = np.array(images, np.float32)
    smear_images(out, sigma)
    return out


def aligned(offsets, pt, eta, phi, *, rotate=True, flip=True):
    """(z, η′, φ′) of all constituents, (n, 3), as the kernel has them before it makes pixels."""
    out = np.empty((3, len(pt)))
    for a, b in itertools.pairwise(offsets):
        assert _align(pt[a:b], eta[a:b], phi[a:b], rotate, flip, *out[:, a:b]) == b - a
    return out.T


def assert_same(got, want, *, order=slice(None), **orientation):
    """The same constituents at the same place, and the same images.

    A constituent closer to the edge of a pixel than rounding may fall to either side, so those jets (one in 10⁵) are
    left out; all others must agree in every pixel. A constituent on an axis is at exactly zero, in a defined pixel.
    """
    before = aligned(*want, **orientation)
    np.testing.assert_allclose(aligned(*got, **orientation), before[order], rtol=0, atol=1e-11)
    position = before[:, 1:] / PIXEL
    assume(np.all((before[:, 1:] == 0) | (np.abs(position - np.round(position)) > 1e-7)))
    for power in (1.0, 0.5):
        np.testing.assert_allclose(
            pictures(*got, power=power, **orientation), pictures(*want, power=power, **orientation), rtol=FLOAT32
        )


def some_jets(seed, n_jets=5):
    return toy_jets(np.random.default_rng(seed), n_jets)[:4]


def wrapped(phi):
    return (phi + np.pi) % (2 * np.pi) - np.pi


# ---- the definition


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("size", "width", "power"),
    [(40, 1.6, 1.0), (40, 0.7, 0.5), (25, 1.6, 0.25), (33, 3.2, 0.3), (40, 1.6, 0.0)],
)
def test_the_kernel_equals_its_slow_twin(rotate, flip, size, width, power):
    jets = some_jets(1, 60)
    options = {"size": size, "width": width, "rotate": rotate, "flip": flip, "power": power}
    want = naive_images.images(*jets, **options)
    np.testing.assert_allclose(pictures(*jets, **options), want, rtol=FLOAT32)
    assert np.isfinite(want).all()


@pytest.mark.parametrize("phi", [0.0, 3.0, np.pi, -np.pi])
def test_two_constituents_stand_upright_with_the_harder_one_above(phi):
    image = picture([30.0, 10.0], [0.5, 0.5], wrapped(np.array([phi, phi + 0.36])))
    # 0.09 and 0.27 from the centroid, in pixels of 0.04 above and below the edge between 19 and 20
    assert hit(image) == {(22, 20): 0.75, (13, 20): 0.25}


def test_without_options_rows_are_eta_and_columns_are_phi():
    image = picture([30.0, 10.0], [0.5, 0.5], [0.0, 0.36], rotate=False, flip=False)
    assert hit(image) == {(20, 17): 0.75, (20, 26): 0.25}
    image = picture([30.0, 10.0], [0.5, 0.86], [0.0, 0.0], rotate=False, flip=False)
    assert hit(image) == {(17, 20): 0.75, (26, 20): 0.25}


def test_flipping_alone_puts_the_harder_halves_at_positive_eta_and_phi():
    image = picture([30.0, 10.0], [0.5, 0.86], [0.0, 0.36], rotate=False)
    assert hit(image) == {(22, 22): 0.75, (13, 13): 0.25}


def test_a_pixel_hit_twice_is_remapped_once():
    pt, eta, phi = [10.0, 6.0, 16.0], [0.3, 0.301, -0.3], [0.0, 0.0, 0.0]
    assert hit(picture(pt, eta, phi)) == {(27, 20): 0.5, (12, 20): 0.5}
    assert hit(picture(pt, eta, phi, power=0.5)) == {(27, 20): 0.5, (12, 20): 0.5}


@pytest.mark.parametrize("power", [0.5, 0.25, 0.3, 2.0])
def test_remapped_images_are_normalised_powers_of_the_linear_one(power):
    jets = some_jets(2, 40)
    linear = pictures(*jets).astype(float)
    want = linear**power / np.sum(linear**power, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(pictures(*jets, power=power), want, rtol=1e-6)  # `linear` was rounded to floats


def test_power_zero_keeps_only_which_pixels_are_hit():
    jets = some_jets(3, 40)
    occupied = pictures(*jets) > 0
    want = occupied / np.sum(occupied, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(pictures(*jets, power=0.0), want, rtol=FLOAT32)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_aligned_jets_have_centroid_axis_and_halves_where_they_belong(seed):
    offsets, pt, eta, phi = some_jets(seed)
    places = aligned(offsets, pt, eta, phi)
    for a, b in itertools.pairwise(offsets):
        z, x, y = places[a:b].T
        assert np.sum(z) == pytest.approx(1, rel=1e-12)
        assert np.abs([z @ x, z @ y, z @ (x * y)]).max() < 1e-8  # 1e-9 is on the axis
        assert z @ x**2 >= z @ y**2
        for side in (x, y):
            assert np.sum(z[side > 0]) >= np.sum(z[side < 0]) - 1e-9


@settings(max_examples=40, deadline=None)
@given(seeds, orientations, st.sampled_from([1.0, 0.5, 0.25, 0.1]), st.floats(0.05, 4))
def test_all_pixels_sum_to_one_where_the_image_holds_constituents_and_are_undefined_elsewhere(
    seed, orientation, power, width
):
    jets = some_jets(seed)
    options = {"rotate": orientation[0], "flip": orientation[1]}
    inside = np.all(np.abs(aligned(*jets, **options)[:, 1:]) < width / 2, axis=1)
    defined = np.logical_or.reduceat(inside, jets[0][:-1])
    images = pictures(*jets, power=power, width=width, **options)
    np.testing.assert_array_equal(np.isfinite(images), np.broadcast_to(defined[:, None, None], images.shape))
    assert (images[defined] >= 0).all()
    np.testing.assert_allclose(np.sum(images[defined], axis=(1, 2), dtype=float), 1, rtol=1e-6)


def test_a_slice_of_the_offsets_is_a_block_of_jets():
    offsets, *constituents = some_jets(4, 30)
    whole = pictures(offsets, *constituents)
    for a, b in [(0, 11), (11, 30), (7, 7)]:
        np.testing.assert_array_equal(pictures(offsets[a : b + 1], *constituents), whole[a:b])


@pytest.mark.parametrize("shape", [(2, 40, 40), (1, 39, 40), (1, 40, 41)])
def test_a_block_of_another_shape_is_refused(shape):
    one = np.ones(1)
    with pytest.raises(ValueError, match="must have the shape"):
        jet_images(np.array([0, 1]), one, one, one, 40, 1.6, True, True, 1.0, np.zeros(shape, np.float32))


# ---- what an image must not depend on


@settings(max_examples=40, deadline=None)
@given(seeds, orientations, st.floats(-10, 10))
def test_nothing_changes_when_the_event_is_rotated_about_the_beam(seed, orientation, angle):
    offsets, pt, eta, phi = some_jets(seed)
    turned = offsets, pt, eta, wrapped(phi + angle)
    assert_same(turned, (offsets, pt, eta, phi), rotate=orientation[0], flip=orientation[1])


@settings(max_examples=40, deadline=None)
@given(seeds, orientations, st.floats(-2, 2))
def test_nothing_changes_when_the_event_is_shifted_in_eta(seed, orientation, shift):
    offsets, pt, eta, phi = some_jets(seed)
    assert_same((offsets, pt, eta + shift, phi), (offsets, pt, eta, phi), rotate=orientation[0], flip=orientation[1])


@settings(max_examples=40, deadline=None)
@given(seeds, orientations)
def test_nothing_changes_when_constituents_are_reordered(seed, orientation):
    offsets, *constituents = some_jets(seed)
    rng = np.random.default_rng(seed)
    order = np.concatenate([a + rng.permutation(b - a) for a, b in itertools.pairwise(offsets)])
    shuffled = offsets, *(c[order] for c in constituents)
    assert_same(shuffled, (offsets, *constituents), order=order, rotate=orientation[0], flip=orientation[1])


@settings(max_examples=40, deadline=None)
@given(seeds, orientations, st.floats(1e-3, 1e3))
def test_nothing_changes_when_all_momenta_are_scaled(seed, orientation, factor):
    offsets, pt, eta, phi = some_jets(seed)
    assert_same((offsets, factor * pt, eta, phi), (offsets, pt, eta, phi), rotate=orientation[0], flip=orientation[1])


@settings(max_examples=40, deadline=None)
@given(seeds, st.booleans(), st.booleans(), st.booleans())
def test_flipped_images_do_not_know_mirrors(seed, rotate, mirror_eta, mirror_phi):
    offsets, pt, eta, phi = some_jets(seed)
    mirrored = offsets, pt, -eta if mirror_eta else eta, -phi if mirror_phi else phi
    assert_same(mirrored, (offsets, pt, eta, phi), rotate=rotate, flip=True)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-10, 10), st.booleans())
def test_rotated_and_flipped_images_do_not_know_how_the_jet_was_turned(seed, angle, mirror):
    offsets, pt, eta, phi = some_jets(seed)
    first = np.repeat(offsets[:-1], np.diff(offsets))
    x, y = eta - eta[first], wrapped(phi - phi[first])
    if mirror:
        x = -x
    turned_eta = eta[first] + np.cos(angle) * x - np.sin(angle) * y
    turned_phi = wrapped(phi[first] + np.sin(angle) * x + np.cos(angle) * y)
    assert_same((offsets, pt, turned_eta, turned_phi), (offsets, pt, eta, phi))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_images_that_are_not_flipped_mirror_with_the_jet(seed):
    offsets, pt, eta, phi = some_jets(seed)
    options = {"size": 41, "rotate": False, "flip": False}  # odd, so that the axes are no edges of pixels
    images = pictures(offsets, pt, eta, phi, **options)
    np.testing.assert_allclose(pictures(offsets, pt, -eta, phi, **options), images[:, ::-1], rtol=FLOAT32)
    np.testing.assert_allclose(pictures(offsets, pt, eta, -phi, **options), images[:, :, ::-1], rtol=FLOAT32)


@settings(max_examples=40, deadline=None)
@given(seeds, orientations, st.floats(0.01, 0.99), st.integers(0, 10**6))
def test_nothing_changes_when_a_constituent_splits_collinearly(seed, orientation, fraction, which):
    offsets, pt, eta, phi = some_jets(seed, 1)
    i = which % len(pt)
    order = np.r_[: len(pt), i]
    split = pt[order]
    split[[i, -1]] *= fraction, 1 - fraction
    options = {"rotate": orientation[0], "flip": orientation[1]}
    places = aligned(offsets, pt, eta, phi, **options)
    after = aligned(np.array([0, len(split)]), split, eta[order], phi[order], **options)
    np.testing.assert_allclose(after[:, 1:], places[order, 1:], rtol=0, atol=1e-11)
    position = places[:, 1:] / PIXEL
    assume(np.all((places[:, 1:] == 0) | (np.abs(position - np.round(position)) > 1e-7)))
    for power in (1.0, 0.5):  # the pixel holds the same sum, so that its power is the same
        np.testing.assert_allclose(
            picture(split, eta[order], phi[order], power=power, **options),
            picture(pt, eta, phi, power=power, **options),
            rtol=FLOAT32,
        )


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_a_soft_constituent_changes_nothing_but_its_own_pixel(seed, deta, dphi):
    offsets, pt, eta, phi = some_jets(seed, 1)
    assume(len(pt) > 2)  # a soft one beside a single hard one is the axis itself
    position = aligned(offsets, pt, eta, phi)[:, 1:] / PIXEL
    assume(np.all(np.abs(position - np.round(position)) > 1e-5))
    soft = picture(np.r_[pt, 1e-9], np.r_[eta, eta[0] + deta], np.r_[phi, phi[0] + dphi])
    np.testing.assert_allclose(soft, picture(pt, eta, phi), rtol=FLOAT32, atol=1e-8)


# ---- edges


def test_jets_without_constituents_are_undefined_and_their_neighbours_are_not():
    offsets, pt, eta, phi = np.array([0, 0, 1, 1, 3]), np.array([5.0, 0.0, -1.0]), np.zeros(3), np.zeros(3)
    images = pictures(offsets, pt, eta, phi)
    assert np.isnan(images[[0, 2, 3]]).all()
    assert hit(images[1]) == {(20, 20): 1.0}
    assert pictures(np.array([0]), pt, eta, phi).shape == (0, 40, 40)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("size", "middle"), [(40, 20), (41, 20), (1, 0)])
@pytest.mark.parametrize("n", [1, 7])
def test_identical_momenta_are_the_pixel_at_the_origin(n, size, middle, rotate, flip):
    jet = np.full(n, 0.1), np.full(n, 1.7), np.full(n, np.pi)
    assert hit(picture(*jet, size=size, rotate=rotate, flip=flip, power=0.5)) == {(middle, middle): 1.0}


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_constituents_without_pt_do_not_count(rotate, flip):
    got = picture([30, 0, 10, -5], [0.2, 9.0, -0.2, 3.0], [0.0, 0.5, 0.3, -2.0], rotate=rotate, flip=flip)
    np.testing.assert_array_equal(got, picture([30, 10], [0.2, -0.2], [0.0, 0.3], rotate=rotate, flip=flip))


@settings(max_examples=40, deadline=None)
@given(st.floats(-10, 10), st.floats(-3, 3), st.floats(-np.pi, np.pi))
def test_two_equal_constituents_give_one_image_however_they_lie(angle, eta, phi):
    side = np.array([-0.25, 0.25])
    image = picture([20.0, 20.0], eta + np.cos(angle) * side, wrapped(phi + np.sin(angle) * side))
    assert hit(image) == {(13, 20): 0.5, (26, 20): 0.5}


@settings(max_examples=40, deadline=None)
@given(st.floats(-10, 10), st.floats(-3, 3), st.floats(-np.pi, np.pi))
def test_a_jet_on_a_line_stands_in_one_column_however_it_lies(angle, eta, phi):
    pt, along = np.array([16.0, 8.0, 4.0, 4.0]), np.array([0.07, 0.19, -0.3, -0.53])
    image = picture(pt, eta + np.cos(angle) * along, wrapped(phi + np.sin(angle) * along))
    assert hit(image) == {(i, 20): z for i, z in [(22, 0.5), (25, 0.25), (13, 0.125), (7, 0.125)]}


@settings(max_examples=40, deadline=None)
@given(st.floats(-3, 3), st.floats(1, 100))
def test_a_jet_across_eta_is_turned_with_positive_phi_up_and_not_by_the_sign_of_a_rounding(eta, pt):
    places = aligned(
        np.array([0, 3]), np.array([pt, 20.0, 30.0]), np.full(3, eta), np.array([-0.2, 0.3, 0.1]), flip=False
    )
    assert (places[:, 2] == 0).all()
    np.testing.assert_allclose(places[:, 1] - places[0, 1], [0, 0.5, 0.3], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(-10, -5), st.sampled_from([-1, 1]), st.booleans())
def test_a_small_tilt_is_rotated_away_completely(exponent, sign, upright):
    along = np.array([-0.3, 0.1, 0.2])
    across = sign * 10**exponent * along
    eta, phi = (across, along) if upright else (along, across)
    assert (aligned(np.array([0, 3]), np.full(3, 20.0), eta, phi)[:, 2] == 0).all()


def test_a_constituent_is_on_the_axis_within_a_billionth_and_beside_it_beyond():
    def split(distance):
        return hit(picture([10.0, 10.0], [-distance, distance], [0.0, 0.0], rotate=False, flip=False))

    assert split(1e-10) == {(20, 20): 1.0}
    assert split(1e-8) == {(19, 20): 0.5, (20, 20): 0.5}


@pytest.mark.parametrize("rotate", [False, True])
def test_a_jet_without_principal_axis_is_not_rotated(rotate):
    image = picture([10.0] * 4, [0.1, 0.1, -0.1, -0.1], [0.1, -0.1, 0.1, -0.1], rotate=rotate)
    assert hit(image) == {(i, j): 0.25 for i in (17, 22) for j in (17, 22)}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_halves_that_differ_by_rounding_only_are_not_reflected(order):
    order = list(order)
    pt, eta = np.array([0.3, 0.2, 0.1]), np.array([-0.2, 0.2, 0.5])  # 0.2 + 0.1 != 0.3 in binary; centroid at 0.05
    want = {(13, 20): 0.5, (23, 20): 1 / 3, (31, 20): 1 / 6}
    for sign in (1, -1):
        image = hit(picture(pt[order], sign * eta[order], np.zeros(3), rotate=False))
        assert image == pytest.approx({(i if sign > 0 else 39 - i, j): z for (i, j), z in want.items()})


def test_dphi_is_counted_from_the_hardest_constituent():
    assert hit(picture([1.0, 30.0, 1.0], [0.0, 0.0, 0.0], [2.0, 0.0, -2.0])) == {(20, 20): 1.0}


def test_half_the_jet_across_phi_of_pi_is_the_jet_turned_to_zero():
    pt, eta, phi = some_jets(5, 1)[1:]
    there = wrapped(np.pi + wrapped(phi - phi[np.argmax(pt)]))
    assert there.min() < -3
    assert there.max() > 3
    for flip in (False, True):
        np.testing.assert_allclose(
            picture(pt, eta, there, flip=flip), picture(pt, eta, wrapped(there + 2), flip=flip), rtol=FLOAT32
        )


def test_constituents_outside_are_dropped_before_normalising():
    image = picture([30.0, 10.0, 10.0], [0.0, 0.9, -0.9], [0.0, 0.0, 0.0])
    assert hit(image) == {(20, 20): 1.0}


def test_an_image_without_constituents_inside_is_undefined():
    images = pictures(np.array([0, 2, 3]), np.array([10.0, 10.0, 5.0]), np.array([1.0, -1.0, 0.0]), np.zeros(3))
    assert np.isnan(images[0]).all()
    assert hit(images[1]) == {(20, 20): 1.0}  # nothing is left over from the jet before


def test_the_lower_edge_is_inside_and_the_upper_one_is_not():
    for phi in (0.0, 0.5):  # both edges in eta; and with phi != 0 in both directions
        image = picture([10.0, 10.0], [-0.5, 0.5], [-phi, phi], width=1.0, rotate=False, flip=False)
        assert hit(image) == {(0, 0 if phi else 20): 1.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_angle_that_is_not_finite_makes_the_image_undefined(bad):
    for eta, phi in (([0.0, bad], [0.0, 0.1]), ([0.0, 0.1], [0.0, bad]), ([0.0, 0.1], [bad, 0.0])):
        assert np.isnan(picture([20.0, 10.0], eta, phi)).all()


# ---- smearing


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3, 6.0])
def test_the_smearing_kernel_equals_its_slow_twin_and_scipy(sigma):
    images = pictures(*some_jets(6, 4), size=20)
    got = smeared(images, sigma)
    np.testing.assert_allclose(got, naive_images.smear(images.astype(float), sigma), rtol=FLOAT32, atol=1e-12)
    scipy = gaussian_filter(images.astype(float), sigma, axes=(1, 2))
    np.testing.assert_allclose(got, scipy, rtol=FLOAT32, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0, 30))
def test_smearing_keeps_the_sum_and_nothing_becomes_negative(seed, sigma):
    images = pictures(*some_jets(seed), width=0.8)  # narrow, so that much is near the border
    images = smeared(images[np.isfinite(images[:, 0, 0])], sigma)
    assert (images >= 0).all()
    np.testing.assert_allclose(np.sum(images, axis=(1, 2), dtype=float), 1, rtol=1e-6)


@pytest.mark.parametrize("corner", [(0, 0), (0, 39), (39, 20), (20, 20)])
def test_smearing_keeps_the_sum_of_a_pixel_at_the_border(corner):
    image = np.zeros((1, 40, 40))
    image[0][corner] = 1
    got = smeared(image, 1.5)
    assert got.sum(dtype=float) == pytest.approx(1, rel=1e-6)
    assert np.unravel_index(got[0].argmax(), (40, 40)) == corner


def test_a_pixel_far_from_the_border_becomes_a_gaussian():
    image = np.zeros((1, 41, 41))
    image[0, 20, 20] = 1
    got = smeared(image, 2.0)[0]
    d = np.arange(41) - 20
    shape = np.exp(-(d**2) / 8) * (abs(d) <= 8)
    np.testing.assert_allclose(got, np.outer(shape, shape) / shape.sum() ** 2, rtol=FLOAT32)


def test_smearing_leaves_constant_images_as_they_are():
    np.testing.assert_allclose(smeared(np.full((2, 9, 9), 1 / 81), 3.0), 1 / 81, rtol=FLOAT32)


def test_no_width_changes_nothing():
    images = pictures(*some_jets(7))
    np.testing.assert_array_equal(smeared(images, 0.0), images)


def test_every_image_is_smeared_by_itself_and_undefined_ones_stay_undefined():
    images = pictures(*some_jets(8, 5))
    with_gap = np.insert(images, 2, np.nan, axis=0)
    got = smeared(with_gap, 1.0)
    assert np.isnan(got[2]).all()
    np.testing.assert_array_equal(np.delete(got, 2, axis=0), smeared(images, 1.0))


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.2, 5))
def test_smearing_treats_all_directions_alike(seed, sigma):
    images = pictures(*some_jets(seed, 3))
    want = smeared(images, sigma)
    for turned in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: a.transpose(0, 2, 1)):
        np.testing.assert_allclose(smeared(turned(images), sigma), turned(want), rtol=FLOAT32, atol=1e-12)


def test_images_that_cannot_be_smeared_are_refused():
    with pytest.raises(ValueError, match="square"):
        smear_images(np.zeros((1, 3, 4), np.float32), 1.0)
    for sigma in (-1.0, np.nan):
        with pytest.raises(ValueError, match="negative"):
            smear_images(np.zeros((1, 3, 3), np.float32), sigma)


def test_a_momentum_that_is_not_a_number_makes_its_image_undefined_and_no_other():
    out = np.zeros((2, 8, 8), np.float32)
    pt = np.array([5.0, np.nan, 3.0, 4.0])
    jet_images([0, 2, 4], pt, np.zeros(4), np.array([0.0, 0.1, 0.2, 0.3]), 8, 1.6, True, True, 1.0, out)
    assert np.isnan(out[0]).all()
    assert out[1].sum() == pytest.approx(1)
