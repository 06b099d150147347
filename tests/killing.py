"""A method that ends the process it is in: what happens to workers when memory runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from distributed import WorkerPlugin

from coffea_ad.resonant.cwola import CWoLa
from coffea_ad.resonant.methods import METHODS


class Kills(CWoLa):
    """CWoLa that ends its process in the training of one seed: the first time, or always."""

    name = "kills"
    of_seed = 0
    once: str | None = None

    def fit(self, sidebands, signal_region, **others):
        if self.seed == self.of_seed and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(sidebands, signal_region, **others)


class Announced(WorkerPlugin):
    """Makes the method known to workers, also to those that come later."""

    name = "killing method"

    def __init__(self, seed, once=None):
        self.seed, self.once = seed, once

    def setup(self, worker):
        Kills.of_seed, Kills.once = self.seed, self.once
        METHODS["kills"] = Kills
