"""Twin of the constituent tensor: one jet and one slot at a time. Imported by tests only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Float64s

__all__ = ["constituent_tensor"]


_TYPES = {
    "is_charged_hadron": (211, 321, 2212),
    "is_neutral_hadron": (130, 310, 2112, 1),
    "is_photon": (22, 2),
    "is_electron": (11,),
    "is_muon": (13,),
}


def _energy(pt: float, eta: float, mass: float) -> float:
    return math.hypot(pt, pt * math.sinh(eta), mass)


def _turned_back(angle: float) -> float:
    return math.remainder(angle, 2 * math.pi)


def _centre(pt: Float64s, eta: Float64s, phi: Float64s, center: str) -> tuple[float, float]:
    if center == "axis":
        px, py, pz = sum(pt * np.cos(phi)), sum(pt * np.sin(phi)), sum(pt * np.sinh(eta))
        return math.asinh(pz / math.hypot(px, py)), math.atan2(py, px)
    # the mean of angles needs a place to count from that is inside the jet: its hardest constituent
    hardest = float(phi[int(np.argmax(pt))])
    away = [_turned_back(angle - hardest) for angle in phi]
    return float(np.average(eta, weights=pt)), _turned_back(hardest + float(np.average(away, weights=pt)))


def constituent_tensor(
    columns: Sequence[str],
    n_slots: int,
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike,
    charge: npt.ArrayLike | None = None,
    pdg_id: npt.ArrayLike | None = None,
    center: str = "centroid",
) -> Float64s:
    """Compute what `coffea_ad.features.constituents.constituent_tensor` computes, (n_jets, n_slots, columns)."""
    size = np.shape(pt)
    all_rows = [np.array(a, float) for a in (pt, eta, phi, mass, np.zeros(size) if charge is None else charge)]
    kinds = np.zeros(size, int) if pdg_id is None else np.array(pdg_id)
    edges = np.array(offsets)
    out = np.zeros((len(edges) - 1, n_slots, len(columns)))
    for jet in range(len(out)):
        rows = [i for i in range(edges[jet], edges[jet + 1]) if not all_rows[0][i] <= 0]
        p, e, f, m, q = (a[rows] for a in all_rows)
        if not rows or not np.isfinite([p, e, f, m, q]).all():
            out[jet] = np.nan
            continue
        eta0, phi0 = _centre(p, e, f, center)
        energies = [_energy(*one) for one in zip(p, e, m, strict=True)]
        ordered = sorted(range(len(rows)), key=lambda i: -p[i])  # equal pT stay in the order of the file
        for slot, i in enumerate(ordered[:n_slots]):
            deta, dphi = float(e[i]) - eta0, _turned_back(float(f[i]) - phi0)
            values = {
                "pt": p[i], "energy": energies[i], "mass": m[i], "eta": e[i], "phi": f[i], "charge": q[i], "mask": 1.0,
                "deta": deta, "dphi": dphi, "dr": math.hypot(deta, dphi),
                "log_pt": math.log(p[i]), "log_energy": math.log(energies[i]),
                "pt_rel": p[i] / sum(p), "energy_rel": energies[i] / sum(energies),
                "log_pt_rel": math.log(p[i] / sum(p)), "log_energy_rel": math.log(energies[i] / sum(energies)),
            }  # fmt: skip
            for name, numbers in _TYPES.items():
                values[name] = 1.0 if abs(kinds[rows[i]]) in numbers else 0.0
            out[jet, slot] = [values[name] for name in columns]
    return out
