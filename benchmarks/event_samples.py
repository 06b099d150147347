"""Events as in the ADC2021 data (arXiv:2107.02157): a mixture of the Standard Model and four signals, from Pythia to a skim.

.venv/bin/python benchmarks/event_samples.py [--background 20000] [--signal 1000] [-o build/events]
.venv/bin/python benchmarks/event_samples.py --rates 20000          # of QCD: how often there is a lepton, and from which quarks

Counted are events after the cuts: an electron or muon above 23 GeV. W → ℓν, QCD, Z → ℓℓ and tt̄ have 59.2, 33.8, 6.7 and 0.3 % of the weight by
the cross-sections in `fileset.json`, and other shares of the number of events, since an event of QCD takes ten times as long as one of W.
The folder then has `files/`, `fileset.json` and `skims/` with the feature `event_objects` as it is (pT, η, φ, type of 19 objects, nothing
scaled). What is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import awkward as ak
import numpy as np
import psutil
import yaml
from coffea.nanoevents import NanoEventsFactory

import coffea_ad as ad
from coffea_ad import recipes
from coffea_ad.features.object_options import ObjectOptions
from coffea_ad.features.objects import select_objects
from coffea_ad.nanoaod import Objects
from coffea_ad.simulation import simulate
from coffea_ad.simulation.generator import _pythia, _records
from coffea_ad.simulation.processes import resolve
from coffea_ad.skims.reading import load_skim

CONFIG = recipes.find_config("skim_events/event_objects.yaml")
LEPTON = {"final_lepton_pt_min": 21.0}  # 2 GeV below the cut, which is more than the resolution
QCD = {"pthat_min": 30.0, "bias_power": 2.0, "heavy_quarks": 1}
BACKGROUNDS = {  # process, its parameters, part of the weight, part of the number of events
    "wlnu": ("wlnu", LEPTON, 0.592, 0.58),
    "qcd": ("qcd", QCD | LEPTON, 0.338, 0.12),
    "zll": ("zll", LEPTON, 0.067, 0.24),
    "ttbar": ("ttbar", LEPTON, 0.003, 0.06),
}
SIGNALS = {
    "a_to_4l": LEPTON,
    "h0_tautau": LEPTON,
    "hplus_taunu": LEPTON | {"leptonic_taus": 1},
    "leptoquark": LEPTON,
}
_STEP = 2000  # events of a file at most


def selected(path):
    """Return the weights of the events that pass the cuts of the skim."""
    config = yaml.safe_load(CONFIG.read_text())
    known = {k: v for k, v in config["objects"].items() if k in ObjectOptions.model_fields}
    events = NanoEventsFactory.from_root(f"{path}:Events", schemaclass=ad.NanoAODSchema).events()
    objects = select_objects(Objects.events(events), ObjectOptions(**known), (50, 0, 20, 20, 0))
    passes = objects.valid & (objects.leading_pt("muon", "electron") >= config["leading_lepton_pt_min"])
    return ak.to_numpy(events.genWeight)[passes].astype(np.float64)


def cpu():
    """Return the processor time of this process and its workers, s."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(t.user + t.system for t in (p.cpu_times() for p in processes))


def files_of(name, process, parameters, wanted, folder, seed, workers):
    """Simulate files of a dataset until so many events pass the cuts; return a record for each of them."""
    records, k = {}, 0
    while (passed := sum(r["passed"] for r in records.values())) < wanted:
        tried = sum(r["n_events"] for r in records.values())
        part = passed / tried if passed else 0.75
        n = min(_STEP, max(math.ceil(1.05 * (wanted - passed) / part), 20))
        path = folder / f"{name}_{k}.root"
        known = path.with_suffix(".json")
        if not known.exists():
            started = cpu()
            record = simulate(process, n, path, seed=seed + k, parameters=parameters, workers=workers)
            record["cpu_s"] = cpu() - started
            weight = selected(path)
            record |= {"passed": len(weight), "passed_sumw": weight.sum(), "passed_sumw2": (weight**2).sum()}
            known.write_text(json.dumps(record))
        records[path], k = json.loads(known.read_text()), k + 1
    return records


def total(records, key):
    return sum(r[key] for r in records.values())


