"""Representation: a trained encoder as the preprocessing of another model, in the same graph."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.typing import Float32s, Float64s

__all__ = ["Representation"]

_BLOCK = 1024  # rows that are encoded at a time: attention on 1024 sets of 50 takes 0.3 GB


class Representation(Transform):
    """z = then(e(x)) with an encoder e that is trained already, and that nothing trains any further.

    The encoder is frozen and always in evaluation mode, so that training sees what the exported graph computes. It may take
    rows of any shape, such as sets of constituents (50, 3); z are its outputs, and so a model on it has their number as
    `features`. It is fitted and applied block by block: all rows at once would be n · 50 · 512 numbers.

    Parameters
    ----------
    encoder : nn.Module
        Takes rows (n, *row_shape), gives (n, then.features).
    then : Transform
        Preprocessing of what the encoder gives.
    row_shape : tuple of int, optional
        Shape of a row of x; by default the encoder's attribute `shape`.

    Raises
    ------
    ConfigError
        Nothing says what shape the rows have.

    References
    ----------
    B. Dillon, L. Favaro, F. Feiden, T. Modak, T. Plehn, "Anomalies, representations, and self-supervision",
    arXiv:2301.04660.

    Examples
    --------
    >>> from coffea_ad.nn.transforms.columns import Standard
    >>> flat = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    >>> transform = Representation(flat, Standard(4), row_shape=(2, 3))
    >>> transform.fit(np.random.default_rng(1).normal(size=(50, 2, 3)).astype(np.float32), np.ones(50))(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 4])
    """

    has_jacobian: ClassVar[bool] = False
    z_columns: tuple[str, ...] | None = None

    def __init__(self, encoder: nn.Module, then: Transform, *, row_shape: tuple[int, ...] | None = None) -> None:
        super().__init__(then.features, names=then.names)
        shape: Any = row_shape or getattr(encoder, "shape", None)
        if not shape:
            raise ConfigError("the encoder does not say the shape of its rows; give row_shape")
        self.row_shape = tuple(shape)
        self.slots_vary = bool(getattr(encoder, "slots_vary", False))
        self.encoder, self.then = encoder.requires_grad_(requires_grad=False), then
        self.eval()

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002  as in torch
        """Stay in evaluation mode."""
        return super().train(mode=False)

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Learn from finite rows, (n, *row_shape), with weights that are not negative, (n,).

        Raises
        ------
        SkimError
            Rows of another shape, or an output of the encoder cannot be transformed; the message names it.
        """
        if tuple(x.shape[1:]) != self.row_shape:
            raise SkimError(f"rows have the shape {tuple(x.shape[1:])}, the encoder takes {self.row_shape}")
        device = next(iter(self.state_dict().values())).device
        encoded = np.empty((len(x), self.features), np.float32)
        with torch.no_grad():
            for start in range(0, len(x), _BLOCK):
                rows = torch.from_numpy(np.asarray(x[start : start + _BLOCK], np.float32)).to(device)
                encoded[start : start + _BLOCK] = self.encoder(rows).cpu().numpy()
        if not np.isfinite(encoded).all():
            raise SkimError("the encoder gives numbers that are not finite for some rows")
        self.then.fit(encoded, weight)
        self.low.copy_(self.then.low)
        self.high.copy_(self.then.high)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Encode and transform rows, (n, *row_shape) → (n, features)."""
        if torch.compiler.is_exporting() or len(x) <= _BLOCK:
            z: Tensor = self.then(self.encoder(x))
            return z
        return torch.cat([self.then(self.encoder(rows)) for rows in x.split(_BLOCK)])

    def log_det(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """Refuse: an encoder loses what it does not need, and so has no density of x."""
        raise ConfigError("a representation has no Jacobian; a density behind it is one of z")
