"""Freeze substructure values of fastjet and fastjet-contrib for toy jets.

    .venv/bin/python tests/data/substructure_fastjet.py

writes substructure_fastjet.json with the constituents and, per jet, τ1…τ4 (NormalizedMeasure, OnePass_KT_Axes, β = 1,
R0 = 0.8), C2 (β = 0.5) and the soft-drop mass (z_cut = 0.1, β = 0), from the `fastjet` package.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import awkward as ak
import numpy as np

HERE = Path(__file__).parent


def fastjet_values(offsets, pt, eta, phi, mass):
    import fastjet
    import vector

    vector.register_awkward()
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    p4 = ak.zip({"px": px, "py": py, "pz": pz, "E": e}, with_name="Momentum4D")
    # one "event" per jet, with a radius so large that all of it stays together
    jets = fastjet.ClusterSequence(
        ak.unflatten(p4, np.diff(offsets)), fastjet.JetDefinition(fastjet.cambridge_algorithm, 1000.0)
    )
    tau = jets.njettiness(
        measure_definition="NormalizedMeasure", axes_definition="OnePass_KT_Axes", njets=[1, 2, 3, 4], beta=1.0, R0=0.8
    )
    tau = ak.to_numpy(tau)
    return {
        **{f"tau{i + 1}": tau[:, i] for i in range(4)},
        "c2": ak.to_numpy(jets.exclusive_jets_energy_correlator(1, func="c2", beta=0.5)),
        "msoftdrop": ak.to_numpy(jets.exclusive_jets_softdrop_grooming(1, 0.0, 0.1, R0=0.8).msoftdrop),
    }


def main() -> None:
    sys.path.insert(0, str(HERE.parent))
    from toys import toy_jets

    rng = np.random.default_rng(7)
    offsets, pt, eta, phi, mass = toy_jets(rng, 40, 60)
    keep = np.repeat(np.diff(offsets) >= 3, np.diff(offsets))  # fastjet's C2 is 0/0 with fewer
    counts = np.diff(offsets)[np.diff(offsets) >= 3]
    jets = {
        "offsets": np.r_[0, np.cumsum(counts)],
        "pt": pt[keep],
        "eta": eta[keep],
        "phi": phi[keep],
        "mass": mass[keep],
    }
    values = fastjet_values(*jets.values())
    frozen = {
        "made_with": {p: importlib.metadata.version(p) for p in ("fastjet", "awkward", "vector")},
        "jets": {k: v.tolist() for k, v in jets.items()},
        "values": {k: v.tolist() for k, v in values.items()},
    }
    (HERE / "substructure_fastjet.json").write_text(json.dumps(frozen))


if __name__ == "__main__":
    main()
