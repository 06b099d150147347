"""One block of events: Pythia 8 → detector → flat NanoAOD collections. A block depends only on its own seed."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import SimulationError
from coffea_ad.simulation.detector import Particles, candidates, missing_momentum
from coffea_ad.simulation.filters import LeptonFilter
from coffea_ad.simulation.objects import Table, fat_jets, gen_particles, jets, leptons, photons, taus, triggers
from coffea_ad.typing import Float64s

__all__ = ["BLOCK", "Block", "generate"]

BLOCK = 500
"""Events per block: fixed, so that a sample does not depend on the number of processes."""
_BATCH = 250  # the full event record of 1000 events takes 200 MB
_MET_NOISE = 8.0  # GeV per axis: stands in for pile-up


@dataclass(frozen=True)
class Block:
    """The collections of one block, each flat with its "event" column, and the per-event columns."""

    n_events: int
    cross_section: float
    collections: dict[str, Table]
    events: dict[str, npt.NDArray[Any]]


def _quiet() -> None:
    """Send the C++ libraries' banners of this worker process to nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)


def _pythia(settings: list[str], seed: int) -> tuple[Any, LeptonFilter]:
    try:
        import pythia8mc
    except ImportError as error:
        raise SimulationError("simulation needs Pythia 8: pip install 'coffea-ad[simulate]'") from error
    pythia = pythia8mc.Pythia("", False)
    lepton_filter = LeptonFilter(pythia)
    with tempfile.TemporaryDirectory() as folder:
        lines = [_as_file(line, folder) if line.startswith("BLOCK") else line for line in settings]
        for line in [*lines, "Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}"]:
            if not pythia.readString(line):
                raise SimulationError(f"Pythia refuses the setting {line!r}")
        lepton_filter.start()
        if not pythia.init():
            raise SimulationError("Pythia cannot start: no open channel or contradictory settings")
    return pythia, lepton_filter


def _as_file(spectrum: str, folder: str) -> str:
    """Write a spectrum of new particles, which Pythia reads from a file only, and return the setting for it."""
    path = Path(folder) / "spectrum.slha"
    path.write_text(spectrum + "\n")
    return f"SLHA:file = {path}"


def _records(pythia: Any, lepton_filter: LeptonFilter, n: int) -> Any:
    """Yield batches of the event record until n events are made."""
    n_made = 0
    while n_made < n:
        missing = n - n_made
        batch = pythia.nextBatch(_BATCH if lepton_filter.of_whole_events else min(_BATCH, missing), "skip")
        if len(batch) == 0:
            lepton_filter.check()
            raise SimulationError("Pythia makes no events with these settings")
        passing = lepton_filter.passing(batch)
        lepton_filter.check()
        if passing.all():
            batch = batch[:missing]
        elif passing.any():
            batch = batch[passing][:missing]
        else:
            continue
        n_made += len(batch)
        yield batch


def _stable(record: Any) -> Particles:
    final = record[record.status > 0]
    event = np.repeat(np.arange(len(record)), ak.to_numpy(ak.num(final)))
    flat = ak.flatten(final)
    return Particles(
        event,
        ak.to_numpy(flat.id).astype(np.int64),
        *(ak.to_numpy(flat.p[k]).astype(np.float64) for k in ("px", "py", "pz", "e")),
    )


def _sum(table: Table, n: int, column: str = "pt") -> Float64s:
    return np.bincount(table["event"], table[column], n).astype(np.float64)


def _leading(table: Table, n: int) -> Float64s:
    out = np.zeros(n)
    np.maximum.at(out, table["event"], table["pt"])
    return out


