"""Missing momentum that follows its jets: corrections and variations of jets are taken out of it."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from coffea_ad.typing import Float64s

__all__ = ["propagation_reads", "with_jets", "with_shifted_jets"]


_EM = ("chEmEF", "neEmEF")
_MUONS = "muonSubtrFactor"


def propagation_reads(collection: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return the branches that `with_shifted_jets` reads of jets where a file has them.

    >>> propagation_reads("Jet")["Jet_muonSubtrFactor"]
    (('Jet_muonSubtrFactor',), ())
    """
    return {f"{collection}_{field}": ((f"{collection}_{field}",), ()) for field in (*_EM, _MUONS)}


def with_shifted_jets(met: Any, jets: Any, *, pt_min: float = 15.0, em_max: float = 0.9) -> tuple[Float64s, Float64s]:
    """Return missing momentum less what has moved the jets, after the recipe of CMS for its type-1 correction.

    p' = p − Σ (1 − f_μ) δ p̂ over jets with (1 − f_μ) pT > pt_min and less than em_max of their energy from electrons and
    photons, where δ is how far their pT is from the stored one, and f_μ the part of muons in the raw pT. So neither
    electrons and photons, which are jets as well, nor muons move it. A file that lacks the energy fractions or f_μ, as those
    of AK8 jets often do, excludes nothing by them.

    Parameters
    ----------
    met : (n_events,) with pt and phi
        GeV.
    jets : (n_events, jets) with pt, phi and `pt_shift`
        As `Corrector.jets` gives them, or some of them.
    pt_min : float, GeV
        Of the jets as they are now.
    em_max : float

    Returns
    -------
    pt, phi : (n_events,) float64

    References
    ----------
    CMS, "Performance of missing transverse momentum reconstruction in proton-proton collisions at √s = 13 TeV using the CMS
    detector", arXiv:1903.06078, section 4.

    Examples
    --------
    >>> met = ak.Array([{"pt": 50.0, "phi": 0.0}])
    >>> jets = ak.Array([[{"pt": 100.0, "phi": 0.0, "pt_shift": 5.0}, {"pt": 14.0, "phi": 0.0, "pt_shift": 5.0}]])
    >>> with_shifted_jets(met, jets)[0]
    array([45.])
    """
    fields, counts = ak.fields(jets), ak.to_numpy(ak.num(jets["pt"], axis=1))

    def flat(field: str) -> Float64s:
        return np.asarray(ak.to_numpy(ak.flatten(jets[field], axis=1)), np.float64)

    pt, phi, shift = flat("pt"), flat("phi"), flat("pt_shift")
    rest = 1 - flat(_MUONS) if _MUONS in fields else np.ones(len(pt))
    counted = rest * pt > pt_min
    if set(_EM) <= set(fields):
        counted &= flat(_EM[0]) + flat(_EM[1]) < em_max
    counted &= shift != 0
    moved = np.where(counted, rest * shift, 0.0)
    event = np.repeat(np.arange(len(counts)), counts)
    size, angle = (np.asarray(ak.to_numpy(met[k]), np.float64) for k in ("pt", "phi"))
    with np.errstate(invalid="ignore"):  # an infinite angle: no number, which processors count as undefined
        x, y = (
            size * f(angle) - np.bincount(event, np.where(counted, moved * f(phi), 0.0), len(counts))
            for f in (np.cos, np.sin)
        )
    stays = np.bincount(event[counted], minlength=len(counts)) == 0  # to the last bit
    return np.where(stays, size, np.hypot(x, y)), np.where(stays, angle, np.arctan2(y, x))


def with_jets(events: Any, jets: Any, met: str, *, collection: str = "Jet", pt_min: float = 15.0) -> Any:
    """Return events with other jets and with missing momentum that follows them; jets that fail `passes_id` are left out.

    Parameters
    ----------
    events : NanoEvents
    jets : (n_events, jets)
        As `Corrector.jets` gives them.
    met, collection : str
        Which missing momentum, and which jets.
    pt_min : float, GeV
        As for `with_shifted_jets`.
    """
    identified = jets[jets["passes_id"]] if "passes_id" in ak.fields(jets) else jets
    if ak.any(jets["pt_shift"] != 0):
        pt, phi = with_shifted_jets(events[met], jets, pt_min=pt_min)
        missing = events[met]
        for field, value in (("pt", pt), ("phi", phi)):
            missing = ak.with_field(missing, value, field)
        events = ak.with_field(events, missing, met)
    elif identified is jets:
        return events
    return ak.with_field(events, identified, collection)
