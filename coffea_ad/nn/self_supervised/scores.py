"""Scores on a representation: an encoder that is trained already, and a model on what it gives."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.density.mixture import GaussianMixture
from coffea_ad.nn.energy_based.nae import NAE
from coffea_ad.nn.energy_based.wnae import WNAE
from coffea_ad.nn.model import Model
from coffea_ad.nn.one_class.mahalanobis import Mahalanobis
from coffea_ad.nn.one_class.neighbours import Neighbours
from coffea_ad.nn.reconstruction.autoencoder import AE
from coffea_ad.nn.self_supervised.encoder import SetEncoder
from coffea_ad.nn.transforms.per_column import Preprocessing, Unchanged, preprocessing
from coffea_ad.nn.transforms.representation import Representation

__all__ = ["SCORES", "OnVectors", "ScoreName", "score_on"]

OnVectors = Literal["ae", "nae", "wnae", "flow", "neighbours", "cosine", "mahalanobis", "mixture"]
ScoreName = Literal["direct", OnVectors]

_FIXED = ("self", "features", "transform")
SCORES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ae": (AE, {"hidden": (64, 32), "latent": 8}),
    "nae": (NAE, {"hidden": (64, 32), "latent": 8}),
    "wnae": (WNAE, {"hidden": (64, 32), "latent": 8}),
    "flow": (Flow, {"kind": "maf", "hidden": (128, 128)}),
    "neighbours": (Neighbours, {"k": 30, "bank": 10_000}),
    "cosine": (Neighbours, {"how": "logsumexp", "bank": 10_000}),
    "mahalanobis": (Mahalanobis, {"shrinkage": 0.1}),  # directions of less variance are rounding of the encoder
    "mixture": (GaussianMixture, {}),
}
"""Models on a representation, and what they are made with beside their defaults."""


def score_on(
    encoder: SetEncoder | Sequence[str],
    score: ScoreName,
    *,
    options: Mapping[str, Any] | None = None,
    then: Preprocessing = "standard",
    seed: int = 1,
) -> Model:
    """Return a score on a frozen encoder, before its own training.

    Parameters
    ----------
    encoder : SetEncoder, or sequence of str
        Gives h or z, as its `space` says; or the names of columns that are a representation already.
    score : str
        Of `SCORES`. "cosine" takes the representation as it is, since an angle is one about its origin.
    options : {keyword: value}, optional
        With which the model is made, instead of those of `SCORES`.
    then : str
        Preprocessing of the representation.
    seed : int
        Of the weights of the model.

    Raises
    ------
    ConfigError
        There is no such score or option.

    References
    ----------
    L. Favaro et al., "Semi-visible jets, energy-based models, and self-supervision", arXiv:2312.03067; H. F. Tsoi, D. Rankin,
    arXiv:2601.11719.

    Examples
    --------
    >>> from coffea_ad.nn.self_supervised.encoder import PRESETS
    >>> from coffea_ad.nn.self_supervised.tokens import Tokens
    >>> score_on(SetEncoder(50, Tokens(["pt", "deta", "dphi"]), **PRESETS["small"]), "ae").shape
    (50, 3)
    """
    if score not in SCORES:
        raise ConfigError(unknown_text("score of a representation", score, SCORES))
    make, usual = SCORES[score]
    known = _keywords(make)
    for key in options or {}:
        if key not in known:
            raise ConfigError(f"scorer: {unknown_text('key', key, known)}")
    columns = [f"{encoder.space}{i}" for i in range(encoder.features)] if isinstance(encoder, SetEncoder) else encoder
    after = Unchanged(len(columns)) if score == "cosine" else preprocessing(then, columns)
    torch.manual_seed(seed)
    transform = Representation(encoder, after) if isinstance(encoder, SetEncoder) else after
    model: Model = make(len(columns), transform=transform, **{**usual, **(options or {})})
    return model


def _keywords(make: Any) -> list[str]:
    """Return the keywords that a model is made with, those that it hands on to its base included."""
    names = []
    for kind in make.__mro__:
        parameters = inspect.signature(kind.__init__).parameters
        names += [n for n, p in parameters.items() if n not in _FIXED and p.kind is not inspect.Parameter.VAR_KEYWORD]
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            break
    return list(dict.fromkeys(names))
