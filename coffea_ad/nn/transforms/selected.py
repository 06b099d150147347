"""Selected: a transform of some columns, for models that ignore the others, such as the mass in a search for a resonance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.typing import Float32s, Float64s

__all__ = ["Selected"]


class Selected(Transform):
    """z = then(x[columns]): the other columns stay in x, and a score does not depend on them.

    Parameters
    ----------
    columns : sequence of int
        Places in a row of x, in the order of the columns of z.
    of : int
        Number of columns of x.
    then : Transform
        Preprocessing of the columns that are taken.

    Raises
    ------
    ConfigError
        A column is not in a row or taken twice, or `then` is of another number of columns.

    References
    ----------
    E. Metodiev, B. Nachman, J. Thaler, "Classification without labels", arXiv:1708.02949: what a classifier must not see is what
    the samples are made by.

    Examples
    --------
    >>> from coffea_ad.nn.transforms.columns import Standard
    >>> x = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    >>> transform = Selected([2, 0], of=3, then=Standard(2)).fit(x, np.ones(50))
    >>> z = transform(torch.tensor([[1.0, 7.0, 0.0], [1.0, -7.0, 0.0]]))
    >>> z.shape, bool((z[0] == z[1]).all())
    (torch.Size([2, 2]), True)
    """

    has_jacobian: ClassVar[bool] = False

    def __init__(self, columns: Sequence[int], of: int, then: Transform) -> None:
        places = [int(c) for c in columns]
        if not places or len(set(places)) != len(places) or min(places) < 0 or max(places) >= of:
            raise ConfigError(f"columns is {places}, but must be different places from 0 to {of - 1}")
        if len(places) != then.features:
            raise ConfigError(f"{len(places)} columns are taken, but the transform behind is of {then.features}")
        super().__init__(then.features, names=then.names)
        self.row_shape, self.z_columns = (of,), tuple(then.names) or tuple(f"column {i}" for i in places)
        self.then = then
        self.register_buffer("columns", torch.tensor(places, dtype=torch.int64))
        self.columns: Tensor

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Learn from finite rows, (n, of), with weights that are not negative, (n,).

        Raises
        ------
        SkimError
            Rows of another shape, or a column that cannot be transformed; the message names it.
        """
        if tuple(x.shape[1:]) != self.row_shape:
            raise SkimError(f"rows have the shape {tuple(x.shape[1:])}, the columns are taken from {self.row_shape}")
        self.then.fit(np.asarray(x)[:, self.columns.cpu().numpy()], weight)
        self.low.copy_(self.then.low)
        self.high.copy_(self.then.high)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Take and transform columns, (n, of) → (n, features)."""
        z: Tensor = self.then(x.index_select(1, self.columns))
        return z

    def log_det(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """Refuse: columns that are left out have no density."""
        raise ConfigError("a selection of columns has no Jacobian; a density behind it is one of z")
