"""Which hard processes are worth the time of a simulation: those without a hard lepton end before their showers."""

from __future__ import annotations

from typing import Any

from coffea_ad.errors import SimulationError

__all__ = ["LEPTON_ETA_MAX", "LeptonFilter"]

LEPTON_ETA_MAX = 2.8
"""Wider than the 2.5 of electrons and muons: recoils move a lepton after the filter has looked."""
_SETTING = "LeptonFilter:pTMin"
_TRIES = 200_000  # of hard processes, 10 s; that many without one lepton come of a cut that nothing passes
_CHARGED_LEPTONS = (11, 13, 15)


class LeptonFilter:
    """Keeps hard processes with an electron, muon or tau above `LeptonFilter:pTMin`, GeV, within |η| < `LEPTON_ETA_MAX`.

    The hard process has its decays of W, Z and top, and no showers yet. Without a minimum there is no filter, and nothing
    random changes.

    Parameters
    ----------
    pythia : pythia8mc.Pythia
        It learns the setting; `start` comes after all settings are read, and before `pythia.init`.
    """

    def __init__(self, pythia: Any) -> None:
        self._pythia = pythia
        self._hooks: Any = None  # Pythia holds the C++ half only
        self._pt_min = 0.0
        self._rejected_in_a_row = 0
        self._n = [0, 0]  # rejected, passed
        self._sumw = [0.0, 0.0]
        pythia.settings.addParm(_SETTING, 0.0, True, False, 0.0, 0.0)

    def start(self) -> None:
        """Let the hard processes be looked at, if there is a minimum."""
        import pythia8mc

        self._pt_min = self._pythia.settings.parm(_SETTING)
        if self._pt_min <= 0:
            return
        keeps = self._keeps

        class Hooks(pythia8mc.UserHooks):
            def canVetoProcessLevel(self) -> bool:  # noqa: N802
                return True

            def doVetoProcessLevel(self, process: Any) -> bool:  # noqa: N802
                return not keeps(process)

        self._hooks = Hooks()
        self._pythia.setUserHooksPtr(self._hooks)

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

    def _keeps(self, process: Any) -> bool:
        if self._rejected_in_a_row >= _TRIES:  # an exception would have to cross C++: `check` tells
            return True
        passes = self._has_lepton(process)
        self._n[passes] += 1
        self._sumw[passes] += self._pythia.infoPython().weight()
        self._rejected_in_a_row = 0 if passes else self._rejected_in_a_row + 1
        return passes

    def check(self) -> None:
        """Say so if nothing passes.

        Raises
        ------
        SimulationError
            200 000 hard processes in a row had no such lepton.
        """
        if self._rejected_in_a_row >= _TRIES:
            raise SimulationError(
                f"of {_TRIES} hard processes none has a lepton above lepton_pt_min = {self._pt_min:g} GeV"
            )

    def cross_section(self) -> float:
        """Return the cross-section of what is kept, pb.

        Pythia's takes the part of the events that are kept, which is not that of the weights if hard events are made more often.
        """
        sigma = float(self._pythia.infoPython().sigmaGen()) * 1e9
        if self._hooks is None:
            return sigma
        by_number, by_weight = (passed / (rejected + passed) for rejected, passed in (self._n, self._sumw))
        return sigma * by_weight / by_number
