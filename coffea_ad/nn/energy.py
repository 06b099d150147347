"""EnergyModel: an autoencoder whose reconstruction error is the energy of a density, and its Markov chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.autoencoder import AE, Activation
from coffea_ad.nn.distances import exact
from coffea_ad.nn.samplers import Chains, langevin
from coffea_ad.nn.transforms import Transform

__all__ = ["EnergyModel", "Sampling"]

Sampling = Literal["cd", "pcd", "omi"]


def _with_slope(activation: nn.Module, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return an activation and its derivative, (n, k) → (n, k), (n, k)."""
    if isinstance(activation, nn.SiLU):
        gate = torch.sigmoid(h)
        value = h * gate
        return value, gate + value * (1 - gate)
    up = (h > 0).to(h.dtype)
    if isinstance(activation, nn.ReLU):
        return torch.relu(h), up
    if isinstance(activation, nn.LeakyReLU | nn.PReLU):
        below = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else activation.weight
        slope = up + below * (1 - up)
        return h * slope, slope
    raise ConfigError(f"an energy model cannot be sampled with the activation {type(activation).__name__}")


class EnergyModel(AE):
    """p(z) ∝ exp(−E(z)/T) in a box, E(z) = |z − D(e(z))|²/d, sampled by Langevin chains.

    Parameters
    ----------
    features, hidden, latent, transform, activation
        As for `AE`.
    sampling : "pcd", "cd" or "omi"
        Where chains start: from the persistent chains of a buffer, from the data, or on the manifold: in the latent space, on
        the energy of what is decoded, from where they go on among the inputs (the buffer then holds latent points).
    steps : int, or pair of int
        Langevin steps per batch; a pair is the number at the first and at the last epoch.
    noise, temperature : float
        s and T of `langevin`.
    metropolis : bool
        MALA instead of ULA; s is then adapted to an acceptance of 57 %.
    metric : "unit" or "data"
        Steps of equal length in all directions, or in proportion to the data's spread.
    buffer_size, replay : int, float
        Number of persistent chains, and the fraction of a batch that goes on from them; the rest starts afresh.
    latent_steps, latent_noise, latent_temperature : int, float, float
        Of the chains in the latent space; on-manifold start only.
    long_steps : int
        After how many further steps at frozen weights the long-run excess of every epoch is measured, and chooses the epoch;
        0: not at all, and the excess after the steps of a batch does.
    """

    figures: ClassVar[tuple[str, ...]] = ("loss", "wasserstein", "floor")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (10, 10),
        latent: int = 6,
        transform: nn.Module,
        activation: Activation = "relu",
        sampling: Sampling = "pcd",
        steps: int | tuple[int, int] = 10,
        noise: float = 0.22,
        temperature: float = 0.063,
        metropolis: bool = False,
        metric: Literal["unit", "data"] = "unit",
        buffer_size: int = 10_000,
        replay: float = 0.95,
        latent_steps: int = 10,
        latent_noise: float = 0.22,
        latent_temperature: float = 0.063,
        long_steps: int = 0,
    ) -> None:
        super().__init__(features, hidden=hidden, latent=latent, transform=transform, activation=activation)
        if sampling not in get_args(Sampling):
            raise ConfigError(unknown_text("sampling", sampling, get_args(Sampling)))
        self.sampling, self.replay, self.temperature = sampling, replay, temperature
        self.steps_range = (steps, steps) if isinstance(steps, int) else (steps[0], steps[1])
        self._steps = self.steps_range[0]
        self.metropolis, self.metric_kind = metropolis, metric
        self.latent_steps, self.latent_noise, self.latent_temperature = latent_steps, latent_noise, latent_temperature
        self.long_steps = long_steps
        self.needs_epochs = self.steps_range[0] != self.steps_range[1]
        self.criterion = "long_run_excess" if long_steps else "excess"
        self.register_buffer("chains", torch.zeros(buffer_size, latent if sampling == "omi" else features))
        self.register_buffer("noise", torch.tensor(noise))
        self.register_buffer("metric", torch.eye(features))
        self.register_buffer("low", torch.full((features,), -4.0))
        self.register_buffer("high", torch.full((features,), 4.0))
        self.register_buffer("floor", torch.zeros(()))
        self.chains: Tensor
        self.noise: Tensor
        self.metric: Tensor
        self.low: Tensor
        self.high: Tensor
        self.floor: Tensor

    def energy_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """E and ∇E of rows, (n, d) → (n,), (n, d).

        ∇E = (2/d) (r − Jᵀr) with r = z − D(e(z)); written out, since a gradient by autograd inside a chain that is itself
        differentiated costs several times as much.
        """
        h = z
        tape: list[tuple[Tensor, bool]] = []  # weights, and derivatives of activations
        for layer in (*self.encoder, *self.decoder):
            if isinstance(layer, nn.Linear):
                tape.append((layer.weight, True))
                h = layer(h)
            else:
                h, slope = _with_slope(layer, h)
                tape.append((slope, False))
        r = z - h
        v = r
        for factor, linear in reversed(tape):
            v = v @ factor if linear else v * factor
        return (r**2).mean(dim=1), (2 / z.shape[1]) * (r - v)

    def _fresh(self, n: int, generator: torch.Generator) -> Tensor:
        points = torch.randn(n, self.chains.shape[1], generator=generator, device=self.chains.device)
        return points if self.sampling == "omi" else torch.minimum(torch.maximum(points, self.low), self.high)

    def start(self, z: Tensor, generator: torch.Generator) -> None:
        """Set the box to the range of the transform, or else of the data, the metric to the data's, and start chains."""
        if isinstance(self.transform, Transform):
            low, high = self.transform.low, self.transform.high
        else:
            low, high = z.amin(dim=0), z.amax(dim=0)
        self.low.copy_(low)
        self.high.copy_(high)
        self.floor.zero_()
        if self.metric_kind == "data":
            covariance = torch.cov(z.T.double()) + 1e-4 * torch.eye(z.shape[1], dtype=torch.float64, device=z.device)
            self.metric.copy_(torch.linalg.cholesky(covariance))
        self.chains.copy_(self._fresh(len(self.chains), generator))

    @property
    def steps(self) -> int:
        """Langevin steps of a batch in the present epoch."""
        return self._steps

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Lengthen the chains on the way."""
        first, last = self.steps_range
        self._steps = round(first + (last - first) * epoch / max(epochs - 1, 1))

    def run_chains(
        self, points: Tensor, generator: torch.Generator, *, steps: int | None = None, grad_steps: int | None = 0
    ) -> Chains:
        """Let points go some steps on, (n, d)."""
        return langevin(
            self.energy_and_gradient, points, steps=self._steps if steps is None else steps, noise=self.noise,
            temperature=self.temperature, low=self.low, high=self.high, generator=generator,
            metric=self.metric if self.metric_kind == "data" else None, metropolis=self.metropolis, grad_steps=grad_steps,
        )  # fmt: skip

    def _decoded(self, latent: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(self.decoder(latent), self.low), self.high)

    def _latent_chain(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Chains in the latent space on the energy of what is decoded."""

        def energy(latent: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                free = latent.detach().requires_grad_()
                e = self.energy(self.decoder(free))
                (g,) = torch.autograd.grad(e.sum(), free)
            return e.detach(), g

        wide = torch.full((points.shape[1],), 50.0, device=points.device)
        return langevin(
            energy, points, steps=self.latent_steps, noise=self.latent_noise, temperature=self.latent_temperature,
            low=-wide, high=wide, generator=generator,
        ).points  # fmt: skip

    def negatives(self, z: Tensor, generator: torch.Generator, grad_steps: int | None = 0) -> Chains:
        """Return as many points of the chains as there are data, advanced by the steps of a batch."""
        made = self._advanced(z, generator, grad_steps)
        if self.metropolis and self.training:
            self.noise.mul_(torch.exp(0.02 * (made.acceptance.detach() - 0.574)))
        return made

    def _advanced(self, z: Tensor, generator: torch.Generator, grad_steps: int | None) -> Chains:
        n, device = len(z), z.device
        if self.sampling == "cd":
            return self.run_chains(z, generator, grad_steps=grad_steps)
        if n > len(self.chains):
            raise ConfigError(f"buffer_size is {len(self.chains)}, but a batch has {n} rows and needs as many chains")
        slot = torch.randperm(len(self.chains), generator=generator, device=device)[:n]
        replayed = torch.rand(n, 1, generator=generator, device=device) < self.replay
        begin = torch.where(replayed, self.chains[slot], self._fresh(n, generator))
        if self.sampling == "omi":
            latent = self._latent_chain(begin, generator)
            self.chains[slot] = latent
            with torch.no_grad():
                begin = self._decoded(latent)
        made = self.run_chains(begin, generator, grad_steps=grad_steps)
        if self.sampling == "pcd":
            self.chains[slot] = made.points.detach()
        return made

    def diverged(self, figures: dict[str, float]) -> bool:
        """Say whether the chains have left the data: they are further away than two samples that share nothing."""
        return figures["excess"] > 2.0 * self.features

    def sample(self, n: int, generator: torch.Generator, steps: int = 0, *, z: Tensor | None = None) -> Tensor:
        """Return n points of the model in transformed units: the chains, or z, advanced by further steps."""
        with torch.no_grad():
            if z is None and self.sampling == "cd":
                raise ConfigError("chains that start from data need data to be sampled from")
            if z is None:
                slot = torch.randint(len(self.chains), (n,), generator=generator, device=self.chains.device)
                z = self.chains[slot]
                if self.sampling == "omi":
                    z = self._decoded(self._latent_chain(z, generator))
            return self.run_chains(z[:n], generator, steps=steps).points if steps else z[:n].clone()

    def validate(self, z: Tensor, generator: torch.Generator) -> dict[str, float]:
        """Return the distance between held-out data and the model, its floor, and the excess.

        The floor is the distance between the two halves of z, which the training loop draws from disjoint rows; the
        model is compared with both at the same size.
        """
        half = len(z) // 2
        n = min(half, len(self.chains))
        one, two = z[:n], z[half : half + n]
        with torch.no_grad():
            if self.floor.item() == 0.0:
                self.floor.copy_(exact(one, two))
            begin = self.sample(n, generator, z=one if self.sampling == "cd" else None)
            others = (two,) if self.sampling == "cd" else (one, two)  # chains are not compared with where they began
            model = self.run_chains(begin, generator)
            distance = sum(exact(other, model.points).item() for other in others) / len(others)
            floor = self.floor.item()
            figures = {
                "wasserstein": distance, "floor": floor, "excess": distance - floor,
                "reconstruction": self.energy(z).mean().item(), "acceptance": model.acceptance.item(),
            }  # fmt: skip
            if self.long_steps:
                long = self.run_chains(model.points, generator, steps=self.long_steps).points
                figures["long_run_excess"] = sum(exact(other, long).item() for other in others) / len(others) - floor
        return figures
