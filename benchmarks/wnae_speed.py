"""Training a WNAE against the way the public reference trains one: single-thread CPU seconds per epoch of 10 000 rows.

    python benchmarks/wnae_speed.py [--repeats 7] [--profile]

The yardstick is written anew from what the reference does: a Python list of single points as replay buffer, filled and
drawn from point by point; a gradient graph through every Langevin step and at the last point; copies of samples, drift
and diffusion of every step to the CPU; energies of data and chains with their graphs; `ot.emd2` with uniform weights on
`ot.dist`; AdamW at 5e-4. Both sides have the settings of the semivisible-jet analysis: eight inputs, 8-10-10-6-10-10-8
with ReLU, persistent chains, 10 steps with noise 0.22 at temperature 0.063 in (-3, 3), 10 000 chains, 95 % of a batch
from them. Data are correlated Gaussians through the quantile transform. Our box reflects.

Measured in alternation in one process; printed are the median of the ratios yardstick / ours and their range. Targets:

    gradient through the whole chain, exact distance, batches of 256    1.2
    gradient through the last step, exact distance, batches of 256      1.7
    gradient through the whole chain, sliced distance, batches of 1024  3
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import time

import numpy as np
import ot
import torch
from rich.console import Console
from rich.table import Table

from coffea_ad import nn
from coffea_ad.nn.model import Batch

ROWS, FEATURES, STEPS, NOISE, TEMPERATURE, BOX, CHAINS, REPLAY = 10_000, 8, 10, 0.22, 0.063, 3.0, 10_000, 0.95
MODES = {
    "whole chain, exact": (256, {"distance": "w2_squared", "grad_steps": None}, 1.2),
    "last step, exact": (256, {"distance": "w2_squared", "grad_steps": 1}, 1.7),
    "whole chain, sliced": (1024, {"distance": "sliced", "grad_steps": None}, 3.0),
    "whole chain, exact, large batch": (1024, {"distance": "w2_squared", "grad_steps": None}, None),
    "last step, sliced": (256, {"distance": "sliced", "grad_steps": 1}, None),
}


class Buffer:
    """Chains as a list of points; the oldest leave when it is full."""

    def __init__(self):
        self.points = []

    def add(self, points):
        for point in points.detach().to("cpu"):
            self.points.append(point)
            if len(self.points) > CHAINS:
                self.points.pop(0)

    def draw(self, n):
        return torch.stack(random.choices(self.points, k=n)) if n else torch.empty(0, FEATURES)


class Yardstick(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for a, b in ((8, 10), (10, 10), (10, 6), (6, 10), (10, 10), (10, 8)):
            layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
        self.encoder = torch.nn.Sequential(*layers[:5])
        self.decoder = torch.nn.Sequential(*layers[6:-1])
        self.buffer = Buffer()

    def energy(self, x):
        z = self.encoder(x)
        made = self.decoder(z)
        return ((x - made) ** 2).view(len(x), -1).sum(dim=1) / FEATURES, z, made

    def chain(self, n):
        replayed = int((np.random.rand(n) < REPLAY).sum()) if self.buffer.points else 0  # noqa: NPY002
        x = torch.cat([self.buffer.draw(replayed), torch.randn(n - replayed, FEATURES)])
        x.requires_grad_()
        kept = {"samples": [x.detach().cpu()], "drift": [], "diffusion": [], "steps": []}
        (slope,) = torch.autograd.grad(self.energy(x)[0].sum(), x, create_graph=True)
        for _ in range(STEPS):
            diffusion = NOISE * torch.randn_like(x)
            drift = -0.5 * NOISE**2 * slope
            step = drift / TEMPERATURE + diffusion
            x = torch.clamp(x + step, -BOX, BOX)
            (slope,) = torch.autograd.grad(self.energy(x)[0].sum(), x, create_graph=True)
            for name, value in (("samples", x), ("drift", drift), ("diffusion", diffusion), ("steps", step)):
                kept[name].append(value.detach().cpu())
        self.buffer.add(x)
        return x, kept

    def training_loss(self, z):
        energy, latent, made = self.energy(z)
        x, kept = self.chain(len(z))
        energy_model, latent_model, made_model = self.energy(x)
        uniform = torch.ones(len(z)) / len(z)
        loss = ot.emd2(uniform, uniform, ot.dist(z, x), numItermax=1e6)
        seen = [v.detach().cpu() for v in (energy, latent, made, x, latent_model, made_model)]
        return loss, (loss.item(), energy.mean().item(), energy_model.mean().item(), seen, kept)


def gaussians(rng):
    x = rng.normal(size=(ROWS, FEATURES)) @ rng.normal(size=(FEATURES, FEATURES))
    return x.astype(np.float32)


def epoch(batch, z, optimizer, loss):
    """CPU seconds of one pass over the rows."""
    start = time.process_time()
    for rows in torch.randperm(len(z)).split(batch):
        value = loss(z[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return time.process_time() - start


class Pair:
    """Both sides at one batch size, with what they train on; the buffers are full before anything is timed."""

    def __init__(self, batch, options, x):
        transform = nn.QuantileNormal(FEATURES)
        transform.fit(x, np.ones(len(x)))
        with torch.no_grad():
            z = transform(torch.from_numpy(x))
        generator = torch.Generator().manual_seed(1)
        theirs, ours = Yardstick(), nn.WNAE(FEATURES, hidden=(10, 10), latent=6, transform=transform,
            activation="relu", steps=STEPS, noise=NOISE, temperature=TEMPERATURE, metric="unit", bounds=(-BOX, BOX),
            buffer_size=CHAINS, replay=REPLAY, smear=0.0, long_steps=0, **options)  # fmt: skip
        ours.start(Batch.of(z), generator)
        self.sides = {
            "yardstick": (batch, z, torch.optim.AdamW(theirs.parameters(), 5e-4), lambda b: theirs.training_loss(b)[0]),
            "ours": (batch, z, torch.optim.AdamW(ours.parameters(), 5e-4),
                     lambda b: ours.training_loss(Batch.of(b), generator)["loss"]),
        }  # fmt: skip
        for side in self.sides.values():
            epoch(*side)

    def seconds(self):
        return [epoch(*side) for side in self.sides.values()]


def profile(pair):
    with cProfile.Profile() as profiler:
        epoch(*pair.sides["ours"])
    pstats.Stats(profiler).sort_stats("tottime").print_stats(15)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="also print where our time goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    x = gaussians(np.random.default_rng(1))
    pairs = {name: Pair(batch, settings, x) for name, (batch, settings, _) in MODES.items()}
    seconds = {name: [] for name in MODES}
    for _ in range(options.repeats):
        for name, pair in pairs.items():
            seconds[name].append(pair.seconds())
    table = Table("mode", "batch", "yardstick [s]", "ours [s]", "ratio", "range", "target", title="CPU s per epoch")
    for name, (batch, _, target) in MODES.items():
        theirs, ours = np.array(seconds[name]).T
        ratio = theirs / ours
        table.add_row(name, f"{batch}", f"{np.median(theirs):.3f}", f"{np.median(ours):.3f}", f"{np.median(ratio):.2f}",
            f"{ratio.min():.2f} to {ratio.max():.2f}", "" if target is None else f"{target}")  # fmt: skip
    Console(width=120).print(table)
    if options.profile:
        for name, pair in pairs.items():
            print(name)
            profile(pair)


if __name__ == "__main__":
    main()
