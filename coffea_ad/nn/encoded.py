"""Models on the output of a graph that nothing trains: a network that was made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coffea_ad.errors import BadModel, SkimError, unknown_text
from coffea_ad.modelfiles.joining import join_graphs
from coffea_ad.modelfiles.reconstruction import plain_session
from coffea_ad.nn.scorable import Scorable
from coffea_ad.progress import progress
from coffea_ad.scoring.neighbours import rescored
from coffea_ad.scoring.specs import Density, Folds
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Bools, Float32s, Ints

__all__ = ["Encoded", "FrozenGraph"]

_BLOCK = 256  # rows at a time: attention on 1024 jets of 128 constituents takes gigabytes
_PROBE_ROWS = 16


class FrozenGraph:
    """A graph "features" → "latent", run by onnxruntime: x → z = f(x), (n, *shape) → (n, D), which nothing trains.

    Parameters
    ----------
    graph : bytes
        NaN for rows that are not finite, as `modelfiles.feeding.fed` makes it.
    shape : tuple of int
        Of a row of x.
    name : str
        For messages.

    Examples
    --------
    >>> from torch import nn
    >>> from coffea_ad.nn.graph import torch_graph
    >>> theirs = nn.Linear(8, 3)
    >>> theirs.shape = (8,)
    >>> FrozenGraph(torch_graph(theirs, ["latent"]), (8,))(np.zeros((5, 8), np.float32)).shape
    (5, 3)
    """

    def __init__(self, graph: bytes, shape: tuple[int, ...], name: str = "network") -> None:
        self.graph, self.shape, self.name = graph, tuple(shape), name
        self.session = plain_session(graph, name)
        self.width = int(self.session.get_outputs()[0].shape[1])

    def run(self, x: Float32s) -> Float32s:
        """Return the vectors of rows in one batch, (n, *shape) → (n, D)."""
        return np.asarray(self.session.run(["latent"], {"features": x})[0])

    def __call__(self, x: Float32s, advance: Callable[..., None] = lambda _: None) -> Float32s:
        """Return the vectors of rows block by block, (n, *shape) → (n, D) float32."""
        latent = np.empty((len(x), self.width), np.float32)  # without rows there is nothing to run
        for start in range(0, len(x), _BLOCK):
            rows = np.asarray(x[start : start + _BLOCK], np.float32)
            latent[start : start + len(rows)] = self.run(rows)
            advance(len(rows))
        return latent

    def rows(self, data: Skim, mass: str = "") -> Skim:
        """Return what a model on the vectors trains on: those of the rows that have one, as columns latent0, latent1, ….

        Parameters
        ----------
        data : Skim
        mass : str, optional
            A spectator that stands in the last column, which is blank in the graph.

        Raises
        ------
        BadModel
            The vector of a row depends on the rows around it, or on chance.
        SkimError
            No row has a vector of finite numbers, or there is no such spectator.
        """
        self.check(np.asarray(data.x[:_PROBE_ROWS], np.float32))
        with progress("latent vectors", len(data.x)) as advance:
            latent = self(data.x, advance)
        names = [f"latent{i}" for i in range(self.width)]
        if mass:
            if mass not in data.spectators:
                raise SkimError("the skim: " + unknown_text("mass", mass, data.spectators))
            latent[:, -1], names[-1] = data.spectators[mass], mass
        finite: Bools = np.asarray(np.isfinite(latent).all(axis=1))
        if not finite.any():
            raise SkimError(f"{self.name}: its output is not finite for any of {len(finite)} rows")
        lost = {"rows_without_vector": int((~finite).sum())}
        vectors = replace(data, x=latent, names=tuple(names), provenance={**data.provenance, **lost})
        return vectors if finite.all() else vectors.select(finite)

    def check(self, x: Float32s) -> None:
        """Refuse a network whose output for a row depends on others, or on chance, as `modelfiles.attach.check_rows` does scores.

        Raises
        ------
        BadModel
        """

        def latent(rows: dict[str, Any]) -> Float32s:
            return self.run(rows["features"])

        together = self.run(x)
        good = together[np.isfinite(together).all(axis=1)]
        spread = (
            1e-3 * good.std(axis=0) + 1e-5 * good.std() if len(good) else 0.0
        )  # a unit may be dead but for rounding
        bounds = spread + 1e-4 * np.abs(together)
        again = [(self.run(x), "a second time"), *rescored(latent, {"features": x})]
        for other, how in again:
            same = (np.abs(other - together) <= bounds) | (np.isnan(other) & np.isnan(together))
            if not same.all():
                i, j = np.argwhere(~same)[0]
                raise BadModel(
                    f"{self.name}: its output for a row depends on chance or on the other rows of its batch: number {j} is "
                    f"{together[i, j]:.6g}, and {other[i, j]:.6g} {how}; export the network for inference"
                )


class Encoded:
    """A score on the output of a frozen graph, s(f(x)); in a file, both are one graph.

    The graph stands once in it, however many members the model has. A row without a finite vector has no score.

    Parameters
    ----------
    network : FrozenGraph
    model : Scorable
        On vectors (D,): one model, or a cross-training.

    References
    ----------
    C. Li et al., "Accelerating resonance searches via signature-oriented pre-training", arXiv:2405.12972.

    Examples
    --------
    >>> from torch import nn
    >>> from coffea_ad.nn.graph import torch_graph
    >>> from coffea_ad.nn.reconstruction.autoencoder import AE
    >>> theirs = nn.Linear(8, 3)
    >>> theirs.shape = (8,)
    >>> network = FrozenGraph(torch_graph(theirs, ["latent"]), (8,))
    >>> Encoded(network, AE(3, transform=nn.Identity(), latent=2)).scores(np.zeros((5, 8), np.float32)).shape
    (5,)
    """

    def __init__(self, network: FrozenGraph, model: Scorable) -> None:
        self.network, self.model = network, model
        self.members, self.shape = [model], network.shape

    @property
    def method(self) -> str:
        """Name on the card."""
        return self.model.method

    @property
    def folds(self) -> Folds | None:
        """The folds of a cross-training."""
        return self.model.folds

    @property
    def density(self) -> Density | None:
        """Whether the score is −log p(z): a network loses what it does not need, and so there is no density of x."""
        return "z" if self.model.density else None

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:
        """Score rows, (n, *shape) → (n,); NaN where the vector is not finite."""
        return self.model.scores(self.network(x), folds)

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return the graph of the network with that of the model behind it."""

        def behind(add: Any) -> None:
            for output in outputs:
                add("Reshape", f"member_1_{output}", add.constant([-1], np.int64), output=output)

        feeds = [{"features": "features"}, {"member_0_latent": "features"}]
        graphs = [self.network.graph, self.model.graph(outputs)]
        return join_graphs(graphs, [self.network.name, "score"], feeds, {"features": self.shape}, outputs, behind)
