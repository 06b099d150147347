"""VAE and DirichletVAE: variational autoencoders whose scores never sample."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.reconstruction.autoencoder import Activation, mlp
from coffea_ad.scoring.specs import Contributions

__all__ = ["VAE", "DirichletVAE", "gaussian_kl"]

_ACTIVE = 0.01  # variance of the latent mean over the rows, above which a unit carries information
_SETTLED = 5  # epochs: before, a network that was barely trained may look like a collapsed one
_LOG_VARIANCE = 15.0  # far rows must not overflow: an infinite score cannot be ordered


def gaussian_kl(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of diagonal Gaussians from a diagonal Gaussian, (n, k) → (n,), in nats.

    KL = ½ Σₖ [ (σₖ² + (μₖ − mₖ)²) / sₖ² − 1 + ln sₖ² − ln σₖ² ] for N(μ, σ²) from N(m, s²).

    Parameters
    ----------
    mean, log_variance : (n, k)
        μ and ln σ².
    prior_mean, prior_log_variance : (k,)
        m and ln s².

    Examples
    --------
    >>> zero = torch.zeros(1)
    >>> gaussian_kl(torch.tensor([[2.0]]), torch.zeros(1, 1), zero, zero)
    tensor([2.])
    """
    return _unit_kl(mean, log_variance, prior_mean, prior_log_variance).sum(dim=1)


