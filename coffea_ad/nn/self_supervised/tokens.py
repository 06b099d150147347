"""Tokens: the objects of a set as the numbers that a network takes, and which of its slots are occupied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.features.base import Column
from coffea_ad.features.spec import ColumnSpec
from coffea_ad.nn.described import Described
from coffea_ad.nn.self_supervised.augmentations import wrapped

__all__ = ["TokenSet", "Tokens"]

Scale = Literal["linear", "log"]

_KINDS = 4  # of event objects: missing momentum, electron, muon, jet
_LEAST = 1e-6  # the least share of pT whose logarithm is taken
_AS_THEY_ARE = frozenset(
    ("charge", "is_charged_hadron", "is_neutral_hadron", "is_photon", "is_electron", "is_muon", "is_met", "is_jet")
)  # fmt: skip
_ANGLES = frozenset(("eta", "deta", "phi", "dphi", "type", "mask"))


class TokenSet(NamedTuple):
    """Objects of sets by falling pT, as a network takes them."""

    tokens: Tensor
    """(n, slots, width), 0 in empty slots."""
    occupied: Tensor
    """(n, slots), 1 where there is one."""
    share: Tensor
    """(n, slots), part of the pT of the set."""


class Tokens(nn.Module, metaclass=Described):
    """Raw rows of a set → tokens, sorted, centred, scaled and cropped, inside the graph.

    A slot is occupied where pT > 0. Occupied slots are sorted by falling pT, of equal pT by falling η, and beyond `size`
    the softest are left out. Sums over them are then made in one order, whatever the order of the slots was. Per object:

    - "linear": pT / pt_scale; "log": ln(pT / pt_scale) and ln(pT / Σ pT);
    - deta, dphi over the radius, from the pT-weighted centroid of the occupied slots if `centre`, Δφ wrapped to (−π, π];
    - eta / 4, and phi as its sine and cosine;
    - type as one number for each kind; charge and is_… as they are. A `mask` says nothing new.

    Parameters
    ----------
    columns : sequence of str
        What a slot holds, in order: those of `jet_constituents` or `event_objects`, pt in GeV among them, angles in radians.
    scale : "linear" or "log"
        Of pT.
    pt_scale : float, GeV
    radius : float
        Of the jets.
    centre : bool
        Whether deta and dphi are taken from the centroid of the slots.
    size : int, optional
        So many slots at most.

    Raises
    ------
    ConfigError
        There is no pt, or a column that cannot be scaled.

    Examples
    --------
    >>> objects = Tokens(["pt", "deta", "dphi"])(torch.tensor([[[0.0, 0, 0], [300.0, 0.1, 0]]]))
    >>> objects.tokens[0, 0].tolist(), objects.occupied.tolist()
    ([1.0, 0.0, 0.0], [[1.0, 0.0]])
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        scale: Scale = "linear",
        pt_scale: float = 300.0,
        radius: float = 0.8,
        centre: bool = True,
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.columns = tuple(columns)
        unknown = [c for c in self.columns if c not in {"pt"} | _ANGLES | _AS_THEY_ARE]
        if unknown or "pt" not in self.columns:
            names = ", ".join(sorted({"pt"} | _ANGLES | _AS_THEY_ARE))
            raise ConfigError(f"a set of objects needs pt, and may have {names}, but its columns are {list(columns)}")
        if scale not in ("linear", "log"):
            raise ConfigError(f"scale is {scale!r}, but must be linear or log")
        self.scale, self.pt_scale, self.radius, self.size = scale, pt_scale, radius, size
        self.centre = centre and {"deta", "dphi"} <= set(self.columns)
        parts = {"pt": 1 if scale == "linear" else 2, "phi": 2, "type": _KINDS, "mask": 0}
        self.width = sum(parts.get(c, 1) for c in self.columns)

    @classmethod
    def of(cls, columns: Sequence[Column | ColumnSpec], **options: Any) -> Self:
        """Return the tokens of a feature, whose angles must be in radians.

        Raises
        ------
        ConfigError
            The azimuth of the feature is scaled.
        """
        if any(c.name == "phi" and c.unit != "rad" for c in columns):
            raise ConfigError("phi of the feature is scaled; an encoder takes it in radians: options.scaling=none")
        return cls([c.name for c in columns], **options)

    def _pt(self, x: Tensor) -> Tensor:
        """Return pT of the slots, (n, slots, columns) → (n, slots), GeV."""
        return x[:, :, self.columns.index("pt")]

    def _ordered(self, x: Tensor) -> Tensor:
        """Return slots by falling pT, empty ones last, (n, slots, columns) → (n, slots or fewer, columns)."""
        for name in (next((c for c in ("deta", "eta") if c in self.columns), None), "pt"):
            if name is not None:  # sorting keeps the order of equal ones
                order = _falling(x[:, :, self.columns.index(name)])
                x = x.gather(1, order.unsqueeze(2).expand_as(x))
        return x if self.size is None else x[:, : self.size]

    def forward(self, x: Tensor) -> TokenSet:
        """Return the objects of sets, (n, slots, columns)."""
        x = self._ordered(x)
        pt = self._pt(x)
        occupied = (pt > 0).to(x.dtype)
        pt = pt * occupied
        share = pt / pt.sum(dim=1, keepdim=True).clamp(min=1e-30)
        tokens = []
        for i, name in enumerate(self.columns):
            value = x[:, :, i]
            if name == "pt" and self.scale == "linear":
                tokens.append(pt / self.pt_scale)
            elif name == "pt":
                tokens += [(pt / self.pt_scale).clamp(min=_LEAST).log(), share.clamp(min=_LEAST).log()]
            elif name == "deta":
                tokens.append((value - self._centre(value, share)) / self.radius)
            elif name == "dphi":
                tokens.append(wrapped(value - self._azimuth(value, share)) / self.radius)
            elif name == "eta":
                tokens.append(value / 4)
            elif name == "phi":
                tokens += [value.sin(), value.cos()]
            elif name == "type":
                tokens += [(value == kind + 1).to(x.dtype) for kind in range(_KINDS)]
            elif name != "mask":
                tokens.append(value)
        return TokenSet(torch.stack(tokens, dim=2) * occupied.unsqueeze(2), occupied, share)

    def _centre(self, value: Tensor, share: Tensor) -> Tensor:
        return (value * share).sum(dim=1, keepdim=True) if self.centre else torch.zeros_like(value[:, :1])

    def _azimuth(self, value: Tensor, share: Tensor) -> Tensor:
        """Average azimuths about that of the leading object, so that a jet across ±π has no centre on the other side."""
        if not self.centre:
            return torch.zeros_like(value[:, :1])
        first = value[:, :1]
        return first + (wrapped(value - first) * share).sum(dim=1, keepdim=True)


def _falling(values: Tensor) -> Tensor:
    """Return places by falling value, of equal ones in their order; the exporter has a sort for that, but by another name."""
    if torch.compiler.is_exporting():
        return values.sort(dim=1, descending=True).indices  # in ONNX, equal ones stand in their order
    return values.sort(dim=1, descending=True, stable=True).indices
