"""Masses of the leading objects of an event in pairs, and the numbers that searches cut on."""

from __future__ import annotations

import numpy as np

from coffea_ad.features.objects import KINDS, SelectedObjects
from coffea_ad.typing import Float64s

__all__ = ["TWO_BODY", "two_body_masses"]


TWO_BODY: dict[str, tuple[str, str]] = {
    "mjj": ("jet", "jet"),
    "mbb": ("bjet", "bjet"),
    "mjb": ("jet", "bjet"),
    "mje": ("jet", "electron"),
    "mbe": ("bjet", "electron"),
    "mjmu": ("jet", "muon"),
    "mbmu": ("bjet", "muon"),
    "mjgamma": ("jet", "photon"),
    "mbgamma": ("bjet", "photon"),
}
"""The masses in which the search of arXiv:2307.01612 looks for bumps, and the kinds of leading objects they are of."""


@np.errstate(invalid="ignore", over="ignore")
def two_body_masses(objects: SelectedObjects) -> dict[str, Float64s]:
    """Return the invariant masses of pairs of leading objects, {name in `TWO_BODY`: (n_events,) float64}, GeV.

    m² = (E₁ + E₂)² − |p₁ + p₂|²; of two objects of one kind, those of highest pT. NaN in events without such a pair.

    Parameters
    ----------
    objects : SelectedObjects
        Light jets and b jets are different kinds.

    Examples
    --------
    >>> one, two = np.array([100.0, 100.0]), np.zeros(2)
    >>> event = SelectedObjects(
    ...     np.array([0, 2]), np.array([0, 4]), np.array([0, 0]), one, two, np.array([0, np.pi]), two, two, two, two == 0
    ... )
    >>> masses = two_body_masses(event)
    >>> float(masses["mjgamma"][0].round(6)), float(masses["mjj"][0])
    (200.0, nan)
    """
    n = len(objects.offsets) - 1
    event = np.repeat(np.arange(n), np.diff(objects.offsets))
    momentum = np.full((4, n, len(KINDS), 2), np.nan)
    top = objects.rank < 2
    place = event[top], objects.kind[top], objects.rank[top]
    pt, eta, phi, mass = (column[top] for column in (objects.pt, objects.eta, objects.phi, objects.mass))
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    for k, component in enumerate((px, py, pz, np.sqrt(px**2 + py**2 + pz**2 + mass**2))):
        momentum[(k, *place)] = component
    out = {}
    for name, kinds in TWO_BODY.items():
        one, two = (KINDS.index(kind) for kind in kinds)
        px, py, pz, e = momentum[:, :, one, 0] + momentum[:, :, two, int(one == two)]
        out[name] = np.sqrt(np.maximum(e**2 - px**2 - py**2 - pz**2, 0.0))
    return out


def event_numbers(objects: SelectedObjects, *, leptons: bool = True) -> dict[str, Float64s]:
    """Return numbers of events that a skim stores and a processor gives to its taggers, by the same names.

    Jets are light jets and b jets together: m_jj is of the two of highest pT, whatever their flavour, and 0 with fewer.

    Parameters
    ----------
    objects : SelectedObjects
    leptons : bool
        Whether leptons were looked at; otherwise their numbers are NaN, which is not 0.

    Returns
    -------
    {name: (n_events,) float64}
        met, ht, leading_jet_pt, leading_lepton_pt, mjj in GeV; n_jets, n_leptons.

    Examples
    --------
    >>> one, zero = np.array([100.0, 100.0]), np.zeros(2)
    >>> light_and_b = SelectedObjects(
    ...     np.array([0, 2]), np.array([0, 1]), np.array([0, 0]), one, zero, np.array([0, np.pi]), zero, zero, zero, zero == 0
    ... )
    >>> float(event_numbers(light_and_b)["mjj"][0].round(6))
    200.0
    """
    n = len(objects.offsets) - 1
    event = np.repeat(np.arange(n), np.diff(objects.offsets))
    jets, lepton = np.flatnonzero(objects.kind < 2), np.isin(objects.kind, (2, 3))
    jets = jets[np.lexsort((-objects.pt[jets], event[jets]))]
    number = np.bincount(event[jets], minlength=n)
    place = np.arange(len(jets)) - np.repeat(np.cumsum(number) - number, number)
    pt, eta, phi, mass = (np.zeros((n, 2)) for _ in range(4))
    two = jets[place < 2]
    for table, values in ((pt, objects.pt), (eta, objects.eta), (phi, objects.phi), (mass, objects.mass)):
        table[event[two], place[place < 2]] = values[two]
    with np.errstate(invalid="ignore", over="ignore"):  # events with infinite numbers are undefined
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
        e = np.sqrt(px**2 + py**2 + pz**2 + mass**2).sum(axis=1)
        square = e**2 - px.sum(axis=1) ** 2 - py.sum(axis=1) ** 2 - pz.sum(axis=1) ** 2
    leading = np.zeros(n)
    np.maximum.at(leading, event[lepton], objects.pt[lepton])
    return {
        "met": np.asarray(objects.met, np.float64),
        "ht": np.bincount(event[jets], objects.pt[jets], minlength=n),
        "n_jets": number.astype(np.float64),
        "n_leptons": np.bincount(event[lepton], minlength=n).astype(np.float64) if leptons else np.full(n, np.nan),
        "leading_jet_pt": pt[:, 0],
        "leading_lepton_pt": leading if leptons else np.full(n, np.nan),
        "mjj": np.where(number >= 2, np.sqrt(np.maximum(square, 0)), 0.0),
    }
