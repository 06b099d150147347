"""Freeze energy flow polynomials and correlator ratios of EnergyFlow for the jets of substructure_fastjet.json.

    python -m venv ef && ef/bin/pip install energyflow==1.4.0
    ef/bin/python tests/data/substructure_energyflow.py

It needs an environment of its own: EnergyFlow's dependency wasserstein pins numpy < 2, which coffea-ad does not run on.
The script imports nothing else of this project. It writes substructure_energyflow.json with, per jet,

- efp: the 13 polynomials of EFPSet("d<=3", measure="hadr", beta=1, normed=True), one column per edge list in `graphs`:
  Σ over all (ordered, also repeated) particle indices of Π z Π θ, z = pT / Σ pT, θ = ΔR in rapidity and azimuth;
- c2[beta=…], d2[beta=…]: triangle / line² and triangle / line³ of such sums, so 3/2 and 3/4 of e3/e2² and e3/e2³ with
  sums over i < j < k, as fastjet-contrib has them.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    import energyflow

    jets = json.loads((HERE / "substructure_fastjet.json").read_text())["jets"]
    pt, eta, phi, mass = (np.array(jets[k]) for k in ("pt", "eta", "phi", "mass"))
    # the measure reads the second column as the rapidity, whatever it is
    y = np.arcsinh(pt * np.sinh(eta) / np.hypot(pt, mass))
    particles = np.stack([pt, y, phi, mass], axis=1)
    events = [particles[a:b] for a, b in itertools.pairwise(jets["offsets"])]

    measure = {"measure": "hadr", "normed": True, "coords": "ptyphim"}
    efps = energyflow.EFPSet("d<=3", beta=1, **measure)
    values = {"efp": [efps.compute(event).tolist() for event in events]}
    for beta in (0.5, 1.0, 2.0):
        for name, ratio in (("c2", energyflow.C2), ("d2", energyflow.D2)):
            observable = ratio(beta=beta, **measure)
            values[f"{name}[beta={beta:g}]"] = [float(observable.compute(event)) for event in events]
    frozen = {
        "made_with": {p: importlib.metadata.version(p) for p in ("energyflow", "numpy")},
        "graphs": [[list(edge) for edge in graph] for graph in efps.graphs()],
        "values": values,
    }
    (HERE / "substructure_energyflow.json").write_text(json.dumps(frozen, allow_nan=False))


if __name__ == "__main__":
    main()
