"""Slow, obvious twins of the image kernels: the definitions, written down without any trick. Imported by tests only."""

from __future__ import annotations

import numpy as np

from coffea_ad.typing import Float64s, Ints

__all__ = ["images", "smear"]


def _positive_half(x: Float64s, pt: Float64s) -> Float64s:
    return -x if np.sum(pt[x < 0]) - np.sum(pt[x > 0]) > 1e-9 * np.sum(pt) else x


def _on_axis(points: Float64s) -> Float64s:
    return np.where(np.abs(points) < 1e-9, 0.0, points)


def _aligned(pt: Float64s, eta: Float64s, phi: Float64s, *, rotate: bool, flip: bool) -> Float64s:
    dphi = np.angle(np.exp(1j * (phi - phi[np.argmax(pt)])))
    points = np.stack([eta, dphi])
    points = _on_axis(points - np.average(points, axis=1, weights=pt, keepdims=True))
    if rotate:
        spread, directions = np.linalg.eigh(pt / np.sum(pt) * points @ points.T)
        eta_part, phi_part = directions[:, 1]
        if eta_part < 0 or (eta_part == 0 and phi_part < 0):
            eta_part, phi_part = -eta_part, -phi_part
        if spread[1] - spread[0] > 1e-9 * np.sum(spread):
            points = _on_axis(np.array([[eta_part, phi_part], [-phi_part, eta_part]]) @ points)
    return np.stack([_positive_half(x, pt) for x in points]) if flip else points


def images(
    offsets: Ints, pt: Float64s, eta: Float64s, phi: Float64s,
    size: int, width: float, rotate: bool, flip: bool, power: float,
) -> Float64s:  # fmt: skip
    """Compute what `coffea_ad.features.images.jet_images` fills, (n_jets, size, size)."""
    out = np.full((len(offsets) - 1, size, size), np.nan)
    edges = (np.arange(size + 1) - size / 2) * (width / size)
    for jet in range(len(out)):
        rows = np.arange(offsets[jet], offsets[jet + 1])
        rows = rows[pt[rows] > 0]
        if len(rows) == 0:
            continue
        x, y = _aligned(pt[rows], eta[rows], phi[rows], rotate=rotate, flip=flip)
        below = (x < width / 2) & (y < width / 2)  # the last bin of a histogram includes its upper edge
        image = np.histogram2d(x[below], y[below], bins=(edges, edges), weights=pt[rows][below])[0]
        if np.sum(image) > 0:
            image = image / np.sum(image)
            image = np.where(image > 0, image**power, 0.0)
            out[jet] = image / np.sum(image)
    return out


def smear(images: Float64s, sigma: float) -> Float64s:
    """Compute what `coffea_ad.features.images.smear_images` leaves, (n_jets, size, size)."""
    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.array([[np.exp(-(i**2 + j**2) / (2 * sigma**2)) for j in steps] for i in steps])
    weights /= np.sum(weights)
    size = images.shape[1]
    out = np.zeros(images.shape)
    for image, result in zip(images, out, strict=True):
        mirrored = np.pad(image, reach, mode="symmetric")
        for i in range(size):
            for j in range(size):
                result[i, j] = np.sum(weights * mirrored[i : i + 2 * reach + 1, j : j + 2 * reach + 1])
    return out
