"""Which preprocessing each column gets: the option `preprocessing` of the training recipes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.transforms.boxes import Logit, MinMax
from coffea_ad.nn.transforms.columns import Log, QuantileNormal, Standard, Transform, covered
from coffea_ad.typing import Float32s, Float64s

__all__ = ["PerColumn", "Preprocessing", "Unchanged", "preprocessing"]


class Unchanged(Transform):
    """Leave the rows as they are, of whatever shape: z = x.

    `low` and `high` hold the range of each entry of the last axis where its length is `features`, else of all values.

    Examples
    --------
    >>> float(Unchanged(1)(torch.tensor([[3.0]])))
    3.0
    """

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Note the range of the rows, (n, …)."""
        if x.ndim == 2:
            return super().fit(x, weight)
        axes = tuple(range(x.ndim - 1)) if x.shape[-1] == self.features else None
        self.low.copy_(torch.from_numpy(np.array(x.min(axis=axes))))
        self.high.copy_(torch.from_numpy(np.array(x.max(axis=axes))))
        return self

    def _fit_column(self, i: int, x: Float64s, weight: Float64s) -> tuple[float, float]:  # noqa: ARG002
        return covered(x, weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows."""
        return x

    def inverse(self, z: Tensor) -> Tensor:
        """Return the rows."""
        return z

    def _log_slopes(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


_KINDS: dict[str, type[Transform]] = {
    "quantile": QuantileNormal,
    "standard": Standard,
    "log": Log,
    "logit": Logit,
    "minmax": MinMax,
    "none": Unchanged,
}
_OTHERS = "*"


def _check(spec: str | dict[str, str]) -> str | dict[str, str]:
    """Refuse kinds that do not exist."""
    for kind in spec.values() if isinstance(spec, Mapping) else [spec]:
        if kind not in _KINDS:
            raise ValueError(unknown_text("preprocessing", str(kind), _KINDS))
    return spec


Preprocessing = Annotated[str | dict[str, str], AfterValidator(_check)]
"""A key of a recipe's Config: "quantile", "standard", "log", "logit", "minmax" or "none", or one of them for each column, `*` for others."""


class PerColumn(Transform):
    """A preprocessing of its own for every column.

    Parameters
    ----------
    kinds : sequence of str
        "quantile", "standard", "log", "logit", "minmax" or "none", one for each column.
    names : sequence of str
        The columns' names, for messages.

    Raises
    ------
    ConfigError
        A kind does not exist.

    Examples
    --------
    >>> x = np.random.default_rng(1).exponential(size=(500, 2)).astype(np.float32)
    >>> z = PerColumn(["log", "none"]).fit(x, np.ones(500))(torch.from_numpy(x))
    >>> round(z[:, 0].mean().abs().item(), 4), bool((z[:, 1] == torch.from_numpy(x[:, 1])).all())
    (0.0, True)
    """

    def __init__(self, kinds: Sequence[str], *, names: Sequence[str] = ()) -> None:
        super().__init__(len(kinds), names=names)
        known = names or [str(i) for i in range(len(kinds))]
        self.parts, self.places = nn.ModuleList(), []
        for kind in dict.fromkeys(kinds):
            if kind not in _KINDS:
                raise ConfigError(unknown_text("preprocessing", kind, _KINDS))
            columns = [i for i, other in enumerate(kinds) if other == kind]
            self.parts.append(_KINDS[kind](len(columns), names=[known[i] for i in columns]))
            self.places.append(columns)
        order = np.argsort([i for columns in self.places for i in columns])
        self.register_buffer("order", torch.from_numpy(order), persistent=False)
        self.order: Tensor

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Learn from finite rows, (n, features), with weights that are not negative, (n,)."""
        if x.ndim != 2:
            return super().fit(x, weight)  # which says why not
        for part, columns in zip(self.parts, self.places, strict=True):
            part.fit(x[:, columns], weight)  # type: ignore[operator]
            self.low[columns], self.high[columns] = part.low, part.high  # type: ignore[assignment]
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        parts = [
            part(x.index_select(1, torch.tensor(columns, device=x.device)))
            for part, columns in zip(self.parts, self.places, strict=True)
        ]
        return torch.cat(parts, dim=1).index_select(1, self.order)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the rows x of transformed ones, (n, features) → (n, features)."""
        return self._of_parts("inverse", z)

    @property
    def box(self) -> Tensor:
        """The edges of x, (2, features), beyond which z does not change any more; ±∞ where a column has none."""
        return torch.cat([part.box for part in self.parts], dim=1)[:, self.order]  # type: ignore[misc]

    def _log_slopes(self, x: Tensor) -> Tensor:
        return self._of_parts("_log_slopes", x)

    def _of_parts(self, method: str, rows: Tensor) -> Tensor:
        """Put together what a method of the parts makes of their columns."""
        parts = zip(self.parts, self.places, strict=True)
        return torch.cat([getattr(part, method)(rows[:, columns]) for part, columns in parts], dim=1)[:, self.order]


def preprocessing(spec: str | Mapping[str, str], columns: Sequence[str]) -> Transform:
    """Make the preprocessing of a model.

    Parameters
    ----------
    spec : str or {column: str}
        "quantile": to a standard normal by the quantiles (`QuantileNormal`); "standard": (x − μ)/σ (`Standard`); "log":
        the logarithm, standardised (`Log`); "logit": the logit of the place in the range of the training rows, standardised
        (`Logit`); "minmax": that range to −1 … 1 (`MinMax`); "none" (`Unchanged`). A mapping gives a kind to each column by name, and to
        all others under `*`.
    columns : sequence of str
        Names of the model's inputs, in order.

    Returns
    -------
    Transform
        To be fitted by `fit`, with the model.

    Raises
    ------
    ConfigError
        A kind or a column does not exist, or a column is not mentioned.

    Examples
    --------
    >>> type(preprocessing("standard", ["tau2", "tau3"])).__name__
    'Standard'
    >>> preprocessing({"tau2": "log", "tau4": "none"}, ["tau2", "tau3"])
    Traceback (most recent call last):
    coffea_ad.errors.ConfigError: preprocessing: unknown column 'tau4'; did you mean 'tau3'? Known: *, tau2, tau3
    """
    try:
        _check(dict(spec) if isinstance(spec, Mapping) else spec)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    kinds = [spec] * len(columns) if isinstance(spec, str) else _by_column(spec, columns)
    if len(set(kinds)) == 1:
        return _KINDS[kinds[0]](len(columns), names=columns)
    return PerColumn(kinds, names=columns)


def _by_column(spec: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    """Return the kind of every column."""
    for name in spec:
        if name not in (*columns, _OTHERS):
            near = [
                *difflib.get_close_matches(name, columns, n=20, cutoff=0.0),
                _OTHERS,
            ]  # some features have thousands
            raise ConfigError("preprocessing: " + unknown_text("column", name, near))
    missing = [c for c in columns if c not in spec] if _OTHERS not in spec else []
    if missing:
        shown = ", ".join(missing[:20]) + (", …" if len(missing) > 20 else "")
        raise ConfigError(
            f"preprocessing: no kind is given for {shown}; name each column, or use {_OTHERS!r} for others"
        )
    return [spec.get(c, spec.get(_OTHERS, "none")) for c in columns]
