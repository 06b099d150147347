"""Write simulated events as a ROOT file in NanoAOD v15 or PFNano layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from coffea_ad.nanoaod.campaigns import ENERGY_BRANCH
from coffea_ad.simulation.generator import Block
from coffea_ad.simulation.objects import Table
from coffea_ad.typing import Float32s

__all__ = ["EVENTS_PER_BASKET", "Layout", "NanoAODWriter"]

Layout = Literal["v15", "pfnano"]
EVENTS_PER_BASKET = 2500
_FLAGS = (
    "goodVertices", "globalSuperTightHalo2016Filter", "HBHENoiseFilter", "HBHENoiseIsoFilter",
    "EcalDeadCellTriggerPrimitiveFilter", "BadPFMuonFilter", "BadPFMuonDzFilter", "eeBadScFilter", "ecalBadCalibFilter",
)  # fmt: skip
_LUMI_BLOCK = 1000


def truncate(values: npt.NDArray[Any], bits: int) -> Float32s:
    """Round to a mantissa of `bits` bits, as NanoAOD does; zeros in the rest compress away.

    >>> truncate(np.array([1.0, 100.123]), 10)
    array([  1.   , 100.125], dtype=float32)
    """
    raw = np.asarray(values, np.float32).view(np.uint32)
    drop = 23 - bits
    rounded = (raw.astype(np.uint64) + (1 << (drop - 1))) & ~np.uint64((1 << drop) - 1)
    return rounded.astype(np.uint32).view(np.float32)


def _kinematics(t: Table, bits: int = 11) -> dict[str, npt.NDArray[Any]]:
    angles = {k: truncate(t[k], 12) for k in ("eta", "phi")}
    mass = {"mass": truncate(t["mass"], 10)} if "mass" in t else {}
    return {"pt": truncate(t["pt"], bits), **angles, **mass}


def _zeros(n: int) -> Float32s:
    return np.zeros(n, np.float32)


def _jet(t: Table, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    tagger = "btagUParTAK4B" if layout == "v15" else "btagDeepFlavB"
    identity = {} if layout == "v15" else {"jetId": np.full(len(t["pt"]), 6, np.int32)}
    return {
        **_kinematics(t),
        tagger: truncate(t["btag"], 10),
        "rawFactor": _zeros(len(t["pt"])),
        "hadronFlavour": t["hadronFlavour"].astype(np.uint8),
        "nConstituents": np.minimum(t["nConstituents"], 255).astype(np.uint8),
        **identity,
    }


def _fat_jet(t: Table, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    extra: dict[str, npt.NDArray[Any]] = {}
    if layout == "v15":
        # NanoAOD keeps the number in one byte, also where it does not fit
        extra["nConstituents"] = t["nConstituents"].astype(np.uint8)
    else:
        extra["jetId"] = np.full(len(t["pt"]), 6, np.int32)
    return {
        **_kinematics(t),
        "msoftdrop": truncate(t["msoftdrop"], 10),
        **{f"tau{i}": truncate(t[f"tau{i}"], 10) for i in range(1, 5)},
        "rawFactor": _zeros(len(t["pt"])),
        "subJetIdx1": t["subJetIdx1"].astype(np.int16),
        "subJetIdx2": t["subJetIdx2"].astype(np.int16),
        "hadronFlavour": t["hadronFlavour"].astype(np.uint8),
        **extra,
    }


def _candidates(t: Table, layout: Layout) -> dict[str, dict[str, npt.NDArray[Any]]]:
    index = np.arange(len(t["pt"])) - np.searchsorted(t["event"], t["event"])
    jet, candidate = t["jetIdx"].astype(np.int32), index.astype(np.int32)
    kinematics = _kinematics(t, bits=10)
    identity = t["pdgId"].astype(np.int32)
    if layout == "v15":
        return {
            "PFCand": {**kinematics, "pdgId": identity},
            "FatJetPFCand": {"jetIdx": jet, "pfCandIdx": candidate},
        }
    # PFNano keeps pT before PUPPI. Weights are powers of two, so that the product is v15's pT to the last bit.
    puppi = np.where(t["charge"] != 0, 1.0, np.where(candidate % 3 == 0, 0.25, 0.5)).astype(np.float32)
    kinematics["pt"] = kinematics["pt"] / puppi
    kinematics["mass"] = kinematics["mass"] / puppi
    return {
        "PFCands": {**kinematics, "pdgId": identity, "charge": t["charge"].astype(np.int32), "puppiWeight": puppi},
        "FatJetPFCands": {"jetIdx": jet, "pFCandsIdx": candidate},
    }


def _electron(t: Table, _: Layout) -> dict[str, npt.NDArray[Any]]:
    isolated = t["relIso"] < 0.1
    return {
        **_kinematics(t),
        "charge": t["charge"].astype(np.int32),
        "pdgId": t["pdgId"].astype(np.int32),
        "cutBased": np.where(isolated, 4, 1).astype(np.uint8),
        "mvaIso_WP90": isolated,
        "pfRelIso03_all": truncate(t["relIso"], 8),
        "miniPFRelIso_all": truncate(t["miniPFRelIso_all"], 8),
    }


def _muon(t: Table, _: Layout) -> dict[str, npt.NDArray[Any]]:
    yes = np.ones(len(t["pt"]), bool)
    return {
        **_kinematics(t),
        "charge": t["charge"].astype(np.int32),
        "pdgId": t["pdgId"].astype(np.int32),
        **{f"{grade}Id": yes for grade in ("loose", "medium", "tight")},
        "pfRelIso04_all": truncate(t["relIso"], 8),
        "miniPFRelIso_all": truncate(t["miniPFRelIso_all"], 8),
    }


def _photon(t: Table, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    isolation = "pfRelIso03_all_quadratic" if layout == "v15" else "pfRelIso03_all"
    return {
        **_kinematics(t),
        isolation: truncate(t["pfRelIso03_all"], 8),
        "cutBased": np.full(len(t["pt"]), 3, np.uint8),
        "mvaID_WP90": np.ones(len(t["pt"]), bool),
    }


def _tau(t: Table, _: Layout) -> dict[str, npt.NDArray[Any]]:
    real = t["genPartFlav"] == 5
    return {
        **_kinematics(t),
        "charge": t["charge"].astype(np.int32),
        "idDeepTau2018v2p5VSjet": np.where(real, 6, 5).astype(np.uint8),
        "genPartFlav": t["genPartFlav"].astype(np.uint8),
    }


def _gen_part(t: Table, _: Layout) -> dict[str, npt.NDArray[Any]]:
    return {
        **_kinematics(t, bits=10),
        "pdgId": t["pdgId"].astype(np.int32),
        "status": t["status"].astype(np.int32),
        "statusFlags": t["statusFlags"].astype(np.uint16),
        "genPartIdxMother": t["genPartIdxMother"].astype(np.int16),
    }


def _sub_jet(t: Table, _: Layout) -> dict[str, npt.NDArray[Any]]:
    return {**_kinematics(t), "rawFactor": _zeros(len(t["pt"]))}


_COLLECTIONS: dict[str, Callable[[Table, Layout], dict[str, npt.NDArray[Any]]]] = {
    "Jet": _jet,
    "FatJet": _fat_jet,
    "SubJet": _sub_jet,
    "Electron": _electron,
    "Muon": _muon,
    "Photon": _photon,
    "Tau": _tau,
    "GenPart": _gen_part,
}


def _per_event(block: Block, first: int, layout: Layout, run: int, sqrt_s: float) -> dict[str, npt.NDArray[Any]]:
    n = block.n_events
    number = np.arange(first, first + n)
    other = "PFMET" if layout == "v15" else "MET"
    met = {f"{name}_{k}": truncate(block.events[f"MET_{k}"], 11) for name in ("PuppiMET", other) for k in ("pt", "phi")}
    return {
        "run": np.full(n, run, np.uint32),
        "luminosityBlock": (1 + number // _LUMI_BLOCK).astype(np.uint32),
        "event": (1 + number).astype(np.uint64),
        "genWeight": block.events["genWeight"].astype(np.float32),
        **met,
        **{f"GenMET_{k}": truncate(block.events[f"GenMET_{k}"], 10) for k in ("pt", "phi")},
        "PV_npvs": np.ones(n, np.uint8),
        "PV_npvsGood": np.ones(n, np.uint8),
        **{f"PV_{axis}": _zeros(n) for axis in "xyz"},
        **{f"Flag_{flag}": np.ones(n, bool) for flag in _FLAGS},
        **{name: values for name, values in block.events.items() if name.startswith("HLT_")},
        ENERGY_BRANCH: np.full(n, sqrt_s, np.float32),  # its being there tells that the b tag is ours
    }


def _columns(block: Block, first: int, layout: Layout, run: int, sqrt_s: float) -> dict[str, Any]:
    tables = {name: shape(block.collections[name], layout) for name, shape in _COLLECTIONS.items()}
    tables |= _candidates(block.collections["PFCand"], layout)
    event = {name: block.collections["PFCand" if "PFCand" in name else name]["event"] for name in tables}
    jagged = {
        name: ak.unflatten(ak.zip(table), np.bincount(event[name], minlength=block.n_events))
        for name, table in tables.items()
    }
    return {**_per_event(block, first, layout, run, sqrt_s), **jagged}


class NanoAODWriter:
    """Collects blocks and writes them in baskets of `EVENTS_PER_BASKET` events.

    Parameters
    ----------
    file : binary file
        That can be written, searched and read, such as `files.replacing` gives; it is closed here.
    layout : "v15" or "pfnano"
    run : int
        Run number of all events: the seed, so that samples of different seeds have different event ids.
    sqrt_s : float
        Centre-of-mass energy, GeV.
    """

    def __init__(self, file: BinaryIO, layout: Layout, run: int, sqrt_s: float) -> None:
        self.run = run
        self.sqrt_s = sqrt_s
        self.layout = layout
        self._file = uproot.recreate(file, compression=uproot.ZSTD(5))
        self._tree: Any = None
        self._waiting: list[dict[str, Any]] = []
        self._weights: list[npt.NDArray[Any]] = []
        self._cross_sections: list[tuple[float, int]] = []
        self.n_events = 0

    def add(self, block: Block) -> None:
        """Append one block."""
        columns = _columns(block, self.n_events, self.layout, self.run, self.sqrt_s)
        self._waiting.append(columns)
        self._weights.append(columns["genWeight"].astype(np.float64))
        self._cross_sections.append((block.cross_section, block.n_events))
        self.n_events += block.n_events
        if sum(len(c["event"]) for c in self._waiting) >= EVENTS_PER_BASKET:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = {
            name: (np.concatenate if isinstance(first, np.ndarray) else ak.concatenate)(
                [c[name] for c in self._waiting]
            )
            for name, first in self._waiting[0].items()
        }
        if self._tree is None:
            types = {k: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for k, v in columns.items()}
            self._tree = self._file.mktree("Events", types)  # plain assignment would write an RNTuple
        self._tree.extend(columns)
        self._waiting = []

    @property
    def cross_section(self) -> float:
        """Mean of the blocks' estimates, pb."""
        sigma, n = np.array(self._cross_sections).T
        return float(np.sum(sigma * n) / np.sum(n))

    @property
    def sumw(self) -> float:
        """Sum of the generator weights as stored."""
        return float(sum(w.sum() for w in self._weights))

    def close(self, record: dict[str, Any]) -> None:
        """Write `Runs`, `LuminosityBlocks` and the record of how the file was made."""
        self._flush()
        weights = np.concatenate(self._weights)
        runs: dict[str, npt.NDArray[Any]] = {
            "run": np.full(1, self.run, np.uint32),
            "genEventCount": np.array([self.n_events], np.int64),
            "genEventSumw": np.array([weights.sum()]),
            "genEventSumw2": np.array([(weights**2).sum()]),
            "genXsec_pb": np.array([self.cross_section]),
        }
        blocks = np.arange(1, 2 + (self.n_events - 1) // _LUMI_BLOCK, dtype=np.uint32)
        lumi = {"run": np.full(len(blocks), self.run, np.uint32), "luminosityBlock": blocks}
        tables: dict[str, dict[str, npt.NDArray[Any]]] = {"Runs": runs, "LuminosityBlocks": lumi}
        for name, columns in tables.items():
            self._file.mktree(name, {k: v.dtype for k, v in columns.items()}).extend(columns)
        self._file["simulation"] = json.dumps(record, sort_keys=True)
        self._file.close()
