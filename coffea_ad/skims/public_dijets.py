"""Readers of the LHC Olympics: high-level features, the arrays of CATHODE, and particles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa

from coffea_ad import features
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.features.events import DijetOptions, dijet_values, jet_shapes, leading_pairs
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.features.substructure import Conventions, substructure
from coffea_ad.nanoaod.columns import offsets_of
from coffea_ad.skims.blocks import Block, labelled
from coffea_ad.skims.hdf5 import Frame, opened
from coffea_ad.typing import Float64s

__all__ = ["cathode_array", "olympics_features", "olympics_particles"]

_ROWS, _EVENTS = 100_000, 4000
_JET = ("px", "py", "pz", "m", "tau1", "tau2")
_PARTICLES = 700


def _options(config: FeatureConfig, which: str) -> DijetOptions:
    options = features.get(config.name).resolve(config.options)
    assert isinstance(options, DijetOptions)
    if which and (options.inputs != "baseline" or options.mass != "mass" or options.source != "constituents"):
        raise ConfigError(
            f"{which} holds m_JJ, masses and τ21 only: inputs=baseline, mass=mass and source=constituents; lhco-raw has the others"
        )
    return options


def _columns(config: FeatureConfig, values: Float64s) -> dict[str, pa.Array]:
    feature = features.get(config.name)
    names = [f"{config.key}.{c.name}" for c in feature.columns(feature.resolve(config.options))]
    return {name: pa.array(column) for name, column in zip(names, values.astype(np.float32).T, strict=True)}


def olympics_features(path: Path, address: str, config: FeatureConfig, stop: int | None) -> Iterator[Block]:
    """Read `events_anomalydetection….features.h5`: momenta (GeV), masses and τ of the two leading jets of each event, a label.

    Events whose jets do not pass `jet_pt_min` and `jet_eta_max` are undefined, as the feature says.
    """
    options = _options(config, "lhco")
    names = [f"{k}j{j}" for j in (1, 2) for k in _JET]
    with opened(path, address) as file:
        frame = Frame(file, address)
        lacking = [name for name in names if name not in frame.place]
        if lacking:
            raise SkimError(
                f"{address}: it has no column {', '.join(lacking)}, as features of the LHC Olympics have; its columns are "
                f"{', '.join(frame.columns[:20])}"
            )
        label = ["label"] if "label" in frame.place else []
        total = len(frame) if stop is None else min(stop, len(frame))
        for start in range(0, total, _ROWS):
            table = frame.read([*names, *label], start, min(start + _ROWS, total))
            jets = table[:, :12].reshape(-1, 2, 6)
            dataset = labelled(address, table[:, 12] if label else None, len(table))
            yield Block(dataset, np.ones(len(table)), _columns(config, _dijets(jets, options)))


def _dijets(jets: Float64s, options: DijetOptions) -> Float64s:
    """Compute the dijet's baseline from px, py, pz, m, τ1, τ2 of two jets, (n, 2, 6); NaN where a jet does not pass."""
    px, py, pz, mass, tau1, tau2 = np.moveaxis(jets, 2, 0)
    pt = np.hypot(px, py)
    eta, phi = np.arcsinh(pz / np.maximum(pt, 1e-9)), np.arctan2(py, px)
    values = dijet_values(pt, eta, phi, mass, mass, (tau2 / (tau1 + options.epsilon))[:, :, None], options)
    values[~((pt > options.jet_pt_min) & (np.abs(eta) < options.jet_eta_max)).all(axis=1)] = np.nan
    return values


