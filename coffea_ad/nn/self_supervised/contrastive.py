"""CLR: an encoder that learns what changes a set and what does not; DDD: a classifier of sets against changed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.self_supervised import losses
from coffea_ad.nn.self_supervised.encoder import SetEncoder, in_buckets
from coffea_ad.nn.self_supervised.views import Views

__all__ = ["CLR", "DDD", "Loss", "Precision"]

Loss = Literal["nt_xent", "decoupled_clr", "anom_clr", "anom_clr_plus"]
Precision = Literal["float32", "bfloat16"]

_METHODS = {"nt_xent": "CLR", "decoupled_clr": "decoupled CLR", "anom_clr": "AnomCLR", "anom_clr_plus": "AnomCLR+"}


class _Contrasting(Model):
    """An encoder that is trained on views of sets; they are made of raw rows, so that there is no preprocessing before."""

    def __init__(
        self,
        encoder: SetEncoder,
        positive: Sequence[str],
        anomalous: Sequence[str],
        options: Mapping[str, Any],
        precision: Precision,
    ) -> None:
        super().__init__(encoder.shape, nn.Identity())
        if precision not in get_args(Precision):
            raise ConfigError(unknown_text("precision", precision, get_args(Precision)))
        self.encoder, self.precision = encoder, precision
        self.views = Views(encoder.tokens.columns, positive, anomalous, options)

    @property
    def slots_vary(self) -> bool:
        """Rows without their last empty slots may be given."""
        return self.encoder.slots_vary

    def _encoded(self, *views: Tensor) -> list[Tensor]:
        """Return z of several views, in one pass, with rows of few objects apart from those of many."""
        with torch.autocast(views[0].device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            z = in_buckets(self.encoder.z, torch.cat(views))
        return list(z.float().chunk(len(views)))

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return the loss of held-out rows, on the same views in every epoch, and what tells how good the representation is."""
        with torch.no_grad():
            metrics = self.training_loss(batch, generator)
        return {"validation" if name == "loss" else f"validation_{name}": v.item() for name, v in metrics.items()}


