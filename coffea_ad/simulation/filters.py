"""Which events are worth the time of a simulation: hard processes end before their showers, events before the detector."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from coffea_ad.errors import SimulationError
from coffea_ad.typing import Bools

__all__ = ["LEPTON_ETA_MAX", "LeptonFilter"]

LEPTON_ETA_MAX = 2.8
"""Wider than the 2.5 of electrons and muons: recoils move a lepton after the filter has looked."""
_HARD, _QUARKS, _FINAL = "LeptonFilter:pTMin", "LeptonFilter:heavyQuarks", "LeptonFilter:finalPTMin"
_TRIES = 200_000  # of hard processes, 10 s; that many without one lepton come of a cut that nothing passes
_FINAL_TRIES = 100_000  # of whole events, some minutes
_CHARGED_LEPTONS = (11, 13, 15)
_HEAVY_QUARKS = (4, 5)


class LeptonFilter:
    """Keeps events that can have, or have, a lepton.

    - `LeptonFilter:pTMin`, GeV: hard processes with an electron, muon or tau above it within |η| < `LEPTON_ETA_MAX`, after decays
      of W, Z and top and before showers.
    - `LeptonFilter:heavyQuarks`, 0 or 1: hard processes with a c or b quark among what comes out, where most leptons of QCD jets are from.
    - `LeptonFilter:finalPTMin`, GeV: whole events with an electron or muon above it within |η| < `LEPTON_ETA_MAX`, after all decays and
      before the detector.

    0 is no filter, and then nothing random changes.

    Parameters
    ----------
    pythia : pythia8mc.Pythia
        It learns the settings; `start` comes after all settings are read, and before `pythia.init`.
    """

    def __init__(self, pythia: Any) -> None:
        self._pythia = pythia
        self._hooks: Any = None  # Pythia holds the C++ half only
        self._pt_min = self._final_pt_min = 0.0
        self._heavy_quarks = False
        self._rejected_in_a_row = self._without_lepton_in_a_row = 0
        self._n = [0, 0]  # rejected, passed: of hard processes
        self._sumw = [0.0, 0.0]
        self._final_sumw = [0.0, 0.0]
        for setting in (_HARD, _QUARKS, _FINAL):
            pythia.settings.addParm(setting, 0.0, True, False, 0.0, 0.0)

    def start(self) -> None:
        """Let the hard processes be looked at, if they are filtered."""
        import pythia8mc

        self._pt_min, quarks, self._final_pt_min = (self._pythia.settings.parm(s) for s in (_HARD, _QUARKS, _FINAL))
        self._heavy_quarks = quarks > 0
        if self._pt_min <= 0 and not self._heavy_quarks:
            return
        keeps = self._keeps

        class Hooks(pythia8mc.UserHooks):
            def canVetoProcessLevel(self) -> bool:  # noqa: N802
                return True

            def doVetoProcessLevel(self, process: Any) -> bool:  # noqa: N802
                return not keeps(process)

        self._hooks = Hooks()
        self._pythia.setUserHooksPtr(self._hooks)

    @property
    def of_whole_events(self) -> bool:
        """Whether events may fail after they are made."""
        return self._final_pt_min > 0

    def _has_lepton(self, process: Any) -> bool:
        for i in range(process.size()):
            particle = process[i]
            if (
                particle.idAbs() in _CHARGED_LEPTONS
                and particle.isFinal()
                and particle.pT() > self._pt_min
                and abs(particle.eta()) < LEPTON_ETA_MAX
            ):
                return True
        return False

    def _has_heavy_quark(self, process: Any) -> bool:
        return any(process[i].isFinal() and process[i].idAbs() in _HEAVY_QUARKS for i in range(process.size()))

    def _keeps(self, process: Any) -> bool:
        if self._rejected_in_a_row >= _TRIES:  # an exception would have to cross C++: `check` tells
            return True
        passes = (self._pt_min <= 0 or self._has_lepton(process)) and (
            not self._heavy_quarks or self._has_heavy_quark(process)
        )
        self._n[passes] += 1
        self._sumw[passes] += self._pythia.infoPython().weight()
        self._rejected_in_a_row = 0 if passes else self._rejected_in_a_row + 1
        return passes

    def passing(self, batch: Any) -> Bools:
        """Return which whole events of a batch have a final electron or muon, (n_events,) bool; all without this filter.

        Parameters
        ----------
        batch : ak.Array
            From `pythia.nextBatch`: prt, info.
        """
        if not self.of_whole_events:
            return np.ones(len(batch), bool)
        final = batch.prt[batch.prt.status > 0]
        code, pt = abs(final.id), np.hypot(final.p.px, final.p.py)
        central = abs(final.p.pz) < np.sinh(LEPTON_ETA_MAX) * pt
        passes = ak.to_numpy(
            ak.any(((code == 11) | (code == 13)) & (pt > self._final_pt_min) & central, axis=1)
        ).astype(bool)
        weight = ak.to_numpy(batch.info.weights[:, 0])
        for i, of in enumerate((~passes, passes)):
            self._final_sumw[i] += float(weight[of].sum())
        self._without_lepton_in_a_row = 0 if passes.any() else self._without_lepton_in_a_row + len(passes)
        return np.asarray(passes)

    def check(self) -> None:
        """Say so if nothing passes.

        Raises
        ------
        SimulationError
            200 000 hard processes or 100 000 whole events in a row had no such lepton.
        """
        if self._rejected_in_a_row >= _TRIES:
            raise SimulationError(
                f"of {_TRIES} hard processes none has a lepton above lepton_pt_min = {self._pt_min:g} GeV"
            )
        if self._without_lepton_in_a_row >= _FINAL_TRIES:
            raise SimulationError(
                f"of {_FINAL_TRIES} events none has a lepton above final_lepton_pt_min = {self._final_pt_min:g} GeV"
            )

    def cross_section(self) -> float:
        """Return the cross-section of what is kept, pb.

        Pythia's takes the part of the hard processes that are kept, which is not that of the weights if hard events are made more
        often.
        """
        sigma = float(self._pythia.infoPython().sigmaGen()) * 1e9
        if self._hooks is not None:
            by_number, by_weight = (passed / (rejected + passed) for rejected, passed in (self._n, self._sumw))
            sigma *= by_weight / by_number
        if self.of_whole_events:
            rejected, passed = self._final_sumw
            sigma *= passed / (rejected + passed)
        return sigma
