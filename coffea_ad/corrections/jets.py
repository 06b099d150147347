"""Jets that are corrected, shifted and smeared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import awkward as ak
import numpy as np
from pydantic import Field

from coffea_ad.corrections.files import OUTSIDE, Correction, CorrectionFiles, Outside, Part, Reads
from coffea_ad.corrections.jet_veto import FOUR_VECTOR
from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.nanoaod.columns import flat_columns, where
from coffea_ad.splits import event_normal, numbers
from coffea_ad.typing import Float32s, Float64s
from coffea_ad.weights import event_branch, has_branch, is_mc

__all__ = ["JetEnergy", "JetEnergyConfig", "scale_jets"]


_RHO = ("Rho_fixedGridRhoFastjetAll", "fixedGridRhoFastjetAll")  # NanoAOD v10 and later; v9 and before
_GEN = {"FatJet": ("genJetAK8Idx", "GenJetAK8", 0.8), "Jet": ("genJetIdx", "GenJet", 0.4)}  # index, jets, their radius
_ENERGY_INPUTS = {"JetPt": "pt", "JetEta": "eta", "JetPhi": "phi", "JetMass": "mass", "JetA": "area"}
_SIGNS = {"Up": 1, "Down": -1}
_RESOLUTION_WORDS = {"nominal": "nom", "Up": "up", "Down": "down"}
STORED = "stored"
"""The level that leaves stored pT as it is."""
_MIN_ENERGY = 0.01  # GeV: no smearing takes a jet below, as in CMS's own code


class JetEnergyConfig(Part):
    """Jet energy corrections, uncertainties and resolution, as in fatJet_jerc.json.gz and jet_jerc.json.gz."""

    file: str
    level: str = Field(
        "",
        description="correction of raw pT in simulation, simple or compound; stored: stored pT stays; empty: of neither kind",
    )
    level_data: str = Field("", description="the same for data")
    uncertainties: dict[str, str] = Field({}, description="variation → name of the source in the file")
    resolution: str = Field("", description="relative pT resolution; empty: jets are not smeared")
    resolution_scale: str = Field(
        "", description="ratio of the resolutions in data and simulation, of nom, up and down"
    )
    resolution_file: str = Field("", description="where the last two are, if not in `file`")
    masses: tuple[str, ...] = Field(("msoftdrop",), description="groomed masses that follow the variations")
    outside: Outside = Field("fail", description=OUTSIDE)


class JetEnergy:
    """Corrects the energies of jets, and yields their variations.

    pT → c · raw pT → s · c · raw pT: c is the level, and s the smearing of simulated jets,

        s = 1 + (k − 1) (pT − pT_gen) / pT    if a generated jet is within half the radius and 3 σ pT,
        s = 1 + N(0, σ) √max(k² − 1, 0)       otherwise,

    with the relative resolution σ and the ratio k of the resolutions in data and simulation. A source of uncertainty δ
    gives pT (1 ± δ), and k of up and down gives `jerUp` and `jerDown`. The mass scales as pT. The random numbers come
    from the ids of the event and the place of the jet in it, so that a jet is smeared alike in every chunk.

    coffea's CorrectedJetsFactory makes the same numbers, but seeds its random ones with the first and the last jet of a
    chunk: the results of a run would depend on the size of its chunks.

    Parameters
    ----------
    config : JetEnergyConfig
    collection : str
        The jets, such as "FatJet".
    files : CorrectionFiles

    Raises
    ------
    BadFile, ConfigError
    """

    def __init__(self, config: JetEnergyConfig, collection: str, files: CorrectionFiles) -> None:
        self.config, self.collection = config, collection
        if bool(config.resolution) != bool(config.resolution_scale):
            raise ConfigError("jec: resolution and resolution_scale belong together")
        if config.resolution and collection not in _GEN:
            raise ConfigError(f"jec: generated jets are known for {' and '.join(_GEN)}, but not for {collection}")
        levels = ((True, config.level), (False, config.level_data))
        outside = config.outside
        corrected = ((mc, name) for mc, name in levels if name not in ("", STORED))
        self.levels = {mc: files.correction(config.file, name, outside) for mc, name in corrected}
        self.sources = {v: files.correction(config.file, name, outside) for v, name in config.uncertainties.items()}
        names = (config.resolution, config.resolution_scale) if config.resolution else ()
        self.resolution = [files.correction(config.resolution_file or config.file, name, outside) for name in names]
        for correction in self.resolution[1:]:
            correction.check_input("systematic")
            for word in _RESOLUTION_WORDS.values():
                correction.check_word("systematic", word)
        known = {*_ENERGY_INPUTS, "Rho", "run"}
        plain = [
            (correction, known) for correction in (*self.levels.values(), *self.sources.values(), *self.resolution[:1])
        ]
        for correction, inputs in (*plain, *((c, {*known, "systematic"}) for c in self.resolution[1:])):
            unknown = sorted(set(correction.inputs) - inputs)
            if unknown:
                raise ConfigError(f"{correction}: it needs {', '.join(unknown)}, which is not known of jets")

    @property
    def variations(self) -> tuple[str, ...]:
        """Names of the variations of simulated jets."""
        names = (*self.sources, *(["jer"] if self.resolution else []))
        return tuple(f"{name}{direction}" for name in names for direction in _SIGNS)

    def _refuse_one_sided(self, events: Any, *, mc: bool) -> None:
        """Refuse to correct the jets of data or of simulation alone, unless that is said."""
        key, level = ("level", self.config.level) if mc else ("level_data", self.config.level_data)
        if self.levels and not level:
            kind, other = ("simulation", "data") if mc else ("data", "simulation")
            raise ConfigError(
                f"{where(events)}jec corrects the jets of {other}, and this is {kind}: give {key} too, or {key}: {STORED} if its "
                "jets stay as they are"
            )

    def _corrections(self, *, mc: bool) -> list[Correction]:
        level = [self.levels[mc]] if mc in self.levels else []
        return [*level, *self.sources.values(), *self.resolution] if mc else level

    def _fields(self, *, mc: bool) -> list[str]:
        inputs = {name for correction in self._corrections(mc=mc) for name in correction.inputs}
        smeared = [_GEN[self.collection][0]] if mc and self.resolution else []
        raw = ["rawFactor"] if mc in self.levels else []
        return list(
            dict.fromkeys([*FOUR_VECTOR, *raw, *(_ENERGY_INPUTS[i] for i in inputs & set(_ENERGY_INPUTS)), *smeared])
        )

    def _needs_rho(self, *, mc: bool) -> bool:
        return any("Rho" in correction.inputs for correction in self._corrections(mc=mc))

    def reads(self) -> Reads:
        """Branches, for the check before a run; what only one kind of events has is optional in the other."""
        out: Reads = {}
        for mc, kind in ((True, "simulation"), (False, "data")):
            if not self._corrections(mc=mc):
                continue
            branches = [f"{self.collection}_{field}" for field in self._fields(mc=mc)]
            if mc and self.resolution:
                branches += [f"{_GEN[self.collection][1]}_{field}" for field in FOUR_VECTOR]
            ways = [(*branches, rho) for rho in _RHO] if self._needs_rho(mc=mc) else [tuple(branches)]
            out[f"jet energies in {kind}"] = (*ways, ())
        return out

    def __call__(self, events: Any) -> Iterator[tuple[str, Any]]:
        """Yield ("nominal", jets) and, of simulated events, every variation with its jets.

        Raises
        ------
        MissingBranch
        """
        mc = is_mc(events)
        self._refuse_one_sided(events, mc=mc)
        try:
            offsets, jet = flat_columns(events, self.collection, self._fields(mc=mc))
            values: dict[str, Any] = {name: jet[field] for name, field in _ENERGY_INPUTS.items() if field in jet}
            if self._needs_rho(mc=mc):
                values["Rho"] = np.repeat(ak.to_numpy(_rho(events)), np.diff(offsets))
            values["run"] = np.repeat(ak.to_numpy(events["run"]), np.diff(offsets))
        except MissingBranch as error:
            raise MissingBranch(f"{error} (asked for by jec)") from None
        stored = pt = jet["pt"].astype(np.float64)
        if mc in self.levels:
            raw = pt * (1 - jet["rawFactor"])
            pt = raw * self.levels[mc]({**values, "JetPt": raw}, len(raw), place=where(events))
        smeared = dict.fromkeys(_RESOLUTION_WORDS, pt)
        if mc and self.resolution:
            smeared = self._smear(events, offsets, jet, {**values, "JetPt": pt})
        nominal = smeared["nominal"]
        shifted = {"nominal": nominal}
        for source, correction in self.sources.items() if mc else ():
            delta = correction({**values, "JetPt": nominal}, len(nominal), neutral=0.0, place=where(events))
            shifted |= {f"{source}{direction}": nominal * (1 + sign * delta) for direction, sign in _SIGNS.items()}
        if mc and self.resolution:
            shifted |= {f"jer{direction}": smeared[direction] for direction in _SIGNS}
        jets, counts = events[self.collection], np.diff(offsets)
        for variation, values_of in shifted.items():
            factor = ak.unflatten(_ratio(values_of, stored), counts)
            varied = scale_jets(jets, factor, ("pt", "mass"))
            if variation != "nominal":
                relative = ak.unflatten(_ratio(values_of, nominal), counts)
                varied = scale_jets(varied, relative, self.config.masses)
            yield variation, varied

    def _smear(
        self, events: Any, offsets: Any, jet: Mapping[str, Any], values: Mapping[str, Any]
    ) -> dict[str, Float64s]:
        """Return smeared pT of nominal, Up and Down, (n,) each."""
        pt, n = values["JetPt"], len(values["JetPt"])
        index_name, generated, radius = _GEN[self.collection]
        gen_offsets, gen = flat_columns(events, generated, ("pt", "eta", "phi"))
        event = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        place = gen_offsets[event] + jet[index_name]
        place[(jet[index_name] < 0) | (place >= gen_offsets[event + 1])] = -1  # the last one, which is none
        gen_pt, eta, phi = (np.append(gen[f], np.nan)[place] for f in ("pt", "eta", "phi"))
        distance = np.hypot(jet["eta"] - eta, (jet["phi"] - phi + np.pi) % (2 * np.pi) - np.pi)
        sigma = self.resolution[0](values, n, neutral=0.0, place=where(events))
        matched = (distance < radius / 2) & (np.abs(pt - gen_pt) < 3 * sigma * pt)
        run, block, number = (one[event] for one in numbers(events, "jets are smeared at random"))
        random = event_normal("jet energy resolution", run, block, number, np.arange(n) - offsets[event]) * sigma
        out = {}
        for direction, word in _RESOLUTION_WORDS.items():
            k = self.resolution[1]({**values, "systematic": word}, n, place=where(events))
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a jet of pT 0 does not match
                shift = np.where(matched, (k - 1) * (pt - gen_pt) / pt, random * np.sqrt(np.maximum(k**2 - 1, 0)))
                out[direction] = np.maximum(pt * (1 + shift), _MIN_ENERGY / np.cosh(jet["eta"]))
        return out


def _ratio(one: Float64s, two: Float64s) -> Float32s:
    """Return the factor from one pT to another; a jet of pT 0 stays what it is."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.divide(one, two, out=np.ones(len(one)), where=two != 0).astype(np.float32)


def scale_jets(jets: Any, factor: Any, fields: Iterable[str] = ("pt", "mass", "msoftdrop")) -> Any:
    """Return jets with some of their fields multiplied by a factor, one number or one per jet; a missing field stays so.

    The jets keep their link to events and constituents, so that a tagger scores them.
    """
    for field in fields:
        if field in ak.fields(jets):
            jets = ak.with_field(jets, jets[field] * factor, field)
    return jets


def _rho(events: Any) -> Any:
    for branch in _RHO:
        if has_branch(events, branch):
            return event_branch(events, branch)
    raise MissingBranch(f"{where(events)}there is no branch {' or '.join(_RHO)}")
