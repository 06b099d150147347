"""SetEncoder: a transformer on sets of constituents or objects that does not know their order."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.described import Described
from coffea_ad.nn.self_supervised.tokens import Tokens, TokenSet

__all__ = ["PRESETS", "Pooling", "Preset", "SetEncoder", "Space", "in_buckets"]

Preset = Literal["darkclr", "small"]
Pooling = Literal["sum", "mean", "pt"]
Space = Literal["h", "z"]

PRESETS: dict[str, dict[str, Any]] = {
    "darkclr": {"width": 128, "heads": 4, "layers": 4, "feedforward": 512, "outputs": 512, "dropout": 0.1},
    "small": {"width": 64, "heads": 4, "layers": 2, "feedforward": 128, "outputs": 64, "dropout": 0.0},
}
"""Arguments of `SetEncoder`: the sizes of the authors of DarkCLR, and of one that trains on a CPU."""

_ABSENT = -1e4  # what an empty slot adds to the logarithm of its attention: finite in float16, and exp of it is 0


class _Block(nn.Module):
    """Attention among the objects of a set, and a network on each of them; both are added to what comes in."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, *, norm_first: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.norm_first = heads, dropout, norm_first
        self.attend = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.Linear(width, feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.drop = nn.Dropout(dropout)

    def _attention(self, y: Tensor, bias: Tensor) -> Tensor:
        (n, slots), width = (bias.shape[0], bias.shape[3]), y.shape[1]
        parts = self.attend(y).reshape(n, slots, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(
            parts[0], parts[1], parts[2], attn_mask=bias.to(y.dtype), dropout_p=dropout
        )
        projected: Tensor = self.drop(self.project(out.transpose(1, 2).reshape(n * slots, width)))
        return projected

    def forward(self, y: Tensor, bias: Tensor) -> Tensor:
        """(n · slots, width) and what is added to the attention to each slot, (n, 1, 1, slots) → (n · slots, width).

        Objects of all sets stand in one matrix, whose products with weights and biases are one operation in a graph.
        """
        if self.norm_first:
            y = y + self._attention(self.norms[0](y), bias)
            after: Tensor = y + self.drop(self.network(self.norms[1](y)))
            return after
        y = self.norms[0](y + self._attention(y, bias))
        normalised: Tensor = self.norms[1](y + self.drop(self.network(y)))
        return normalised


class SetEncoder(nn.Module, metaclass=Described):
    """h, the representation of a set, and z = head(h), on which it is trained.

    Tokens are embedded linearly, pass through layers of attention, of which empty slots are no part, and are pooled to h: by their
    sum, their mean, or their mean weighted with pT. Sorting, centring, scaling and cropping are part of it, so that it takes the
    rows of a feature as they are, with any number of slots. Sets without objects have h = 0, and all the same z.

    With pooling by pT the attention to a slot is weighted with its share of pT as well: a constituent without momentum
    changes nothing, so that h is safe against soft emissions. It is not against collinear ones, since tokens know pT.

    Parameters
    ----------
    slots : int
        Slots of a row as the feature has them.
    tokens : Tokens
        What a slot holds, and how it is scaled.
    width, heads, layers, feedforward : int
        Of the transformer.
    outputs : int
        Width of z.
    dropout : float
    norm_first : bool
        Normalise before attention and networks, which trains at larger learning rates, or after, as the authors do.
    pooling : "sum", "mean" or "pt"
    space : "h" or "z"
        What `forward` gives: to a `Representation`, and to scores on it.

    Attributes
    ----------
    shape : (slots, columns)
    features : int
        Width of what `forward` gives.

    Raises
    ------
    ConfigError
        The width is no multiple of the heads, or a pooling or space is unknown.

    References
    ----------
    B. Dillon, G. Kasieczka, H. Olischlager, T. Plehn, P. Sorrenson, L. Vogel, "Symmetries, safety, and self-supervision",
    arXiv:2108.04253; L. Favaro, M. Krämer, T. Modak, T. Plehn, J. Rüschkamp, "Semi-visible jets, energy-based models, and
    self-supervision", arXiv:2312.03067.

    Examples
    --------
    >>> encoder = SetEncoder(50, Tokens(["pt", "deta", "dphi"]), **PRESETS["small"])
    >>> encoder(torch.zeros(2, 50, 3)).shape, encoder.shape
    (torch.Size([2, 64]), (50, 3))
    """

    slots_vary = True
    """Rows with fewer slots than `shape` says may be given, and an exported graph takes them."""

    def __init__(
        self,
        slots: int,
        tokens: Tokens,
        *,
        width: int = 128,
        heads: int = 4,
        layers: int = 4,
        feedforward: int = 512,
        outputs: int = 512,
        dropout: float = 0.0,
        norm_first: bool = True,
        pooling: Pooling = "sum",
        space: Space = "h",
    ) -> None:
        super().__init__()
        for key, value, known in (("pooling", pooling, ("sum", "mean", "pt")), ("space", space, ("h", "z"))):
            if value not in known:
                raise ConfigError("encoder: " + unknown_text(key, value, known))
        if width % heads:
            raise ConfigError(f"encoder: width {width} is no multiple of {heads} heads")
        self.slots, self.width, self.outputs, self.pooling, self.space = slots, width, outputs, pooling, space
        self.shape = (slots, len(tokens.columns))
        self.tokens = tokens
        self.embed = nn.Linear(tokens.width, width)
        self.blocks = nn.ModuleList(
            _Block(width, heads, feedforward, dropout, norm_first=norm_first) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.head = nn.Sequential(nn.Linear(width, outputs), nn.ReLU(), nn.Linear(outputs, outputs))

    @property
    def features(self) -> int:
        """Width of what `forward` gives."""
        return self.width if self.space == "h" else self.outputs

    def giving(self, space: Space) -> SetEncoder:
        """Return a copy with the same weights that gives h or z."""
        other = copy.deepcopy(self)
        other.space = space
        vars(other)["_arguments"] = {**vars(self)["_arguments"], "space": space}
        return other

    def in_context(self, objects: TokenSet, hidden: Tensor | None = None, substitute: Tensor | None = None) -> Tensor:
        """Return every object in the context of its set.

        Parameters
        ----------
        objects : TokenSet
            Of n sets, as `tokens` gives them.
        hidden : (n, slots) bool, optional
            Which objects are hidden from the others and from themselves.
        substitute : (slots, width), optional
            What the network sees instead of each of them.

        Returns
        -------
        (n, slots, width)
        """
        n, slots, _ = objects.tokens.shape
        y = self.embed(objects.tokens.reshape(n * slots, -1))
        if hidden is not None and substitute is not None:
            y = torch.where(hidden.reshape(-1, 1), substitute[:slots].to(y.dtype).repeat(n, 1), y)
        bias = (objects.occupied - 1) * -_ABSENT
        if self.pooling == "pt":
            bias = bias + objects.share.clamp(min=1e-30).log() * objects.occupied
        for block in self.blocks:
            y = block(y, bias[:, None, None, :])
        normalised: Tensor = self.norm(y).reshape(n, slots, -1)
        return normalised

    def pooled(self, objects: TokenSet, y: Tensor) -> Tensor:
        """Return h of sets whose objects `in_context` are given, (n, slots, width) → (n, width)."""
        if self.pooling == "pt":
            return (y * objects.share.unsqueeze(2)).sum(dim=1)
        h = (y * objects.occupied.unsqueeze(2)).sum(dim=1)
        return h / objects.occupied.sum(dim=1, keepdim=True).clamp(min=1) if self.pooling == "mean" else h

    def h(self, x: Tensor) -> Tensor:
        """Return the representation, (n, slots, columns) → (n, width)."""
        objects = self.tokens(x)
        return self.pooled(objects, self.in_context(objects))

    def z(self, x: Tensor) -> Tensor:
        """Return what the loss sees, (n, slots, columns) → (n, outputs)."""
        z: Tensor = self.head(self.h(x))
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Return h or z, as `space` says, (n, slots, columns) → (n, features)."""
        return self.h(x) if self.space == "h" else self.z(x)


def in_buckets(encode: Callable[[Tensor], Tensor], x: Tensor, groups: int = 4) -> Tensor:
    """Return what an encoder gives, with rows of few objects apart from those of many: the same numbers, in less time.

    Rows are divided into groups by their last occupied slot, and each loses the slots that none of its rows needs.

    Parameters
    ----------
    encode : callable
        (n, slots, columns) → (n, …), such as `SetEncoder.z`.
    x : (n, slots, columns) float32
        pT first; 0 in empty slots.
    groups : int

    Returns
    -------
    (n, …)
        In the order of the rows.
    """
    places = torch.arange(1, x.shape[1] + 1, device=x.device)
    n_slots = ((x[:, :, 0] > 0) * places).amax(dim=1)
    order = n_slots.argsort()
    parts = order.tensor_split(min(groups, max(len(x) // 32, 1)))
    values = [encode(x[part, : max(int(n_slots[part[-1]]), 1)]) for part in parts]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=x.device)
    return torch.cat(values)[back]
