"""Masses of the leading objects of an event in pairs, and the numbers that searches cut on."""

from __future__ import annotations

import numpy as np

from coffea_ad.features.objects import SelectedObjects
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
    return {name: objects.pair_mass(*kinds) for name, kinds in TWO_BODY.items()}


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
    jets, lepton_kinds = ("jet", "bjet"), ("muon", "electron")
    n_jets, unknown = objects.n(*jets), np.full(len(objects), np.nan)
    return {
        "met": np.asarray(objects.met, np.float64),
        "ht": objects.ht,
        "n_jets": n_jets.astype(np.float64),
        "n_leptons": objects.n(*lepton_kinds).astype(np.float64) if leptons else unknown,
        "leading_jet_pt": objects.leading_pt(*jets),
        "leading_lepton_pt": objects.leading_pt(*lepton_kinds) if leptons else unknown.copy(),
        "mjj": np.where(n_jets >= 2, objects.pair_mass(jets, jets), 0.0),
    }
