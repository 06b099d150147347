"""Jet images from constituents: numba kernels over flat content and offsets, which fill blocks of dense pixels.

An image of 40 × 40 is 6.4 kB although a jet hits some thirty pixels, so images are made for a block of jets at a time:
the caller owns the block and hands it in, and hands in a slice of the offsets for the next one.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from coffea_ad.features.base import Column, Feature, NonNegative, Options, Positive, Rows
from coffea_ad.features.jit import contiguous, exact, exact_kernel
from coffea_ad.nanoaod.constituents import constituent_branches
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["JET_IMAGES", "ImageOptions", "jet_images", "smear_images"]

_TWO_PI = 2.0 * math.pi

# What the geometry puts on an axis lands beside it by rounding, and with an even number of pixels the axes are edges of
# pixels: without this, rounding would choose the pixels of a jet on a line. It is far below any resolution.
_ON_AXIS = 1e-9  # in radians, and as a fraction of the pT or of the spread that a choice is made by

_TRUNCATE = 4.0  # in units of σ, as scipy.ndimage

Images = Float32s


@exact
def _wrap(dphi: float) -> float:
    """Bring an angle difference into [−π, π]; no loop, so that one that is not finite comes back too."""
    if abs(dphi) <= math.pi:
        return dphi
    return float(dphi - _TWO_PI * np.floor(dphi / _TWO_PI + 0.5))


@exact
def _snap(x: float) -> float:
    return 0.0 if abs(x) < _ON_AXIS else x


@exact
def _axis(a: float, b: float, c: float) -> tuple[float, float]:
    """Direction (cos α, sin α) of the larger second moment, −π/2 < α ≤ π/2; (1, 0) if there is none.

    tan 2α = 2c / (a − b). The larger of cos α and sin α comes from the half angle and the other from
    sin 2α = 2 sin α cos α, as the half angle alone would lose half of the digits near an axis.
    """
    delta = math.sqrt((a - b) * (a - b) + 4.0 * c * c)
    if not delta > _ON_AXIS * (a + b):
        return 1.0, 0.0
    cos2, sin2 = (a - b) / delta, 2.0 * c / delta
    large = math.sqrt(0.5 * (1.0 + abs(cos2)))
    small = 0.5 * sin2 / large
    if cos2 >= 0.0:
        return large, small
    return (-small, -large) if sin2 < 0.0 else (small, large)


@exact
def _align(
    pt: Float64s, eta: Float64s, phi: Float64s, rotate: bool, flip: bool, z: Float64s, deta: Float64s, dphi: Float64s
) -> int:
    """Centre, rotate and flip one jet; fill z, η′ and φ′ of its constituents with pT > 0 and return their number."""
    total = largest = 0.0
    hardest = 0
    for i in range(len(pt)):
        if not pt[i] <= 0.0:  # a pT that is not a number makes the image undefined
            total += pt[i]
            if pt[i] > largest:
                largest, hardest = pt[i], i
    n = 0
    mean_eta = mean_phi = 0.0
    for i in range(len(pt)):
        if not pt[i] <= 0.0:
            z[n] = pt[i] / total
            deta[n] = eta[i] - eta[hardest]
            dphi[n] = _wrap(phi[i] - phi[hardest])
            mean_eta += z[n] * deta[n]
            mean_phi += z[n] * dphi[n]
            n += 1
    a = b = c = 0.0
    for k in range(n):
        x, y = _snap(deta[k] - mean_eta), _snap(dphi[k] - mean_phi)
        deta[k], dphi[k] = x, y
        a += z[k] * x * x
        b += z[k] * y * y
        c += z[k] * x * y
    if rotate:
        cos, sin = _axis(a, b, c)
        for k in range(n):
            x, y = deta[k], dphi[k]
            deta[k], dphi[k] = _snap(cos * x + sin * y), _snap(cos * y - sin * x)
    if flip:
        upper = right = 0.0  # pT on the positive side minus pT on the negative one
        for k in range(n):  # no branches: sides are random, which no branch predictor learns
            upper += z[k] * ((deta[k] > 0.0) - (deta[k] < 0.0))
            right += z[k] * ((dphi[k] > 0.0) - (dphi[k] < 0.0))
        up, across = (-1.0 if upper < -_ON_AXIS else 1.0), (-1.0 if right < -_ON_AXIS else 1.0)
        for k in range(n):
            deta[k] *= up
            dphi[k] *= across
    return n


@exact
def _remap(intensity: float, power: float) -> float:
    if power == 1.0:
        return intensity
    if power == 0.5:
        return math.sqrt(intensity)
    if power == 0.25:
        return math.sqrt(math.sqrt(intensity))
    return float(intensity**power)


@exact_kernel
def _jet_images(
    offsets: Ints,
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    size: int,
    width: float,
    rotate: bool,
    flip: bool,
    power: float,
    out: Images,
) -> None:
    """Fill one image per jet."""
    n_jets = len(offsets) - 1
    most = 0
    for j in range(n_jets):
        most = max(most, offsets[j + 1] - offsets[j])
    z, deta, dphi = np.empty(most), np.empty(most), np.empty(most)
    hit = np.empty((most, 2), np.int64)
    pixels = np.zeros((size, size))  # of the jet at hand, in double precision; cleared through `hit`
    half, scale, middle = 0.5 * width, size / width, 0.5 * size
    for j in range(n_jets):
        start, stop = offsets[j], offsets[j + 1]
        n = _align(pt[start:stop], eta[start:stop], phi[start:stop], rotate, flip, z, deta, dphi)
        n_hit = 0
        for k in range(n):
            if -half <= deta[k] < half and -half <= dphi[k] < half:
                row, column = min(int(deta[k] * scale + middle), size - 1), min(int(dphi[k] * scale + middle), size - 1)
                if pixels[row, column] == 0.0:
                    hit[n_hit, 0], hit[n_hit, 1] = row, column
                    n_hit += 1
                pixels[row, column] += z[k]
        # (I / ΣI)^p / Σ (I / ΣI)^p = I^p / Σ I^p: the first division cancels.
        total = 0.0
        for h in range(n_hit):
            row, column = hit[h, 0], hit[h, 1]
            pixels[row, column] = _remap(pixels[row, column], power)
            total += pixels[row, column]
        out[j] = 0.0 if total > 0.0 else np.nan
        for h in range(n_hit):
            row, column = hit[h, 0], hit[h, 1]
            if total > 0.0:
                out[j, row, column] = pixels[row, column] / total
            pixels[row, column] = 0.0


def jet_images(
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    size: int,
    width: float,
    rotate: bool,
    flip: bool,
    power: float,
    out: Images,
) -> None:
    """Fill one image per jet: rows are η′, columns are φ′, both rising, and all pixels sum to 1.

    In this order: the pT-weighted centroid in (η, φ) is moved to the origin; the principal axis of the pT-weighted
    second moments is turned onto the η′ axis, so that it stands upright; η′ and φ′ are each reflected if the negative
    half holds more pT than the positive one; constituents outside −width/2 ≤ η′, φ′ < width/2 are dropped; I = Σ pT in
    each pixel is divided by the sum of the image, becomes I^power, and is divided by the sum again.

    What is not decided by the jet is left alone: a jet with equal second moments is not rotated, equal halves are not
    reflected, and without `flip` the axis is turned by the smaller angle. Constituents within 1e-9 of an axis are on
    it, in neither half, and in pixel size // 2. Δφ is counted from the hardest constituent; a jet is taken to be
    narrower than π.

    Parameters
    ----------
    offsets : (n_jets + 1,) int64
        Jet j owns the constituents offsets[j] … offsets[j+1]; a slice of longer offsets is a block of jets.
    pt, eta, phi : (n_constituents,) float64, GeV and radians
        Constituents; those with pT ≤ 0 are ignored.
    size : int
        Pixels along each side; 40 is usual.
    width : float
        Side of the image in η and in radians; 2 R holds the jet, 1.6 for R = 0.8.
    rotate, flip : bool
        Whether to rotate and to reflect.
    power : float
        Exponent of the intensity, ≥ 0: 1 leaves it, 1/2 and 1/4 lift the soft pixels, 0 keeps only which ones are hit.
        Collinear splitting changes nothing at any power; soft radiation counts the more the lower the power.
    out : (n_jets, size, size) float32
        The images, overwritten. A jet without constituents, with none inside the image or with an angle that is not
        finite is NaN.

    References
    ----------
    J. Cogan et al., "Jet-images: computer vision inspired techniques for jet tagging", arXiv:1407.5675;
    T. Heimel et al., "QCD or what?", arXiv:1808.08979.
    T. Finke et al., "Autoencoders for unsupervised anomaly detection in high energy physics", arXiv:2104.09051: the
    sparsity of jet images keeps an autoencoder trained on top jets from tagging QCD jets. The square and the fourth
    root, normalised before and after, are in public code of one of its authors: I. Oleksiyuk,
    https://github.com/IvanOleksiyuk/jet-k-means, reprocessing.py.
    """
    rows = contiguous(offsets, np.int64)
    if out.shape != (len(rows) - 1, size, size):
        raise ValueError("jet_images: out must have the shape (n_jets, size, size)")
    columns = [contiguous(a, np.float64) for a in (pt, eta, phi)]
    work = contiguous(out, np.float32)
    _jet_images(rows, columns[0], columns[1], columns[2], size, float(width), rotate, flip, float(power), work)
    if work is not out:
        out[...] = work


@exact_kernel
def _smear(images: Images, sigma: float) -> None:
    """Smear every image."""
    n_images, size = images.shape[0], images.shape[1]
    reach = int(_TRUNCATE * sigma + 0.5)
    if reach == 0:
        return
    norm = 1.0
    for d in range(1, reach + 1):
        norm += 2.0 * math.exp(-0.5 * (d / sigma) ** 2)
    share = np.zeros((size, size))  # [from, to]
    for i in range(size):
        for d in range(-reach, reach + 1):
            to = (i + d) % (2 * size)
            share[i, min(to, 2 * size - 1 - to)] += math.exp(-0.5 * (d / sigma) ** 2) / norm
    along, smeared = np.empty((size, size)), np.empty((size, size))
    for n in range(n_images):
        smeared[:] = 0.0
        for i in range(size):
            empty = True
            for k in range(size):
                intensity = images[n, i, k]
                if intensity != 0.0:
                    if empty:
                        along[i] = 0.0
                        empty = False
                    for to in range(max(0, k - reach), min(size, k + reach + 1)):
                        along[i, to] += intensity * share[k, to]
            if empty:
                continue
            for to in range(max(0, i - reach), min(size, i + reach + 1)):
                for k in range(size):
                    smeared[to, k] += share[i, to] * along[i, k]
        for i in range(size):
            for k in range(size):
                images[n, i, k] = smeared[i, k]


def smear_images(images: Images, sigma: float) -> None:
    """Smear every image with a Gaussian, in place; the sum of the pixels stays what it was.

    One dimension after the other, cut off at 4 σ and normalised. What would leave the image is reflected at its edge
    (d c b a | a b c d | d c b a), as `scipy.ndimage.gaussian_filter` does by default.

    Parameters
    ----------
    images : (n_jets, size, size) float32
        As filled by `jet_images`; images that are NaN stay NaN.
    sigma : float
        Width of the Gaussian in pixels, ≥ 0.
    """
    if images.shape[1] != images.shape[2]:
        raise ValueError("smear_images: images must be square")
    if not sigma >= 0.0:
        raise ValueError("smear_images: sigma must not be negative")
    work = contiguous(images, np.float32)
    _smear(work, float(sigma))
    if work is not images:
        images[...] = work


class ImageOptions(Options):
    """Pixels and what is done to them.

    Attributes
    ----------
    pixels : int
        Pixels along each side.
    width : float
        Length of a side in η and φ; twice the radius of the jet.
    rotate, flip : bool
        Turn the principal axis upright; then reflect so that the half with more pT is at positive coordinates.
    power : float
        Pixels are raised to it and normalised again: below 1, faint ones count more, against the bias of autoencoders
        towards complex jets.
    smear : float
        Width of a Gaussian in pixels; 0: none.
    """

    pixels: Annotated[int, Field(strict=True, ge=2, le=512)] = 40
    width: Positive = 1.6
    rotate: Annotated[bool, Field(strict=True)] = True
    flip: Annotated[bool, Field(strict=True)] = True
    power: NonNegative = 1.0
    smear: NonNegative = 0.0


def _rows(objects: Objects, options: ImageOptions) -> Rows:
    c = objects.constituents

    def rows(start: int, stop: int) -> Images:
        out = np.empty((stop - start, options.pixels, options.pixels), np.float32)
        offsets, inside = c.slice(start, stop)
        jet_images(
            offsets, c.pt[inside], c.eta[inside], c.phi[inside], options.pixels, options.width, options.rotate, options.flip,
            options.power, out,
        )  # fmt: skip
        if options.smear > 0:
            smear_images(out, options.smear)
        return out

    return rows


JET_IMAGES = Feature(
    name="jet_images",
    version=1,
    level="jet",
    columns=lambda _: (Column("intensity"),),
    reads=lambda collection, _: constituent_branches(collection),
    rows=_rows,
    options=ImageOptions,
    shape=lambda options: (options.pixels, options.pixels),
    sparse=True,
    convention=(
        "rows η′, columns φ′: pT-weighted centroid to the origin, principal axis to η′ (rotate), the halves with more pT to "
        "positive η′ and φ′ (flip); cropped to [−width/2, width/2); pixels are sums of pT to the power `power`, normalised "
        "to 1; then smeared by a Gaussian of `smear` pixels."
    ),
    reference="arXiv:1808.08979, arXiv:2104.09051",
)
