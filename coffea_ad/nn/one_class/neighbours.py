"""Neighbours: how far a row is from a bank of background rows."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, SkimError, unknown_text
from coffea_ad.nn.model import Batch, Model

__all__ = ["Metric", "Nearness", "Neighbours"]

Nearness = Literal["mean", "kth", "logsumexp"]
Metric = Literal["euclidean", "cosine"]

_BLOCK = 1024  # rows at a time: each needs a number for every row of the bank


class Neighbours(Model):
    """Distance from the nearest of many background rows, which are part of the model.

    With z = transform(x) and a bank of M rows b, the score of x is one of

        mean:       Σ d(z, b) / k over the k nearest rows of the bank
        kth:        d(z, b) of the k-th nearest
        logsumexp:  −ln (Σ exp(cos(z, b)/τ) / M) over the whole bank

    with d = |z − b| (euclidean) or d = 1 − cos(z, b) (cosine). A cosine compares directions about z = 0, and is 0 if one of both is
    0: it is for encoders that learned by it, and on standardised columns it knows nothing of how far a row is out.

    The bank is drawn from the training rows in proportion to their weights, with replacement: a row of large weight may
    come several times, and counts as so many neighbours. Nothing else is trained. Held-out rows are never in it, nor in a
    cross-training rows of the fold that is scored; a training row that is scored has itself as a neighbour, and looks more
    ordinary than it is.

    Nearest rows are looked up by one product of matrices, and the distances computed of the differences, so that equal rows
    have the distance 0. **The file holds the bank**: M D numbers of 4 bytes, 41 MB for 20 000 rows of 512 numbers, and as much
    again for every fold of a cross-training; a score costs about 2 M D operations.

    Parameters
    ----------
    features : int
        Number of columns of z, D.
    how : "mean", "kth" or "logsumexp"
    k : int
        Neighbours, of "mean" and "kth".
    bank : int
        M; where fewer training rows are drawn, all of those. More than 50 000 never are.
    metric : "euclidean" or "cosine"
        Of "mean" and "kth".
    temperature : float
        τ of "logsumexp".
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.

    Raises
    ------
    ConfigError
        A number is out of range, or a word unknown.
    SkimError
        When fitted: there are fewer rows than neighbours.

    References
    ----------
    S. Ramaswamy, R. Rastogi, K. Shim, "Efficient algorithms for mining outliers from large data sets", Proc. ACM SIGMOD (2000)
    427; Y. Sun, Y. Ming, X. Zhu, Y. Li, "Out-of-distribution detection with deep nearest neighbors", arXiv:2204.06507;
    on embeddings of jets H. F. Tsoi, D. Rankin, arXiv:2601.11719.

    Examples
    --------
    >>> model = Neighbours(2, k=1, transform=nn.Identity())
    >>> model.start(Batch.of(torch.tensor([[0.0, 0.0], [3.0, 4.0]])), torch.Generator().manual_seed(1))
    >>> model.energy(torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 5.0]])).tolist()
    [0.0, 3.0, 1.0]
    """

    method: ClassVar[str] = "nearest neighbours"
    plotted: ClassVar[tuple[str, ...]] = ("validation",)

    def __init__(
        self,
        features: int,
        *,
        how: Nearness = "mean",
        k: int = 30,
        bank: int = 20_000,
        metric: Metric = "euclidean",
        temperature: float = 0.1,
        transform: nn.Module,
    ) -> None:
        super().__init__((features,), transform)
        for name, value, known in (("how", how, get_args(Nearness)), ("metric", metric, get_args(Metric))):
            if value not in known:
                raise ConfigError(f"neighbours: {unknown_text(name, value, known)}")
        if not 1 <= k <= bank:
            raise ConfigError(f"neighbours: k is {k}, but must lie between 1 and the {bank} rows of the bank")
        if not 0 < temperature < math.inf:
            raise ConfigError(f"neighbours: temperature is {temperature}, but must be a positive number")
        self.how, self.k, self.most, self.metric, self.temperature = how, k, bank, metric, temperature
        self.directions = metric == "cosine" or how == "logsumexp"
        self.register_buffer("bank", torch.zeros(bank, features))
        self.bank: Tensor

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take a bank of any number of rows: it may have been drawn from few."""
        if (saved := state_dict.get(f"{prefix}bank")) is not None:
            self.bank = self.bank.new_zeros(len(saved), self.bank.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw the bank from transformed rows, (n, D), which are drawn in proportion to their weights."""
        n = min(self.most, len(batch.z))
        if n < self.k:
            raise SkimError(f"{self.k} neighbours cannot be taken from {n} rows; lower k")
        rows = batch.z[torch.randperm(len(batch.z), generator=generator, device=batch.z.device)[:n]]
        self.bank = self._directed(rows)

    def _directed(self, z: Tensor) -> Tensor:
        """Return rows of length 1 for the cosine; rows of zeros stay."""
        return nn.functional.normalize(z) if self.directions else z

    def energy(self, z: Tensor) -> Tensor:
        """Distance of transformed rows from the bank, (n, D) → (n,)."""
        if not torch.compiler.is_exporting() and len(z) > _BLOCK:
            return torch.cat([self.energy(part) for part in z.split(_BLOCK)])
        z = self._directed(z)
        product = z @ self.bank.t()
        if self.how == "logsumexp":
            return math.log(len(self.bank)) - torch.logsumexp(product / self.temperature, dim=1)
        if self.directions:
            distance = (1 - product.topk(self.k, dim=1).values).clamp(min=0.0)
        else:
            near = (product - 0.5 * (self.bank**2).sum(dim=1)).topk(self.k, dim=1).indices
            distance = ((z[:, None, :] - self.bank[near]) ** 2).sum(dim=2).sqrt()
        return distance.mean(dim=1) if self.how == "mean" else distance.amax(dim=1)