def cathode_array(path: Path, address: str, config: FeatureConfig, stop: int | None) -> Iterator[Block]:
    """Read an array of m_JJ, m_J1, Δm_J (TeV), τ21 of J1 and J2, label, as the code of CATHODE stores it in .npy files.

    Momenta of jets are not there: their cuts are taken as passed.
    """
    options = _options(config, "lhco-npy")
    if options.delta_r:
        raise ConfigError("lhco-npy holds no directions of jets, so that there is no delta_r; lhco has them")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise SkimError(f"{address}: not a readable .npy file ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] not in (5, 6) or array.dtype.kind != "f":
        shape = getattr(array, "shape", "of an archive")
        raise SkimError(f"{address}: its array is {shape}, but must be (n, 6): m_JJ, m_J1, Δm_J (TeV), τ21, τ21, label")
    total = len(array) if stop is None else min(stop, len(array))
    if total and not 0.1 < np.median(array[:total, 0]) < 100:
        raise SkimError(f"{address}: its m_JJ is {np.median(array[:total, 0]):g} in the median, but must be in TeV")
    for start in range(0, total, _ROWS):
        rows = np.array(array[start : min(start + _ROWS, total)], np.float64)
        rows[:, :3] *= 1000.0
        rows[:, 1:3] += options.shift * rows[:, :1]
        dataset = labelled(address, rows[:, 5] if rows.shape[1] == 6 else None, len(rows))
        yield Block(dataset, np.ones(len(rows)), _columns(config, rows[:, :5]))


def olympics_particles(path: Path, address: str, config: FeatureConfig, stop: int | None) -> Iterator[Block]:
    """Read `events_anomalydetection.h5`: 700 × (pT, η, φ) of each event, GeV, filled up with zeros, and perhaps a label.

    Massless particles are clustered by anti-kT with the radius R0 of the feature, which is computed from them then.
    """
    options = _options(config, "")
    if options.source != "constituents":
        raise ConfigError("lhco-raw stores no N-subjettiness: source=constituents")
    with opened(path, address) as file:
        frame = Frame(file, address)
        if len(frame.columns) not in (3 * _PARTICLES, 3 * _PARTICLES + 1):
            raise SkimError(
                f"{address}: it has {len(frame.columns)} columns, but must have 2100, 700 times pT, η, φ, and perhaps a label"
            )
        total = len(frame) if stop is None else min(stop, len(frame))
        for start in range(0, total, _EVENTS):
            table = frame.read(frame.columns, start, min(start + _EVENTS, total))
            values = _clustered(table[:, : 3 * _PARTICLES].reshape(-1, _PARTICLES, 3), options)
            label = table[:, -1] if len(frame.columns) > 3 * _PARTICLES else None
            yield Block(labelled(address, label, len(table)), np.ones(len(table)), _columns(config, values))


def _clustered(particles: Float64s, options: DijetOptions) -> Float64s:
    """Cluster massless particles, (n, 700, 3), and compute the dijet, (n, columns)."""
    import fastjet

    filled = (particles[:, :, 0] > 0) & np.isfinite(particles).all(axis=2)
    counts = filled.sum(axis=1)
    out = np.full((len(particles), len(features.get("dijet").columns(options))), np.nan)
    some = np.flatnonzero(counts)
    if len(some) == 0:
        return out
    pt, eta, phi = particles[filled].T
    p4 = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)}
    sequence = fastjet.ClusterSequence(
        ak.unflatten(ak.zip(p4, with_name="Momentum4D"), counts[some]),
        fastjet.JetDefinition(fastjet.antikt_algorithm, options.R0),
    )
    lowest = max(options.jet_pt_min, 1.0)
    jets, members = sequence.inclusive_jets(lowest), sequence.constituent_index(lowest)
    number = ak.to_numpy(ak.num(jets))
    px, py, pz, e = (ak.to_numpy(ak.flatten(jets[k])).astype(np.float64) for k in ("px", "py", "pz", "E"))
    jet_pt = np.hypot(px, py)
    jet_eta, jet_phi = np.arcsinh(pz / np.maximum(jet_pt, 1e-9)), np.arctan2(py, px)
    mass = np.sqrt(np.maximum((e + pz) * (e - pz) - jet_pt**2, 0))
    two, place = leading_pairs(number, jet_pt, jet_eta, options)
    # constituents of the two jets of each event: places within the event become places in all
    first = np.repeat((np.cumsum(counts) - counts)[some], number)
    sizes = ak.to_numpy(ak.num(ak.flatten(members)))
    starts = np.cumsum(sizes) - sizes
    index = ak.to_numpy(ak.flatten(members, axis=None)).astype(np.int64) + np.repeat(first, sizes)
    chosen_jets = place.ravel()
    offsets = offsets_of(sizes[chosen_jets])
    rows = index[np.arange(offsets[-1]) + np.repeat(starts[chosen_jets] - offsets[:-1], sizes[chosen_jets])]
    of_jets = (offsets, pt[rows], eta[rows], phi[rows], np.zeros(len(rows)))
    ordered_by = mass[place]
    if options.mass == "msoftdrop":
        soft = substructure(["msoftdrop"], *of_jets, conventions=Conventions(R0=options.R0))
        ordered_by = soft.reshape(len(place), 2)
    shapes = jet_shapes(*of_jets, options)
    shapes = shapes.reshape(len(place), 2, shapes.shape[1])
    out[some[two]] = dijet_values(
        jet_pt[place], jet_eta[place], jet_phi[place], mass[place], ordered_by, shapes, options
    )
    return out