def make(args):
    folder = args.output / "files"
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: (process, p, share * args.background) for name, (process, p, _, share) in BACKGROUNDS.items()}
    asked |= {name: (name, p, args.signal) for name, p in SIGNALS.items()}
    made = {}
    for i, (name, (process, parameters, wanted)) in enumerate(asked.items()):
        made[name] = files_of(name, process, parameters, math.ceil(wanted), folder, 1000 * (i + 1), args.workers)
    w = made["wlnu"]  # whose own cross-section after the cuts is that of its part of the mixture
    visible = np.average([r["cross_section"] for r in w.values()]) * total(w, "passed_sumw") / total(w, "sumw")
    fileset = {}
    for name, records in made.items():
        signal = name in SIGNALS
        part = 1.0 if signal else BACKGROUNDS[name][2] / BACKGROUNDS["wlnu"][2] * visible
        xsec = part * total(records, "sumw") / total(records, "passed_sumw")
        fileset[name] = {
            "files": {str(path.resolve()): "Events" for path in records},
            "metadata": {"kind": "signal" if signal else "background", "is_mc": True, "xsec": xsec, "sqrt_s": 13000.0},
        }
    (args.output / "fileset.json").write_text(json.dumps(fileset, indent=1))
    ad.run(
        fileset,
        "skim_events",
        config=CONFIG,
        executor="futures",
        workers=args.workers,
        output=args.output / "skims",
        force=True,
    )
    show(args, made)


def show(args, made):
    skim = load_skim(args.output / "skims", "event_objects", {"scaling": "none"})
    background = np.isin(skim.dataset, list(BACKGROUNDS))
    print(
        "| dataset | events made | after cuts | effective | % of weight | CPU ms for one after cuts |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, records in made.items():
        rows = skim.dataset == name
        assert rows.sum() == total(records, "passed"), f"{name}: the skim selects other events"
        weight, cost = skim.event_weight[rows], 1000 * total(records, "cpu_s") / rows.sum()
        part = "" if name in SIGNALS else f"{100 * weight.sum() / skim.event_weight[background].sum():.1f}"
        effective = weight.sum() ** 2 / (weight**2).sum()
        print(f"| {name} | {total(records, 'n_events')} | {rows.sum()} | {effective:.0f} | {part} | {cost:.0f} |")
    for what, names in (("background", BACKGROUNDS), ("signal", SIGNALS)):
        seconds = sum(total(made[n], "cpu_s") for n in names)
        print(
            f"{what}: {1000 * seconds / sum(total(made[n], 'passed') for n in names):.0f} CPU ms for one event after cuts"
        )


def rates(n):
    """Show the part of QCD events with a lepton, and how many of them have a c or b quark out of the hard process."""
    for heavy_quarks in (0, 1):
        settings = resolve("qcd", QCD | LEPTON | {"heavy_quarks": heavy_quarks})[1]
        pythia, lepton_filter = _pythia([*settings, "PartonLevel:MPI = off"], 1)
        weights, heavy = [], []
        while pythia.infoPython().nAccepted() < n:
            for batch in _records(pythia, lepton_filter, 1000):
                code, status = abs(batch.prt.id), abs(batch.prt.status)
                weights.append(ak.to_numpy(batch.info.weights[:, 0]))
                heavy.append(ak.to_numpy(ak.any((status == 23) & ((code == 4) | (code == 5)), axis=1)))
                if pythia.infoPython().nAccepted() >= n:
                    break
        weight, of_quarks, tried = np.concatenate(weights), np.concatenate(heavy), pythia.infoPython().nAccepted()
        error = np.sqrt((weight**2).sum()) / weight.sum()
        print(
            f"heavy_quarks={heavy_quarks}: {len(weight)} of {tried} events have a lepton, {lepton_filter.cross_section():.3g} pb ± {100 * error:.0f} %"
        )
        part = weight[of_quarks].sum() / weight.sum()
        error = np.sqrt((weight**2 * (of_quarks - part) ** 2).sum()) / weight.sum()
        print(f"  {100 * part:.0f} ± {100 * error:.0f} % of their weight has a c or b quark out of the hard process")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--background", type=int, default=20_000)
    parser.add_argument("--signal", type=int, default=1_000, help="of each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rates", type=int, default=0, metavar="EVENTS")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/events"))
    args = parser.parse_args()
    if args.rates:
        rates(args.rates)
    else:
        make(args)


if __name__ == "__main__":
    main()
