"""Tables of particle-flow candidates as their producers write them: how a link is spelled, and whether pT is PUPPI's.

| producer | candidates, links | pT |
| --- | --- | --- |
| NanoAOD v15 | `PFCand`, `pfCandIdx` | times the PUPPI weight, which is not stored |
| PFNano, and BTV's NanoAOD | `PFCands`, `pFCandsIdx` | as reconstructed, with `puppiWeight` beside it |
| JME's NanoAOD with candidates | `PFCand`, `PFCandIdx` | as reconstructed, with `puppiWeight` beside it |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.typing import Float64s, Ints

__all__ = ["BESIDE", "PUPPI_WEIGHTED", "said_weighted", "usual_name", "weights_missing"]


BESIDE = ("rawFactor", "puppiWeight")
"""Fields that are opened wherever their collections are: together they tell whether the pT of candidates is PUPPI's."""
PUPPI_WEIGHTED = "puppi_weighted"
"""The key in the metadata of a dataset that says whether the stored pT of candidates is PUPPI's."""

_LINK = re.compile(r"(\w+PFCands?)_(?:pf)?cands?idx", re.IGNORECASE)
_CENTRAL = 2.3  # |η| of a jet all of whose candidates are stored
_DIFFER = 0.01  # of pT, from which on the two sums can be told apart
_CLOSE = 0.02  # of the jet's own pT, which is rounded, and so are the candidates'
_CLOSER = 3.0


def usual_name(branch: str) -> str:
    """Return the name that v15 or PFNano has for a link to candidates; all other names stay.

    >>> usual_name("FatJetPFCand_PFCandIdx"), usual_name("FatJetPFCands_pfCandIdx"), usual_name("FatJet_pt")
    ('FatJetPFCand_pfCandIdx', 'FatJetPFCands_pFCandsIdx', 'FatJet_pt')
    """
    spelled = _LINK.fullmatch(branch)
    if spelled is None:
        return branch
    return f"{spelled[1]}_{'pFCandsIdx' if spelled[1].endswith('s') else 'pfCandIdx'}"


def said_weighted(metadata: Mapping[str, Any]) -> bool | None:
    """Return what the metadata of a dataset say of the stored pT of candidates: true if it is PUPPI's; None: nothing.

    Raises
    ------
    ConfigError
        It is neither true nor false.
    """
    value = metadata.get(PUPPI_WEIGHTED)
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    raise ConfigError(f"dataset {metadata.get('dataset')}: {PUPPI_WEIGHTED} is {value!r}, but must be true or false")


def weights_missing(
    momentum: tuple[Float64s, Float64s, Float64s],
    weight: Float64s,
    jet: Ints,
    raw_pt: Float64s,
    jet_eta: Float64s,
) -> bool | None:
    """Say whether candidates still have to be multiplied by their PUPPI weights to make up their jets.

    Of a jet of PUPPI candidates |Σ w_i p_i| is its pT before corrections, where p_i is the transverse momentum before
    PUPPI. Over all central jets for which |Σ w_i p_i| and |Σ p_i| differ by more than 1 %, the medians decide: one of the two
    has to be within 2 % of the jets' pT, and the other one three times as far from it.

    Parameters
    ----------
    momentum : pt, eta, phi, (n_constituents,) each
    weight : (n_constituents,)
    jet : (n_constituents,) int64
        The jet of each constituent.
    raw_pt, jet_eta : (n_jets,)
        pT before corrections, GeV, and η.

    Returns
    -------
    bool or None
        None: it cannot be told.

    Examples
    --------
    >>> pt, zero, one = np.array([10.0, 20.0]), np.zeros(2), np.zeros(1)
    >>> jet = np.zeros(2, np.int64)
    >>> weights_missing((pt, zero, zero), np.array([1.0, 0.5]), jet, np.array([20.0]), one)
    True
    >>> weights_missing((pt, zero, zero), np.array([1.0, 0.5]), jet, np.array([30.0]), one)
    False
    """
    pt, _, phi = momentum
    good = np.isfinite(pt) & np.isfinite(phi) & np.isfinite(weight)
    px, py = (
        np.where(good, pt * np.cos(np.where(good, phi, 0)), 0),
        np.where(good, pt * np.sin(np.where(good, phi, 0)), 0),
    )
    weight = np.where(good, weight, 0)
    n = len(raw_pt)

    def ratio(times: Float64s) -> Float64s:
        total = np.hypot(np.bincount(jet, px * times, n), np.bincount(jet, py * times, n))
        out = np.full(n, np.nan)
        np.divide(total, raw_pt, out=out, where=raw_pt > 0)
        return out

    plain, weighted = ratio(np.ones(len(pt))), ratio(weight)
    clear = np.isfinite(plain) & (np.abs(jet_eta) < _CENTRAL) & (np.abs(plain - weighted) > _DIFFER)
    if not clear.any():
        return None
    without, with_them = (float(np.median(np.abs(r[clear] - 1))) for r in (plain, weighted))
    if min(without, with_them) > _CLOSE or _CLOSER * min(without, with_them) > max(without, with_them):
        return None
    return with_them < without
