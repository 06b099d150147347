"""How far own kernels are from the frozen values of other codes: the largest difference of each kind.

    python benchmarks/agreement.py

The values and where they come from: tests/data/substructure_fastjet.json, substructure_energyflow.json, rmm_map2rmm.json.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from rmm_root import Events, selected

from coffea_ad.features.grooming import lund_plane
from coffea_ad.features.rmm import RMMOptions, matrix, rmm_rows
from coffea_ad.features.substructure import Conventions, substructure

DATA = Path(__file__).parent.parent / "tests" / "data"
GROOMED = {"mass": "msoftdrop", "pt": "ptsoftdrop", "eta": "etasoftdrop", "phi": "phisoftdrop", "zg": "zg", "rg": "rg"}


def frozen(name):
    return json.loads((DATA / name).read_text())


def jets_of(values):
    return [np.array(values["jets"][k]) for k in ("offsets", "pt", "eta", "phi", "mass")]


def fastjet_differences():
    """(kind, difference) of every frozen value of fastjet that has a kernel."""
    values = frozen("substructure_fastjet.json")
    jets = jets_of(values)
    for key, want in values["values"].items():
        found = re.fullmatch(r"(softdrop_)?(\w+)\[(.*)\]", key)
        if found is None or key.startswith("lund"):
            continue
        groomed, name, text = found.groups()
        options = dict(part.split("=") for part in text.split(","))
        beta = float(options["beta"])
        if groomed:
            if name not in GROOMED:
                continue
            conventions = Conventions(z_cut=float(options["z_cut"]), softdrop_beta=beta)
            difference = substructure([GROOMED[name]], *jets, conventions=conventions)[:, 0] - np.maximum(want, -1e9)
            if name == "phi":
                difference = (difference + np.pi) % (2 * np.pi) - np.pi
            if name in ("zg", "rg"):  # one particle is left: 0 here, −1 there
                difference = difference[np.array(want) >= 0]
            yield ("soft drop: mass, GeV" if name == "mass" else "soft drop: pt, eta, phi, zg, rg"), difference
        elif name.startswith("tau"):
            kind = (
                "tau_N, OnePass_KT with beta = 0.5"
                if options["axes"] == "OnePass_KT" and beta == 0.5
                else "tau_N, all other"
            )
            conventions = Conventions(axes=options["axes"], tau_beta=beta)
            yield kind, substructure([name], *jets, conventions=conventions)[:, 0] - want
        elif name not in ("c1", "e4"):
            yield "energy correlators", substructure([name], *jets, conventions=Conventions(beta=beta))[:, 0] - want
    counts, plane = lund_plane(*jets)
    for column, key in enumerate(("lund_ln_inv_delta", "lund_ln_kt")):
        yield "primary Lund plane", plane[:, column] - np.concatenate(values["values"][key])
    assert counts.tolist() == [len(x) for x in values["values"]["lund_ln_kt"]]


def energyflow_differences():
    values = frozen("substructure_energyflow.json")
    jets = jets_of(frozen("substructure_fastjet.json"))
    yield (
        "energyflow: EFP1, C2 / 1.5, D2 / 0.75",
        substructure(["efp1"], *jets)[:, 0] - np.array(values["values"]["efp"])[:, 1],
    )
    for name, factor in (("c2", 1.5), ("d2", 0.75)):
        for beta in (0.5, 1.0, 2.0):
            want = np.array(values["values"][f"{name}[beta={beta:g}]"]) / factor
            got = substructure([name], *jets, conventions=Conventions(beta=beta))[:, 0]
            yield "energyflow: EFP1, C2 / 1.5, D2 / 0.75", (got - want) / np.maximum(np.abs(want), 1)


def rmm_differences():
    values = frozen("rmm_map2rmm.json")
    events = Events(
        *(np.array(values["events"][k], np.int64 if k in ("offsets", "kind") else float) for k in Events._fields)
    )
    options = RMMOptions(preset="T5N10", sqrt_s=values["energy"])
    n = len(events.met)
    got = matrix(rmm_rows(selected(events, options.shape), 0, n, options), options)
    want = np.zeros_like(got)
    for i, cells in enumerate(values["cells"]):
        want[i, cells["row"], cells["col"]] = cells["after"]
    yield "RMM, T5N10, over the larger of 1 and the cell", (got - want) / np.maximum(np.abs(want), 1)


def main():
    largest = {}
    for kind, difference in (*fastjet_differences(), *energyflow_differences(), *rmm_differences()):
        largest[kind] = max(largest.get(kind, 0.0), float(np.abs(difference).max(initial=0)))
    for kind, difference in largest.items():
        print(f"{kind:50} {difference:.1e}")


if __name__ == "__main__":
    main()
