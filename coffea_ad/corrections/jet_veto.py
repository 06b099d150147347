"""Detector regions where jets are not trusted, and identification of jets by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import awkward as ak
import numpy as np
import numpy.typing as npt
from pydantic import Field

from coffea_ad.corrections.files import OUTSIDE, CorrectionFiles, Outside, Part, Reads
from coffea_ad.errors import MissingBranch
from coffea_ad.nanoaod.columns import as_mask, flat_columns, where
from coffea_ad.typing import Bools
from coffea_ad.weights import has_branch

__all__ = ["FOUR_VECTOR", "JetIdConfig", "JetIdentification", "JetVetoMap", "JetVetoMapConfig"]


FOUR_VECTOR = ("pt", "eta", "phi", "mass")
"""coffea makes no objects of less."""
_WRONG_JET_ID = ("btagPNetB", "btagRobustParTAK4B", "btagUParTAK4B", "PNetRegPtRawCorr")
"""Fields of jets that came with NanoAOD v12; up to v14 the bits of jetId are wrong there, and then there are none."""


class JetVetoMapConfig(Part):
    """Detector regions that spoil jets."""

    file: str = Field(description="correctionlib, such as jetvetomaps.json.gz")
    name: str = Field(description="such as Summer22_23Sep2023_RunCD_V1")
    types: tuple[str, ...] = Field(("jetvetomap",), description="maps of the correction; any of them vetoes")
    recipe: Literal["run3", "run3_v12", "run2"] = Field("run3", description="which jets count, see JetVetoMap")
    collection: str = "Jet"
    pt_min: float = Field(15.0, description="GeV")
    id_file: str = Field(
        "",
        description="correctionlib jet identification, for NanoAOD v12 to v14, whose jetId is wrong, and v15, which stores none",
    )
    id_name: str = Field("AK4PUPPI_TightLeptonVeto")
    stored_id: bool = Field(
        False,
        description="take jetId as it is, also in NanoAOD v12 to v14, where it is wrong unless a production mended it",
    )
    outside: Outside = Field("fail", description=OUTSIDE)


class JetIdConfig(Part):
    """Identification of jets, as in jetid.json.gz."""

    file: str = Field(description="correctionlib, such as jetid.json.gz")
    name: str = Field(description="such as AK8PUPPI_TightLeptonVeto")
    outside: Outside = Field("fail", description=OUTSIDE)


class JetIdentification:
    """Says which jets pass an identification of a correctionlib file, which needs no stored jetId.

    Parameters
    ----------
    file, name : str
    files : CorrectionFiles
    outside : "fail", "clamp" or "unit"
        What becomes of jets that it is not defined for; with unit they do not pass.
    """

    def __init__(self, file: str, name: str, files: CorrectionFiles, outside: Outside = "fail") -> None:
        self.correction = files.correction(file, name, outside)

    @property
    def fields(self) -> list[str]:
        """Fields of jets that it needs."""
        return list(dict.fromkeys(f for name in self.correction.inputs for f in _multiplicities(name)))

    def __call__(self, jets: Mapping[str, npt.NDArray[Any]], place: str = "") -> Bools:
        """Return which of (n,) jets of a file pass, (n,) bool; beyond |η| = 5, where it ends, none does."""
        inside: Bools = np.asarray(np.abs(jets["eta"]) <= 5, bool)
        used = {f: jets[f][inside].astype(np.float64) for f in self.fields}
        values = {name: sum(used[f] for f in _multiplicities(name)) for name in self.correction.inputs}
        inside[inside] = self.correction(values, int(inside.sum()), neutral=0.0, place=place) > 0
        return inside


class JetVetoMap:
    """Finds events with a jet in a vetoed region, in data and simulation alike; such events are dropped.

    The recipe is that of CMS for Run 3: jets with pT > 15 GeV that pass the tight identification with lepton veto and
    have less than 90 % of their energy from electrons and photons, chEmEF + neEmEF < 0.9. An event falls if the map is
    not 0 at one of them. For Run 2 the identification is the tight one, jets below 50 GeV pass the loose pile-up
    identification too, and jets within ΔR < 0.2 of a muon that is a particle-flow candidate do not count.

    The bits of jetId are wrong in NanoAOD v12 to v14. `run3_v12` mends those of v12 as CMS says: tight is the stored bit, with
    neHEF < 0.99 for 2.7 < |η| ≤ 3 and neEmEF < 0.4 beyond, and the lepton veto is muEF < 0.8 and chEmEF < 0.8 for |η| ≤ 2.7. Later
    versions need `id_file`.

    Parameters
    ----------
    config : JetVetoMapConfig
    files : CorrectionFiles

    References
    ----------
    JERC group of CMS, cms-jerc.web.cern.ch/Recommendations, "Jet veto maps".
    """

    def __init__(self, config: JetVetoMapConfig, files: CorrectionFiles) -> None:
        self.config = config
        self.map = files.correction(config.file, config.name, config.outside)
        for name in ("type", "eta", "phi"):
            self.map.check_input(name)
        for word in config.types:
            self.map.check_word("type", word)
        self.identity = None
        if config.id_file:
            self.identity = JetIdentification(config.id_file, config.id_name, files, config.outside)

    def reads(self) -> Reads:
        """Branches, for the check before a run."""
        jets, muons = self._fields()
        jets = list(dict.fromkeys([*jets, *FOUR_VECTOR]))
        of_jets = f"{self.config.collection}_{{}}".format
        out: Reads = {"the jet veto map": ((*map(of_jets, jets), *(f"Muon_{f}" for f in muons)),)}
        if self.config.recipe == "run3" and self.identity is None:  # for their names only
            out["the version of jetId"] = (*((of_jets(f),) for f in _WRONG_JET_ID), ())
        return out

    def _fields(self) -> tuple[list[str], tuple[str, ...]]:
        run2 = self.config.recipe == "run2"
        fields = ["pt", "eta", "phi", "chEmEF", "neEmEF", *(("puId",) if run2 else ())]
        if self.identity is None:
            fields += ["jetId", *(("neHEF", "muEF") if self.config.recipe == "run3_v12" else ())]
        else:
            fields += [f for f in self.identity.fields if f not in fields]
        return fields, (("eta", "phi", "isPFcand") if run2 else ())

    def __call__(self, events: Any) -> Bools:
        """Return which events are clear of vetoed regions, (n_events,) bool.

        Raises
        ------
        MissingBranch
            Also if jetId is that of NanoAOD v12 to v14, and there is no `id_file`.
        """
        config, (fields, muons) = self.config, self._fields()
        self._refuse_wrong_identity(events)
        try:
            offsets, jet = flat_columns(events, config.collection, fields)
        except MissingBranch as error:
            hint = "; give id_file where there is no jetId" if self.identity is None else ""
            raise MissingBranch(f"{error} (asked for by the jet veto map{hint})") from None
        counts = (jet["pt"] > config.pt_min) & (jet["chEmEF"] + jet["neEmEF"] < 0.9)
        counts &= np.isfinite(jet["eta"]) & np.isfinite(jet["phi"])  # else it is nowhere
        if self.identity is not None:
            used = {f: values[counts] for f, values in jet.items()}
            counts[counts] = self.identity(used, place=where(events))
        elif config.recipe == "run3_v12":
            counts &= _mended(jet)
        else:  # bits of jetId: 2 is tight, 4 is tight with lepton veto
            counts &= (jet["jetId"].astype(np.int64) & (4 if config.recipe == "run3" else 2)) > 0
        if muons:
            counts &= (jet["pt"] > 50) | (jet["puId"] >= 4)
            counts &= ~_near_muon(events, config.collection)
        # float32 rounds π up, and forward jets may lie beyond the map's end
        eta, phi = np.clip(jet["eta"][counts], -5.19, 5.19), np.clip(jet["phi"][counts], -3.14159, 3.14159)
        hit = np.zeros(len(eta), bool)
        for word in config.types:
            hit |= self.map({"type": word, "eta": eta, "phi": phi}, len(eta), neutral=0.0, place=where(events)) != 0
        event = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[counts]
        return np.asarray(np.bincount(event[hit], minlength=len(offsets) - 1) == 0)

    def _refuse_wrong_identity(self, events: Any) -> None:
        config = self.config
        if self.identity is not None or config.stored_id or config.recipe != "run3":
            return
        newer = [f"{config.collection}_{f}" for f in _WRONG_JET_ID if has_branch(events, f"{config.collection}_{f}")]
        if newer and has_branch(events, f"{config.collection}_jetId"):
            raise MissingBranch(
                f"{where(events)}{config.collection}_jetId is wrong in NanoAOD v12 to v14, which this file is by its branch "
                f"{newer[0]}; give id_file, or recipe: run3_v12 if it is v12 (asked for by the jet veto map)"
            )


def _mended(jet: Mapping[str, npt.NDArray[Any]]) -> Bools:
    """Return which jets of NanoAOD v12 pass the tight identification with lepton veto."""
    eta, tight = np.abs(jet["eta"]), (jet["jetId"].astype(np.int64) & 2) > 0
    tight &= np.where(eta > 3.0, jet["neEmEF"] < 0.4, np.where(eta > 2.7, jet["neHEF"] < 0.99, True))
    no_lepton = (eta > 2.7) | ((jet["muEF"] < 0.8) & (jet["chEmEF"] < 0.8))
    return np.asarray(tight & no_lepton, bool)


def _multiplicities(name: str) -> tuple[str, ...]:
    """Return the fields that add up to an input of the jet identification."""
    return ("chMultiplicity", "neMultiplicity") if name == "multiplicity" else (name,)


def _near_muon(events: Any, collection: str) -> Bools:
    muons = ak.zip({f: events["Muon", f] for f in ("eta", "phi")})[as_mask(events["Muon", "isPFcand"])]
    pairs = ak.cartesian(
        {"jet": ak.zip({f: events[collection, f] for f in ("eta", "phi")}), "muon": muons}, nested=True
    )  # fmt: skip
    eta = pairs["jet"]["eta"] - pairs["muon"]["eta"]
    phi = (pairs["jet"]["phi"] - pairs["muon"]["phi"] + np.pi) % (2 * np.pi) - np.pi
    return np.asarray(ak.to_numpy(ak.flatten(ak.any(eta**2 + phi**2 < 0.2**2, axis=2))), bool)
