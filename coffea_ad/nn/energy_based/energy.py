"""EnergyModel: an autoencoder whose reconstruction error is the energy of a density, and its Markov chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.energy_based.excess import excess, floors, groups, repeated_like
from coffea_ad.nn.energy_based.gradients import energy_and_gradient, gradient_shares
from coffea_ad.nn.energy_based.samplers import Chains, langevin
from coffea_ad.nn.model import Batch
from coffea_ad.nn.reconstruction.autoencoder import AE, Activation
from coffea_ad.nn.training.batches import GROUPS
from coffea_ad.nn.transforms.columns import Transform

__all__ = ["EnergyModel", "Sampling"]

Sampling = Literal["cd", "pcd", "omi"]
_FAR = 10.0  # standard deviations of the latent points at which chains in the latent space turn back
_SMALL_GROUP = 250  # rows of a group below which it is compared with several samples of the model
_WEIGHED = 8  # every so many batches the gradients of the terms of the loss are compared


class EnergyModel(AE):
    """p(u) ∝ exp(−E(u)/T) in a box, E(u) = |u − D(e(u))|²/d, sampled by Langevin chains.

    u = (z − m)/σ are the transformed inputs z in units of the training data: m is their mean, and σ² the mean variance of
    the columns, so that nothing depends on the unit of z. After `Standard` and the like, u = z.

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
    metric : "data" or "unit"
        Steps in proportion to the data's spread, or of equal length in all directions.
    bounds : pair of float, optional
        Walls of the box for every transformed input z; by default the range that the training rows cover.
    buffer_size, replay : int, float
        Number of persistent chains, and the fraction of a batch that goes on from them; the rest starts afresh from a normal
        distribution with the spread of each input.
    latent_steps, latent_noise, latent_temperature : int, float, float
        Of the chains in the latent space; on-manifold start only. Steps are in proportion to the spread of latent points.
    smear : float
        Gaussian noise that is added to the data of every batch, in the units of u: what is narrower than that is not
        learnt, and neither is it an anomaly. A model of smeared data cannot be close to data as they are; the excess is
        measured against both, and that against smeared data chooses the epoch.
    long_steps : int
        After how many further steps at frozen weights the long-run excess of every epoch is measured, and chooses the epoch;
        0: not at all, and the excess after the steps of a batch does.
    """

    plotted: ClassVar[tuple[str, ...]] = ("loss", "wasserstein", "floor")
    needs_rows: ClassVar[int] = 500

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (32, 32),
        latent: int = 4,
        transform: nn.Module,
        activation: Activation = "silu",
        sampling: Sampling = "pcd",
        steps: int | tuple[int, int] = 20,
        noise: float = 0.15,
        temperature: float = 0.063,
        metropolis: bool = False,
        metric: Literal["data", "unit"] = "data",
        bounds: tuple[float, float] | None = None,
        buffer_size: int = 10_000,
        replay: float = 0.99,
        latent_steps: int = 10,
        latent_noise: float = 0.22,
        latent_temperature: float = 0.063,
        smear: float = 0.0,
        long_steps: int = 500,
    ) -> None:
        super().__init__(features, hidden=hidden, latent=latent, transform=transform, activation=activation)
        if sampling not in get_args(Sampling):
            raise ConfigError(unknown_text("sampling", sampling, get_args(Sampling)))
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ConfigError(f"bounds are {bounds[0]:g} and {bounds[1]:g}; the lower one must come first")
        self.sampling, self.replay, self.temperature = sampling, replay, temperature
        self.steps_range = (steps, steps) if isinstance(steps, int) else (steps[0], steps[1])
        self._steps = self.steps_range[0]
        self.metropolis, self.metric_kind = metropolis, metric
        self.bounds = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        self.latent_steps, self.latent_noise, self.latent_temperature = latent_steps, latent_noise, latent_temperature
        self.smear, self.long_steps = smear, long_steps
        self.needs_epochs = self.steps_range[0] != self.steps_range[1]
        self.criterion = ("long_run_excess" if long_steps else "excess") + ("_smeared" if smear > 0 else "")
        self._batch = 0
        self._of_z = False  # whether the weights are those of a network on z, and not on u
        self.register_buffer("chains", torch.zeros(buffer_size, latent if sampling == "omi" else features))
        self.register_buffer("noise", torch.tensor(noise))
        self.register_buffer("metric", torch.eye(features))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("latent_centre", torch.zeros(latent))
        self.register_buffer("latent_spread", torch.ones(latent))
        self.register_buffer("low", torch.full((features,), -4.0))
        self.register_buffer("high", torch.full((features,), 4.0))
        self.register_buffer("floors", torch.zeros(2, GROUPS, GROUPS, dtype=torch.float64))
        self.chains: Tensor
        self.noise: Tensor
        self.metric: Tensor
        self.centre: Tensor
        self.unit: Tensor
        self.spread: Tensor
        self.latent_centre: Tensor
        self.latent_spread: Tensor
        self.low: Tensor
        self.high: Tensor
        self.floors: Tensor

    def scaled(self, z: Tensor) -> Tensor:
        """Return transformed rows in units of the training data, z → u."""
        return (z - self.centre) / self.unit

    def unscaled(self, u: Tensor) -> Tensor:
        """Return u in transformed units, u → z."""
        return u * self.unit + self.centre

    def reconstruct(self, z: Tensor) -> Tensor:
        """Return what the decoder makes of the bottleneck, (n, d) → (n, d)."""
        return self.unscaled(self.decoder(self.encoder(self.scaled(z))))

    def energy(self, z: Tensor) -> Tensor:
        """Energy of transformed rows, (n, d) → (n,)."""
        return self.energy_of(self.scaled(z))

    def contributions(self, z: Tensor) -> Tensor:
        """Each input's part of the energy of transformed rows, (n, d) → (n, d)."""
        u = self.scaled(z)
        apart: Tensor = u - self.decoder(self.encoder(u))
        return apart**2 / self.features

    def energy_of(self, u: Tensor) -> Tensor:
        """Energy of rows in units of the training data, (n, d) → (n,)."""
        apart: Tensor = u - self.decoder(self.encoder(u))
        return (apart**2).mean(dim=1)

    def energy_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """E and ∇E of rows in units of the training data, (n, d) → (n,), (n, d).

        Differentiable in the weights, as a chain that is differentiated needs it.
        """
        return energy_and_gradient([*self.encoder, *self.decoder], u)

    def _fresh(self, n: int, generator: torch.Generator) -> Tensor:
        points = torch.randn(n, self.chains.shape[1], generator=generator, device=self.chains.device)
        if self.sampling == "omi":
            return self.latent_centre + self.latent_spread * points
        return torch.minimum(torch.maximum(self.spread * points, self.low), self.high)

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Take the units of the data, set the box and the metric, and start chains."""
        z = batch.z
        mean, variance = z.double().mean(dim=0), z.double().var(dim=0)
        self.centre.copy_(mean)
        unit = variance.mean().sqrt()
        self.unit.copy_(torch.where(unit > 0, unit, 1.0))
        self._fold()
        u = self.scaled(z)
        self.spread.copy_(u.std(dim=0))
        low, high = z.amin(dim=0), z.amax(dim=0)
        if self.bounds is not None:
            low, high = (torch.full_like(low, wall) for wall in self.bounds)
        elif isinstance(self.transform, Transform):
            low, high = self.transform.low, self.transform.high
        self.low.copy_(self.scaled(low))
        self.high.copy_(self.scaled(high))
        self.floors.zero_()
        if self.metric_kind == "data":
            covariance = torch.cov(u.T.double()).reshape(self.features, self.features)
            least = covariance.diagonal().clamp_min(1e-8)  # a column may be constant
            self.metric.copy_(torch.linalg.cholesky(covariance + 1e-4 * torch.diag(least)))
        self._remember_latent(u)
        self.chains.copy_(self._fresh(len(self.chains), generator))

    def _fold(self) -> None:
        """Make the weights of a network on z those of the same network on u."""
        if not self._of_z:
            return
        self._of_z = False
        first = next(m for m in self.encoder if isinstance(m, nn.Linear))
        last = [m for m in self.decoder if isinstance(m, nn.Linear)][-1]
        with torch.no_grad():
            first.bias.add_(first.weight @ self.centre)
            last.bias.sub_(self.centre).div_(self.unit)
            for layer, factor in ((first, self.unit), (last, 1 / self.unit)):
                scaled = layer.weight.detach() * factor
                if hasattr(layer, "parametrizations"):
                    layer.weight = scaled
                else:
                    layer.weight.copy_(scaled)

    def _remember_latent(self, u: Tensor) -> None:
        if self.sampling == "omi":
            with torch.no_grad():
                latent = self.encoder(u)
                self.latent_centre.copy_(latent.mean(dim=0))
                self.latent_spread.copy_(latent.std(dim=0))

    @property
    def steps(self) -> int:
        """Langevin steps of a batch in the present epoch."""
        return self._steps

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Lengthen the chains on the way."""
        first, last = self.steps_range
        self._steps = round(first + (last - first) * epoch / max(epochs - 1, 1))
        self._batch = 0

    def run_chains(
        self, points: Tensor, generator: torch.Generator, *, steps: int | None = None, grad_steps: int | None = 0
    ) -> Chains:
        """Let points u go some steps on, (n, d)."""
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
                e = self.energy_of(self.decoder(free))
                (g,) = torch.autograd.grad(e.sum(), free)
            return e.detach(), g

        reach = _FAR * self.latent_spread
        return langevin(
            energy, points, steps=self.latent_steps, noise=self.latent_noise, temperature=self.latent_temperature,
            low=self.latent_centre - reach, high=self.latent_centre + reach, generator=generator,
            metric=torch.diag(self.latent_spread),
        ).points  # fmt: skip

    def negatives(self, u: Tensor, generator: torch.Generator, grad_steps: int | None = 0) -> Chains:
        """Return as many points of the chains as there are data, advanced by the steps of a batch."""
        advanced = self._advanced(u, generator, grad_steps)
        if self.metropolis and self.training:
            self.noise.mul_(torch.exp(0.02 * (advanced.acceptance.detach() - 0.574)))
        return advanced

    def _advanced(self, u: Tensor, generator: torch.Generator, grad_steps: int | None) -> Chains:
        n, device = len(u), u.device
        if self.sampling == "cd":
            return self.run_chains(u, generator, grad_steps=grad_steps)
        if n > len(self.chains):
            raise ConfigError(f"buffer_size is {len(self.chains)}, but a batch has {n} rows and needs as many chains")
        self._remember_latent(u)
        slot = torch.randperm(len(self.chains), generator=generator, device=device)[:n]
        replayed = torch.rand(n, 1, generator=generator, device=device) < self.replay
        begin = torch.where(replayed, self.chains[slot], self._fresh(n, generator))
        if self.sampling == "omi":
            latent = self._latent_chain(begin, generator)
            self.chains[slot] = latent
            with torch.no_grad():
                begin = self._decoded(latent)
        advanced = self.run_chains(begin, generator, grad_steps=grad_steps)
        if self.sampling == "pcd":
            self.chains[slot] = advanced.points.detach()
        return advanced

    def smeared(self, u: Tensor, generator: torch.Generator) -> Tensor:
        """Add the noise of `smear` to data u."""
        if self.smear == 0:
            return u
        return u + self.smear * torch.randn(u.shape, generator=generator, device=u.device, dtype=u.dtype)

    def smeared_groups(self, data: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Smear groups of data; rows that come several times stay equal."""
        noise = [torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) for x in data]
        return [x + self.smear * repeated_like(n, x) for x, n in zip(data, noise, strict=True)]

    def terms(self, u: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the terms of the loss by name, with their weights, and metrics to report."""
        raise NotImplementedError

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the sum of the terms, metrics, and from time to time each term's share of the gradient."""
        z = batch.z
        terms, metrics = self.terms(self.smeared(self.scaled(z), generator), generator)
        return {"loss": torch.stack(list(terms.values())).sum(), **metrics, **self._shares(terms)}

    def _shares(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return |∇ term| of the weights, as a fraction of the sum over all terms."""
        batch, self._batch = self._batch, self._batch + 1
        if batch % _WEIGHED:
            return {}
        weights = [p for p in self.parameters() if p.requires_grad]
        return {f"share_{name}": share for name, share in gradient_shares(terms, weights).items()}

    def diverged(self, metrics: dict[str, float]) -> bool:
        """Say whether the chains have left the data: they are further away than two samples that share nothing."""
        return metrics["excess"] > 2.0 * self.features

    def sample(self, n: int, generator: torch.Generator, steps: int = 0, *, z: Tensor | None = None) -> Tensor:
        """Return n points of the model in transformed units: the chains, or z, advanced by further steps."""
        with torch.no_grad():
            if z is not None:
                begin = self.scaled(z)[:n]
            elif self.sampling == "cd":
                raise ConfigError("chains that start from data need data to be sampled from")
            else:
                begin = self.chain_points(n, generator)
            return self.unscaled(self.run_chains(begin, generator, steps=steps).points if steps else begin)

    @property
    def most_rows(self) -> int:
        """Rows of a group for which there are enough chains, so that none is used twice."""
        return max(len(self.chains) // GROUPS, 1)

    def chain_points(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n points u of the persistent chains; each comes once, if there are as many."""
        size, device = len(self.chains), self.chains.device
        slot = torch.randperm(size, generator=generator, device=device)[:n]
        if n > size:
            slot = torch.randint(size, (n,), generator=generator, device=device)
        points = self.chains[slot]
        return self._decoded(self._latent_chain(points, generator)) if self.sampling == "omi" else points

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return the `excess` of the distance between held-out data and the model, with its error.

        z are groups of rows that the training loop draws from disjoint ones. Without persistent chains, those that are
        compared with a group begin at the next one. Small groups are compared with several samples of the model.
        """
        z = batch.z
        with torch.no_grad():
            most = self.most_rows
            data = {"": [x[:most] for x in groups(self.scaled(z))]}
            if self.smear > 0:
                data["_smeared"] = self.smeared_groups(data[""], generator)
            if not bool(self.floors.any()):
                for table, rows in zip(self.floors, data.values(), strict=False):
                    table.copy_(floors(rows))
            size = len(data[""][0])
            draws = max(min(_SMALL_GROUP // max(size, 1), most // max(size, 1), 16), 1)
            if self.sampling == "cd":
                begin = torch.cat([x.repeat(draws, 1) for x in (*data[""][1:], data[""][0])])
            else:
                begin = self.chain_points(GROUPS * draws * size, generator)
            model = self.run_chains(begin, generator)
            metrics = self._excess(data, model.points, "")
            metrics |= {"reconstruction": self.energy(z).mean().item(), "acceptance": model.acceptance.item()}
            if self.long_steps:
                long = self.run_chains(model.points, generator, steps=self.long_steps).points
                metrics |= self._excess(data, long, "long_run_")
        return metrics

    def _excess(self, data: dict[str, list[Tensor]], points: Tensor, prefix: str) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for (kind, rows), table in zip(data.items(), self.floors, strict=False):
            measured = excess(rows, groups(points), table)
            metrics[f"{prefix}excess{kind}"] = measured.value
            metrics[f"{prefix}excess{kind}_error"] = measured.error
            if not kind and not prefix:
                metrics |= {
                    "wasserstein": measured.distance, "floor": measured.floor, "floor_model": measured.floor_model,
                }  # fmt: skip
        return metrics