class CLR(_Contrasting):
    """Contrastive learning of a representation of sets; by itself, the score is −|z|.

    A positive view is what must not change the representation, an anomalous one what must: both are made by
    augmentations, and nothing knows a signal. The loss compares directions, ẑ = z/|z|:

    - "nt_xent": z and its positive view against all others of the batch, the positive in the denominator (JetCLR);
    - "decoupled_clr": the same without the positive in the denominator (the CLR of AnomalyCLR);
    - "anom_clr": and away from the anomalous view of the row;
    - "anom_clr_plus": towards the positive view and away from the anomalous one, without other rows (DarkCLR).

    Scores of another model on h or z usually find more than −|z|, which also counts objects where they are summed:
    see `Representation`.

    Parameters
    ----------
    encoder : SetEncoder
    loss : str
    temperature : float
        τ.
    norm_weight : float
        Of the mean |z|, which keeps lengths finite that the loss does not see.
    positive, anomalous : sequence of str
        Augmentations: of the positive all, one after another; of the anomalous one for each row, drawn at random.
    options : {augmentation: {keyword: value}}
        What they are called with.
    precision : "float32" or "bfloat16"
        Of the encoder while it trains; losses are computed in single precision.

    Raises
    ------
    ConfigError
        A loss or augmentation is unknown, has other options, or does not suit the columns.

    References
    ----------
    B. Dillon, G. Kasieczka, H. Olischlager, T. Plehn, P. Sorrenson, L. Vogel, "Symmetries, safety, and self-supervision",
    arXiv:2108.04253; B. Dillon, L. Favaro, F. Feiden, T. Modak, T. Plehn, "Anomalies, representations, and
    self-supervision", arXiv:2301.04660; L. Favaro, M. Krämer, T. Modak, T. Plehn, J. Rüschkamp, "Semi-visible jets, energy-based
    models, and self-supervision", arXiv:2312.03067.

    Examples
    --------
    >>> from coffea_ad.nn.self_supervised.encoder import PRESETS
    >>> from coffea_ad.nn.self_supervised.tokens import Tokens
    >>> model = CLR(SetEncoder(50, Tokens(["pt", "deta", "dphi"]), **PRESETS["small"]))
    >>> model.method, model.score(torch.ones(2, 50, 3)).shape
    ('AnomCLR+', torch.Size([2]))
    """

    def __init__(
        self,
        encoder: SetEncoder,
        *,
        loss: Loss = "anom_clr_plus",
        temperature: float = 0.1,
        norm_weight: float = 1e-3,
        positive: Sequence[str] = ("rotation", "translation"),
        anomalous: Sequence[str] = ("drop",),
        options: Mapping[str, Any] | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(encoder, positive, anomalous, options or {}, precision)
        if loss not in get_args(Loss):
            raise ConfigError("CLR: " + unknown_text("loss", loss, get_args(Loss)))
        if loss.startswith("anom") and not anomalous:
            raise ConfigError(f"CLR: loss={loss} needs an anomalous view")
        self.loss, self.temperature, self.norm_weight = loss, temperature, norm_weight

    @property
    def method(self) -> str:  # type: ignore[override]
        """Name on the card."""
        return _METHODS[self.loss]

    @property
    def plotted(self) -> tuple[str, ...]:  # type: ignore[override]
        """Metrics of a training that are shown."""
        return "loss", "validation", "similarity", *(["similarity_to_anomaly"] if self.loss.startswith("anom") else [])

    def energy(self, z: Tensor) -> Tensor:
        """−|z| of rows, (n, slots, columns) → (n,)."""
        representation = self.encoder.z(z)
        return -(representation.square().sum(dim=1) + 1e-12).sqrt()

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return "loss", similarities to the positive and anomalous views, alignment and uniformity."""
        x, positive = self.views.positive(batch.z, generator), self.views.positive(batch.z, generator)
        with_anomaly = self.loss.startswith("anom")
        views = [x, positive, *([self.views.anomalous(batch.z, generator)] if with_anomaly else [])]
        z = self._encoded(*views)
        loss = getattr(losses, self.loss)(*z, temperature=self.temperature, row=batch.row)
        metrics = {
            "loss": loss + losses.norm_term(z[0], self.norm_weight),
            "similarity": losses.similarity(z[0], z[1]).detach(),
            "alignment": losses.alignment(z[0], z[1]).detach(),
            "uniformity": losses.uniformity(z[0], batch.row).detach(),
        }
        if with_anomaly:
            metrics["similarity_to_anomaly"] = losses.similarity(z[0], z[2]).detach()
        return metrics


class DDD(_Contrasting):
    """Discriminatory detection of distortions: a classifier of sets against their anomalous views; the score is its log-odds.

    The cross-entropy of "is an anomalous view" is minimised, on positive views of both. It needs no representation, and is what any
    contrastive loss with anomalous views has to be compared with.

    Parameters
    ----------
    encoder : SetEncoder
    positive, anomalous, options, precision
        As of `CLR`.

    Raises
    ------
    ConfigError
        There is no anomalous view, or as of `CLR`.

    References
    ----------
    S. Caron et al., "Universal anomaly detection at the LHC: transforming optimal classifiers and the DDD method", arXiv:2406.18469.

    Examples
    --------
    >>> from coffea_ad.nn.self_supervised.encoder import PRESETS
    >>> from coffea_ad.nn.self_supervised.tokens import Tokens
    >>> DDD(SetEncoder(50, Tokens(["pt", "deta", "dphi"]), **PRESETS["small"])).score(torch.ones(2, 50, 3)).shape
    torch.Size([2])
    """

    method: ClassVar[str] = "DDD"

    def __init__(
        self,
        encoder: SetEncoder,
        *,
        positive: Sequence[str] = ("rotation", "translation"),
        anomalous: Sequence[str] = ("drop",),
        options: Mapping[str, Any] | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(encoder, positive, anomalous, options or {}, precision)
        if not anomalous:
            raise ConfigError("DDD: it needs an anomalous view")
        self.odds = nn.Linear(encoder.outputs, 1)

    def energy(self, z: Tensor) -> Tensor:
        """Log-odds of rows for being anomalous views, (n, slots, columns) → (n,)."""
        odds: Tensor = self.odds(self.encoder.z(z)).squeeze(1)
        return odds

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return "loss", the mean cross-entropy of both classes."""
        views = self._encoded(self.views.positive(batch.z, generator), self.views.anomalous(batch.z, generator))
        odds = [self.odds(z).squeeze(1) for z in views]
        return {"loss": 0.5 * (functional.softplus(odds[0]).mean() + functional.softplus(-odds[1]).mean())}