def _unit_kl(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """Return the divergence of each latent unit, (n, k) → (n, k)."""
    ratio = log_variance - prior_log_variance
    distance = (mean - prior_mean) ** 2 / prior_log_variance.exp()
    return 0.5 * (ratio.exp() + distance - 1 - ratio)


class VAE(Model):
    """Gaussian variational autoencoder on transformed inputs.

    q(s|z) = N(μ(z), σ²(z)), p(s) = N(0, 1), p(z|s) = N(D(s), β) with the same variance β for all inputs. Multiplied by
    2β/d, and without its constant, the negative evidence lower bound is

        L = |z − D(s)|² / d + (2β/d) KL(q(s|z) ‖ p(s)),   s = μ + σ ε,   ε ~ N(0, 1),

    which is what is minimised, with z = transform(x). So β is the squared resolution, in transformed units, beyond which
    the decoder need not describe the inputs: β = 1 calls a standardised input noise. No score draws an ε:

        "reconstruction"  |z − D(μ)|² / d
        "kl"              KL(q(s|z) ‖ p(s))
        "mu2"             |μ|²
        "elbo"            |z − D(μ)|² / d + (2β/d) KL, the bound at s = μ

    Parameters
    ----------
    features : int
        Number of input columns, d.
    hidden : sequence of int
        Widths from the input to the latent space.
    latent : int
        Number of latent units.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.
    activation : "relu" or "silu"
        Between the layers.
    beta : float
        Variance of the decoder, and so the weight of the KL term.
    score : str
        What the score of x is, see above.
    warmup : int
        Epochs over which the weight of the KL term rises to β; the held-out bound always has the full β.
    decoder_hidden : sequence of int, optional
        Widths of the decoder; those of the encoder, mirrored, by default.

    Raises
    ------
    ConfigError
        The score is unknown, or β or the warm-up negative.

    References
    ----------
    D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", arXiv:1312.6114;
    O. Cerri, T. Q. Nguyen, M. Pierini, M. Spiropulu, J.-R. Vlimant, "Variational autoencoders for new physics mining at
    the Large Hadron Collider", arXiv:1811.10276;
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", arXiv:1509.00519 (active units).

    Examples
    --------
    >>> model = VAE(8, transform=nn.Identity(), score="mu2")
    >>> model.score(torch.zeros(3, 8)).shape
    torch.Size([3])
    """

    method: ClassVar[str] = "VAE"
    criterion = "negative_elbo"
    plotted: ClassVar[tuple[str, ...]] = ("loss", "negative_elbo", "reconstruction")
    score_kinds: ClassVar[tuple[str, ...]] = ("reconstruction", "kl", "mu2", "elbo")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (10, 10),
        latent: int = 6,
        transform: nn.Module,
        activation: Activation = "relu",
        beta: float = 0.01,
        score: Literal["reconstruction", "kl", "mu2", "elbo", "weight"] = "reconstruction",
        warmup: int = 10,
        decoder_hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__((features,), transform)
        if score not in self.score_kinds:
            raise ConfigError(f"{self.method}: " + unknown_text("score", score, self.score_kinds))
        if not 0 <= beta < float("inf") or warmup < 0:
            raise ConfigError(f"{self.method}: beta is {beta} and warmup {warmup}; neither may be negative or infinite")
        self.features, self.beta, self.score_kind, self.warmup = features, beta, score, warmup
        back = tuple(reversed(hidden)) if decoder_hidden is None else decoder_hidden
        self.encoder = mlp([features, *hidden, 2 * latent], activation)
        self.decoder = mlp([latent, *back, features], activation)
        self.register_buffer("prior_mean", torch.zeros(latent))
        self.register_buffer("prior_log_variance", torch.zeros(latent))
        self.prior_mean: Tensor
        self.prior_log_variance: Tensor
        self._epoch, self._warned = 0, False

    def encode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and ln σ² of transformed rows, (n, d) → (n, latent) each."""
        mean, log_variance = self.encoder(z).chunk(2, dim=1)
        return mean, log_variance.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)

    def decode(self, s: Tensor) -> Tensor:
        """Return what the decoder makes of latent points, (n, latent) → (n, d)."""
        out: Tensor = self.decoder(s)
        return out

    def _error(self, z: Tensor, s: Tensor) -> Tensor:
        return ((z - self.decode(s)) ** 2).mean(dim=1)

    def divergence(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return KL(q ‖ p) of every row, (n, latent) twice → (n,), in nats."""
        return gaussian_kl(mean, log_variance, self.prior_mean, self.prior_log_variance)

    def energy(self, z: Tensor) -> Tensor:
        """Score of transformed rows at s = μ, (n, d) → (n,)."""
        mean, log_variance = self.encode(z)
        if self.score_kind == "mu2":
            return (mean**2).sum(dim=1)
        if self.score_kind == "kl":
            return self.divergence(mean, log_variance)
        if self.score_kind == "elbo":
            return self._error(z, mean) + 2 * self.beta / self.features * self.divergence(mean, log_variance)
        return self._error(z, mean)

    @property
    def contributes(self) -> Contributions | None:
        """Each input's part of the error, and the divergence of each latent unit, as far as the score has them."""
        if self.score_kind in ("kl", "mu2"):
            return Contributions(parts=self._units())
        return self.by_column("score", *(self._units() if self.score_kind == "elbo" else ()))

    def _units(self) -> tuple[str, ...]:
        return tuple(f"{'mu2' if self.score_kind == 'mu2' else 'KL'}[{k}]" for k in range(len(self.prior_mean)))

    def contributions(self, z: Tensor) -> Tensor:
        """(z − D(μ))ᵢ² / d, (2β/d) KLₖ, KLₖ or μₖ² of transformed rows, (n, d) → (n, parts)."""
        mean, log_variance = self.encode(z)
        if self.score_kind == "mu2":
            return mean**2
        divergence = _unit_kl(mean, log_variance, self.prior_mean, self.prior_log_variance)
        if self.score_kind == "kl":
            return divergence
        error = (z - self.decode(mean)) ** 2 / self.features
        if self.score_kind == "elbo":
            return torch.cat([error, 2 * self.beta / self.features * divergence], dim=1)
        return error

    def _terms(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean reconstruction error at a sampled s, the mean KL, and μ."""
        mean, log_variance = self.encode(z)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        error = self._error(z, mean + (0.5 * log_variance).exp() * noise)
        return error.mean(), self.divergence(mean, log_variance).mean(), mean

    def start(self, batch: Batch, generator: torch.Generator) -> None:  # noqa: ARG002
        """Forget the warm-up and the warning of an earlier training."""
        self._epoch, self._warned = 0, False

    def begin_epoch(self, epoch: int, epochs: int) -> None:  # noqa: ARG002
        """Set the weight of the KL term, which counts from the first epoch, so that resuming changes nothing."""
        self._epoch = epoch

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return L with the warm-up's weight, and the KL, for a batch of transformed rows."""
        z = batch.z
        error, kl, _ = self._terms(z, generator)
        rise = min(1.0, (self._epoch + 1) / self.warmup) if self.warmup else 1.0
        return {"loss": error + rise * 2 * self.beta / self.features * kl, "training_kl": kl.detach()}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return L with the full β on held-out rows, its two terms, and the fraction of active latent units.

        A unit is active if Var μₖ > 0.01 over the rows. If none is, once the warm-up is over, a warning says so.
        """
        z = batch.z
        with torch.no_grad():
            error, kl, mean = self._terms(z, generator)
            active = (mean.var(dim=0) > _ACTIVE).double().mean().item()
        if active == 0 and self._epoch >= max(self.warmup, _SETTLED) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.method}: the posterior has collapsed: no latent unit depends on the input any more "
                f"(epoch {self._epoch}), so no score says much; lower beta, now {self.beta}, or lengthen warmup",
                stacklevel=2,
            )
        return {
            "negative_elbo": (error + 2 * self.beta / self.features * kl).item(),
            "reconstruction": error.item(),
            "kl": kl.item(),
            "active": active,
        }


class DirichletVAE(VAE):
    """Variational autoencoder whose latent space is a simplex with a Dirichlet prior, in the softmax basis.

    The decoder sees mixture weights r = softmax(s). A Dirichlet(α) prior of r is, in Laplace's approximation, a Gaussian
    of s with

        mₖ = ln αₖ − (1/R) Σᵢ ln αᵢ,   sₖ² = (1/αₖ)(1 − 2/R) + (1/R²) Σᵢ 1/αᵢ,

    taken as diagonal, so that softmax(m) = α/Σα, the mean of the Dirichlet distribution. Loss, β and the scores
    "reconstruction", "kl" and "elbo" are those of `VAE` with this prior and with D(softmax(s)).
    The score "weight" is ln r_c/(1 − r_c) at s = μ for a component c: it orders rows as r_c does, without reaching 0 or 1.

    Parameters
    ----------
    features, hidden, transform, activation, beta, warmup
        As for `VAE`.
    latent : int
        Number of components, R ≥ 2.
    score : "reconstruction", "kl", "elbo" or "weight"
    alpha : float or sequence of R float
        The prior; 1 is flat, below 1 rows lie near the corners. Unequal values order the components by size.
    component : int
        c of the score "weight"; the last by default. Nothing tells the model which component holds anomalies: a small
        α makes a component rare.
    decoder_hidden : sequence of int
        As for `VAE`; by default none, so that each component has one vector of inputs, and rows are mixtures of them.

    Raises
    ------
    ConfigError
        α is not positive or has not R values, there are fewer than two components, or there is no component c.

    References
    ----------
    B. M. Dillon, T. Plehn, C. Sauer, P. Sorrenson, "Better latent spaces for better autoencoders", arXiv:2104.08291;
    A. Srivastava, C. Sutton, "Autoencoding variational inference for topic models", arXiv:1703.01488.

    Examples
    --------
    >>> model = DirichletVAE(8, latent=2, alpha=(1.0, 0.25), transform=nn.Identity())
    >>> torch.softmax(model.prior_mean, 0)  # 1/1.25 and 0.25/1.25
    tensor([0.8000, 0.2000])
    """

    method: ClassVar[str] = "Dirichlet VAE"
    score_kinds: ClassVar[tuple[str, ...]] = ("reconstruction", "kl", "elbo", "weight")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (10, 10),
        latent: int = 3,
        transform: nn.Module,
        activation: Activation = "relu",
        beta: float = 0.01,
        score: Literal["reconstruction", "kl", "mu2", "elbo", "weight"] = "reconstruction",
        warmup: int = 10,
        alpha: float | Sequence[float] = 1.0,
        component: int = -1,
        decoder_hidden: Sequence[int] | None = (),
    ) -> None:
        super().__init__(
            features, hidden=hidden, latent=latent, transform=transform, activation=activation, beta=beta, score=score,
            warmup=warmup, decoder_hidden=decoder_hidden,
        )  # fmt: skip
        values = torch.as_tensor(
            [alpha] * latent if isinstance(alpha, (int, float)) else list(alpha), dtype=torch.float64
        )
        if latent < 2:
            raise ConfigError(f"{self.method}: latent is {latent}, but mixtures have two or more components")
        if len(values) != latent or not bool((values.isfinite() & (values > 0)).all()):
            raise ConfigError(f"{self.method}: alpha is {alpha}; it must hold {latent} positive numbers, or be one")
        if not -latent <= component < latent:
            raise ConfigError(f"{self.method}: there is no component {component} among {latent}")
        self.component = component % latent
        self.prior_mean.copy_(values.log() - values.log().mean())
        variance = (1 / values) * (1 - 2 / latent) + (1 / values).sum() / latent**2
        self.prior_log_variance.copy_(variance.log())

    def decode(self, s: Tensor) -> Tensor:
        """Return what the decoder makes of the mixture weights softmax(s), (n, R) → (n, d)."""
        return super().decode(torch.softmax(s, dim=1))

    def energy(self, z: Tensor) -> Tensor:
        """Score of transformed rows at s = μ, (n, d) → (n,)."""
        if self.score_kind != "weight":
            return super().energy(z)
        mean, _ = self.encode(z)
        others = torch.cat([mean[:, : self.component], mean[:, self.component + 1 :]], dim=1)
        return mean[:, self.component] - torch.logsumexp(others, dim=1)

    @property
    def contributes(self) -> Contributions | None:
        """As of `VAE`; the weight of a component is no sum."""
        return None if self.score_kind == "weight" else super().contributes

    def contributions(self, z: Tensor) -> Tensor:
        """As of `VAE`, with the divergence from this prior."""
        return super().contributions(z)