def _reconstruct(record: Any, rng: np.random.Generator) -> tuple[dict[str, Table], dict[str, npt.NDArray[Any]]]:
    n = len(record)
    stable = _stable(record)
    c = candidates(stable, rng)
    generated, hadrons, gen_taus = gen_particles(record, n)
    jet = jets(c, n, hadrons, rng)
    fat, subjet, owner = fat_jets(c, n, hadrons)
    met_x = -np.bincount(c.event, c.pt * np.cos(c.phi), n) + _MET_NOISE * rng.standard_normal(n)
    met_y = -np.bincount(c.event, c.pt * np.sin(c.phi), n) + _MET_NOISE * rng.standard_normal(n)
    gen_x, gen_y = missing_momentum(stable, n)
    met = np.hypot(met_x, met_y)

    # NanoAOD v15 stores the candidates of AK8 jets within |η| < 2.5 only.
    rows = np.flatnonzero(owner >= 0)
    rows = rows[np.abs(fat["eta"][owner[rows]]) < 2.5]
    rows = rows[np.lexsort((-c.pt[rows], owner[rows]))]
    first_jet = np.searchsorted(fat["event"], np.arange(n))
    pf = {
        "event": c.event[rows],
        **{k: getattr(c, k)[rows] for k in ("pt", "eta", "phi", "mass", "charge")},
        "pdgId": c.pdgid[rows],
        "jetIdx": owner[rows] - first_jet[c.event[rows]],
    }
    muon = leptons(c, n, 13)
    isolated = {k: v[muon["relIso"] < 0.15] for k, v in muon.items()}
    # PF MET counts muons; the "NoMu" triggers do not
    no_mu = np.hypot(
        met_x + np.bincount(muon["event"], muon["pt"] * np.cos(muon["phi"]), n),
        met_y + np.bincount(muon["event"], muon["pt"] * np.sin(muon["phi"]), n),
    )
    central = {k: v[(jet["pt"] > 30) & (np.abs(jet["eta"]) < 2.5)] for k, v in jet.items()}
    collections = {
        "Jet": jet,
        "FatJet": fat,
        "SubJet": subjet,
        "PFCand": pf,
        "Electron": leptons(c, n, 11),
        "Muon": muon,
        "Photon": photons(c, n),
        "Tau": taus(gen_taus, jet, rng),
        "GenPart": generated,
    }
    per_event = {
        "MET_pt": met,
        "MET_phi": np.arctan2(met_y, met_x),
        "GenMET_pt": np.hypot(gen_x, gen_y),
        "GenMET_phi": np.arctan2(gen_y, gen_x),
        **triggers(_sum(central, n), _leading(fat, n), no_mu, _leading(isolated, n), rng),
    }
    return collections, per_event


def generate(settings: list[str], seed: int, block: int, n_events: int) -> Block:
    """Make block number `block` of a sample.

    Parameters
    ----------
    settings : list of str
        Pythia settings of the process.
    seed, block : int
        Together they fix all randomness.
    n_events : int
        At most `BLOCK`.

    Raises
    ------
    SimulationError
        Pythia refuses a setting or makes no events, or none that passes the filter.
    """
    _quiet()
    sequence = np.random.SeedSequence([seed, block])
    pythia, lepton_filter = _pythia(settings, 1 + int(sequence.generate_state(1)[0]) % 900_000_000)
    rng = np.random.default_rng(sequence.spawn(1)[0])
    collections: dict[str, list[Table]] = {}
    events: dict[str, list[npt.NDArray[Any]]] = {}
    done = 0
    for batch in _records(pythia, lepton_filter, n_events):
        tables, columns = _reconstruct(batch.prt, rng)
        columns["genWeight"] = ak.to_numpy(batch.info.weights[:, 0])
        for name, table in tables.items():
            table["event"] = table["event"] + done
            collections.setdefault(name, []).append(table)
        for name, values in columns.items():
            events.setdefault(name, []).append(values)
        done += len(batch)
    return Block(
        done,
        lepton_filter.cross_section(),
        {name: {k: np.concatenate([t[k] for t in parts]) for k in parts[0]} for name, parts in collections.items()},
        {name: np.concatenate(parts) for name, parts in events.items()},
    )
