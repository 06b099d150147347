"""Freeze substructure values of fastjet and fastjet-contrib for toy jets.

    .venv/bin/python tests/data/substructure_fastjet.py

writes substructure_fastjet.json with the constituents and, per jet, from the `fastjet` package (angles in rapidity and
azimuth, R0 = 0.8, C/A trees):

- tau1…tau4 (NormalizedMeasure, OnePass_KT_Axes, β = 1), c2 (β = 0.5), msoftdrop (z_cut = 0.1, β = 0);
- tauN[axes=…,beta=…], N = 1…6: 0 for a jet with at most N particles. Where an axis ends on a particle, their distance
  is rounding error in fastjet, and its square root is not: with one-pass axes and β = 0.5, expect agreement to 1e-7;
- e2, e3, e4 [beta=…]: correlators normalised with Σ pT, sums over i < j < …, and the ratios c1, c2, d2, n2, n3, m2;
- softdrop_…[z_cut=…,beta=…]: mass, pt, eta, phi (0…2π) and number n of particles of the groomed jet, and
  zg = min(pT1, pT2) / (pT1 + pT2) and rg = ΔR12 of its last splitting, both −1 for a jet groomed to one particle;
- lund_ln_inv_delta, lund_ln_kt: ln(1/ΔR) and ln(pT_softer ΔR) of the primary Lund plane, from the root of the tree on.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import awkward as ak
import numpy as np

HERE = Path(__file__).parent
R0 = 0.8
BETAS = (0.5, 1.0, 2.0)
AXES = {"KT": BETAS, "WTA_KT": (1.0,), "OnePass_KT": BETAS, "OnePass_WTA_KT": (1.0,)}
# most toy jets pass the usual cuts at their first splitting: the hard ones tell the parameters apart
SOFTDROP = ((0.1, 0.0), (0.1, 1.0), (0.1, 2.0), (0.05, 0.0), (0.2, -1.0), (0.4, 0.0), (0.4, 1.0), (0.4, 2.0))


def cluster(offsets, pt, eta, phi, mass):
    import fastjet
    import vector

    vector.register_awkward()
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    p4 = ak.zip({"px": px, "py": py, "pz": pz, "E": e}, with_name="Momentum4D")
    # one "event" per jet, with a radius so large that all of it stays together
    return fastjet.ClusterSequence(
        ak.unflatten(p4, np.diff(offsets)), fastjet.JetDefinition(fastjet.cambridge_algorithm, 1000.0)
    )


def subjettiness(jets, axes, beta, largest):
    # the package takes an axes name it does not know for KT_Axes, without a word
    return ak.to_numpy(
        jets.njettiness(
            measure_definition="NormalizedMeasure",
            axes_definition=f"{axes}_Axes",
            njets=list(range(1, largest + 1)),
            beta=beta,
            R0=R0,
        )
    )


def fastjet_values(offsets, pt, eta, phi, mass):
    jets = cluster(offsets, pt, eta, phi, mass)
    tau = subjettiness(jets, "OnePass_KT", 1.0, 4)
    return {
        **{f"tau{i + 1}": tau[:, i] for i in range(4)},
        "c2": ak.to_numpy(jets.exclusive_jets_energy_correlator(1, func="c2", beta=0.5)),
        "msoftdrop": ak.to_numpy(jets.exclusive_jets_softdrop_grooming(1, 0.0, 0.1, R0=R0).msoftdrop),
    }


def more_values(offsets, pt, eta, phi, mass):
    jets = cluster(offsets, pt, eta, phi, mass)
    values = {}
    for axes, betas in AXES.items():
        for beta in betas:
            tau = subjettiness(jets, axes, beta, 6)
            values |= {f"tau{i + 1}[axes={axes},beta={beta:g}]": tau[:, i] for i in range(6)}
    for beta in BETAS:
        for n in (2, 3, 4):
            # "generic" is normalised only with angles=-1, which means all n(n-1)/2 of them
            values[f"e{n}[beta={beta:g}]"] = jets.exclusive_jets_energy_correlator(
                1, beta, n, -1, func="generic", normalized=True
            )
        for name in ("c1", "c2", "d2", "n2", "n3", "m2"):
            values[f"{name}[beta={beta:g}]"] = jets.exclusive_jets_energy_correlator(1, beta, func=name)
    for z_cut, beta in SOFTDROP:
        groomed = jets.exclusive_jets_softdrop_grooming(1, beta, z_cut, R0=R0)
        fields = {"mass": "msoftdrop", "pt": "ptsoftdrop", "eta": "etasoftdrop", "phi": "phisoftdrop"}
        fields |= {"zg": "symmetrysoftdrop", "rg": "deltaRsoftdrop"}
        columns = {k: groomed[v] for k, v in fields.items()} | {"n": ak.num(groomed.constituents)}
        values |= {f"softdrop_{k}[z_cut={z_cut:g},beta={beta:g}]": v for k, v in columns.items()}
    lund = jets.exclusive_jets_lund_declusterings(1)[:, 0]
    return {k: ak.to_numpy(v) for k, v in values.items()} | {
        "lund_ln_inv_delta": -np.log(lund.Delta),
        "lund_ln_kt": np.log(lund.kt),
    }


def main() -> None:
    sys.path.insert(0, str(HERE.parent))
    from toys import toy_jets

    rng = np.random.default_rng(7)
    offsets, pt, eta, phi, mass = toy_jets(rng, 40, 60)
    keep = np.repeat(np.diff(offsets) >= 3, np.diff(offsets))  # fastjet's N3 is 0/0 with two, its C2 with one
    counts = np.diff(offsets)[np.diff(offsets) >= 3]
    jets = {
        "offsets": np.r_[0, np.cumsum(counts)],
        "pt": pt[keep],
        "eta": eta[keep],
        "phi": phi[keep],
        "mass": mass[keep],
    }
    values = fastjet_values(*jets.values()) | more_values(*jets.values())
    frozen = {
        "made_with": {p: importlib.metadata.version(p) for p in ("fastjet", "awkward", "vector")},
        "jets": {k: v.tolist() for k, v in jets.items()},
        "values": {k: v.tolist() for k, v in values.items()},
    }
    (HERE / "substructure_fastjet.json").write_text(json.dumps(frozen, allow_nan=False))


if __name__ == "__main__":
    main()
