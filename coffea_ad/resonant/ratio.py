"""LogRatio: the logarithm of a ratio of densities, as one score in one graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.modelfiles.joining import joined_scores
from coffea_ad.modelfiles.ranks import Nodes
from coffea_ad.nn.graph import Graphs, epoch_graphs
from coffea_ad.nn.model import Model
from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.masses import TiltedExponential
from coffea_ad.scoring.specs import Density, Folds
from coffea_ad.typing import Float32s, Ints

__all__ = ["LogRatio", "Spectrum"]


class LogRatio:
    """s(x) = Σ log p_over(x) − Σ log p_under(x), of models whose scores are −log p.

    Parameters
    ----------
    over, under : sequence of Scorable
        Of the same rows, without folds.
    method : str
        Name on the card.

    Raises
    ------
    ConfigError
        They take other rows, or a score is no −log p.
    """

    folds: Folds | None = None
    density: Density | None = None

    def __init__(self, over: Sequence[Scorable], under: Sequence[Scorable], method: str) -> None:
        self.over, self.under, self.method = list(over), list(under), method
        if not self.over or not self.under or len({m.shape for m in self.members}) != 1:
            raise ConfigError("a ratio needs densities of the same columns, over and under it")
        if any(m.density != "x" for m in self.members):
            raise ConfigError("a ratio needs scores that are −log p of the inputs themselves")

    @property
    def members(self) -> list[Scorable]:
        """All densities."""
        return [*self.over, *self.under]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row of x."""
        return self.over[0].shape

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Score rows, (n, columns) → (n,)."""
        total = np.zeros(len(x), np.float64)
        for sign, members in ((1, self.under), (-1, self.over)):
            for member in members:
                total += sign * member.scores(x).astype(np.float64)
        return np.asarray(total, np.float32)

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph of the score."""
        return self.graph_by(epoch_graphs, outputs)

    def graph_by(self, graphs: Graphs, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph of the score; `graphs` exports the densities."""
        n = len(self.under)

        def rule(add: Nodes, scores: Sequence[str]) -> str:
            return add("Sub", add("Sum", *scores[:n]), add("Sum", *scores[n:]))

        return joined_scores(graphs([*self.under, *self.over], ["score"]), self.shape, outputs, rule)


class Spectrum(Model):
    """−log p(m) of a smooth mass spectrum, as a model of rows with all columns.

    Parameters
    ----------
    spectrum : TiltedExponential
    features : int
        Number of columns of x.
    place : int
        Which of them is the mass.

    Examples
    --------
    >>> from coffea_ad.resonant.windows import Window
    >>> window = Window(low=1000, high=2000, outer_low=500, outer_high=3000)
    >>> density = TiltedExponential(np.linspace(1000, 1999, 1000), window)
    >>> model = Spectrum(density, features=2, place=1)
    >>> bool(abs(model.scores(np.float32([[0, 1500]]))[0] + density.log_prob([1500])[0]) < 1e-5)
    True
    """

    method = "spectrum"
    density = "x"

    def __init__(self, spectrum: TiltedExponential, features: int, place: int) -> None:
        super().__init__((features,), nn.Identity())
        self.place = place
        window = spectrum.window
        values = [window.low, window.high, spectrum.a, spectrum.b, spectrum.norm]
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32))
        self.values: Tensor

    def energy(self, z: Tensor) -> Tensor:
        """Return −log p(m) of rows, (n, columns) → (n,)."""
        low, high, a, b, norm = self.values.unbind()
        t: Tensor = 2 * (z[:, self.place] - low) / (high - low) - 1
        return norm - a * t - b * t**2
