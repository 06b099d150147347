"""Twins of the table of trigger objects and of the dijet: one event at a time. Imported by tests only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from coffea_ad.features.energy_flow import GRAPHS
from coffea_ad.features.events import DijetOptions, EventObjectOptions
from coffea_ad.features.naive.energy_flow import efp_of_many
from coffea_ad.features.naive.rmm import Particle, select
from coffea_ad.features.naive.substructure import jets as all_jets
from coffea_ad.features.naive.substructure import substructure
from coffea_ad.features.substructure import Conventions
from coffea_ad.typing import Float64s

__all__ = ["dijet", "event_objects"]


_NUMBERS = {"met": 1, "electron": 2, "muon": 3, "jet": 4}
_PLACES = {"met": 1, "electron": 4, "muon": 4, "jet": 10}


def _row(name: str, p: Particle, options: EventObjectOptions) -> list[float]:
    acceptance = 1.0 if name == "met" else getattr(options, f"{name}_eta_max")
    eta_scale = {"talk": acceptance, "common": 4.0, "none": 1.0}[options.scaling]
    phi_scale = 1.0 if options.scaling == "none" else math.pi
    values = {
        "pt": p.pt,
        "eta": p.eta / eta_scale,
        "phi": p.phi / phi_scale,
        "sin_phi": math.sin(p.phi),
        "cos_phi": math.cos(p.phi),
        "type": _NUMBERS[name],
        "mask": 1,
        **{f"is_{other}": name == other for other in _NUMBERS},
    }
    return [float(values[column]) for column in options.columns]


def event_objects(events: Sequence[Mapping[str, Any]], options: EventObjectOptions) -> Float64s:
    """Compute the feature `event_objects`, (n, 19, columns), of events as `coffea_ad.features.naive.rmm.select` has them."""
    out = np.zeros((len(events), 19, len(options.columns)))
    for i, event in enumerate(events):
        selected = select(event, options, (10, 0, 4, 4, 0))
        if selected is None:
            out[i] = np.nan
            continue
        jets, _, muons, electrons, _ = selected.kinds
        if options.leading_lepton_pt_min > 0 and not any(
            p.pt >= options.leading_lepton_pt_min for p in (*muons, *electrons)
        ):
            out[i] = np.nan
            continue
        met = [Particle(selected.met, 0.0, selected.met_phi, 0.0)] if selected.met > 0 else []
        first = 0
        for name, particles in (("met", met), ("electron", electrons), ("muon", muons), ("jet", jets)):
            for k, p in enumerate(particles):
                out[i, first + k] = _row(name, p, options)
            first += _PLACES[name]
    return out


def _shapes(jet: Mapping[str, Any], options: DijetOptions) -> list[float]:
    if options.source == "stored":
        return [jet["tau2"] / (jet["tau1"] + options.epsilon)]

    def tau(n: int, beta: float = 1.0) -> float:
        pt, eta, phi, mass = np.array(jet["constituents"], float).reshape(-1, 4).T
        c = Conventions(axes=options.axes, R0=options.R0, tau_beta=beta)
        return float(substructure([f"tau{n}"], [0, len(pt)], pt, eta, phi, mass, conventions=c)[0, 0])

    if options.inputs == "kitchen_sink":
        return _kitchen_sink(jet, options, tau)
    if options.inputs == "extended3":
        return [tau(n, beta) for beta in (0.5, 1.0, 2.0) for n in range(1, 10)]
    taus = [tau(n) for n in range(1, 3 if options.inputs == "baseline" else 6)]
    if options.inputs == "extended2":
        return taus
    return [over / (under + options.epsilon) for under, over in itertools.pairwise(taus)]


def _kitchen_sink(jet: Mapping[str, Any], options: DijetOptions, tau: Callable[[int, float], float]) -> list[float]:
    pt, eta, phi, mass = np.array(jet["constituents"], float).reshape(-1, 4).T
    conventions = Conventions(R0=options.R0)
    (whole,) = all_jets([0, len(pt)], pt, eta, phi, mass, conventions=conventions)
    if whole is None:
        return [math.nan] * 51
    rest = substructure(
        ["msoftdrop", "multiplicity", "ptd"], [0, len(pt)], pt, eta, phi, mass, conventions=conventions
    )[0]
    return [
        *(tau(n, beta) for beta in (0.5, 1.0, 2.0) for n in range(1, 10)),
        *(efp_of_many(graph, whole.particles) for graph in GRAPHS.values()),
        math.sqrt(whole.axis.mass2),
        *map(float, rest),
    ]


def _dijet(jets: Sequence[Mapping[str, Any]], options: DijetOptions) -> list[float]:
    good = [jet for jet in jets if jet["pt"] > options.jet_pt_min and abs(jet["eta"]) < options.jet_eta_max]
    two = sorted(good, key=lambda jet: -jet["pt"])[:2]
    if len(two) < 2:
        return []
    energy, px, py, pz = np.sum([Particle(j["pt"], j["eta"], j["phi"], j["mass"]).p4 for j in two], axis=0)
    mjj = math.sqrt(max(0.0, energy**2 - px**2 - py**2 - pz**2))
    j1, j2 = sorted(two, key=lambda jet: max(0.0, jet[options.mass]))
    m1, m2 = max(0.0, j1[options.mass]), max(0.0, j2[options.mass])
    row = [mjj, m1 + options.shift * mjj, m2 - m1 + options.shift * mjj, *_shapes(j1, options), *_shapes(j2, options)]
    if options.delta_r:
        row.append(math.hypot(j1["eta"] - j2["eta"], math.remainder(j1["phi"] - j2["phi"], 2 * math.pi)))
    return row


def dijet(events: Sequence[Mapping[str, Any]], options: DijetOptions) -> Float64s:
    """Compute the feature `dijet`, (n, columns).

    Parameters
    ----------
    events : sequence of mappings
        A list of jets (field → number) each; `constituents` of a jet are its (pT, η, φ, mass), (n, 4).
    options : DijetOptions
    """
    each = {"baseline": 1, "extended1": 4, "extended2": 5, "extended3": 27, "kitchen_sink": 51}[options.inputs]
    out = np.full((len(events), 3 + 2 * each + options.delta_r), np.nan)
    for row, event in zip(out, events, strict=True):
        inputs = _dijet(event[options.jets], options)
        if inputs:
            row[:] = inputs
    return out
