"""WNAE: Wasserstein normalised autoencoder; the score is the energy of a density fitted to the data.

    coffea-ad run wnae --config wnae/svj.yaml data=skims/ -o wnae.onnx train.epochs=50

Persistent Langevin chains; the epoch with the smallest excess of the Wasserstein distance over its finite-sample floor is
kept, which no signal has a say in. Afterwards the chains run on at frozen weights: `long_run.png` says whether the energy
models the data, or only where short chains begin.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.config import Frozen
from coffea_ad.nn.training import plots
from coffea_ad.skims import WeightMode


class Config(Frozen):
    """Data, network, chains, loss, training."""

    data: str = Field(description="folder of a skim")
    datasets: tuple[str, ...] = Field((), description="the background; all datasets of the skim by default")
    feature: str = "jet_substructure"
    options: dict[str, Any] = {}
    weights: WeightMode = "xsec"
    filters: tuple[tuple[str, str, Any], ...] = Field((), description='rows to keep, such as ["met", ">", 100]')
    preprocessing: nn.Preprocessing = "standard"
    hidden: tuple[int, ...] = (32, 32)
    latent: int = 4
    activation: nn.Activation = "silu"
    sampling: nn.Sampling = Field("pcd", description="where chains start: pcd (a buffer), cd (data), omi (manifold)")
    steps: int | tuple[int, int] = Field(
        20, description="Langevin steps per batch, or from the first epoch to the last"
    )
    noise: float = Field(0.15, gt=0)
    temperature: float = Field(0.063, gt=0)
    metropolis: bool = Field(False, description="MALA instead of ULA")
    metric: Literal["data", "unit"] = Field("data", description="steps as long as the data are wide, or all alike")
    bounds: tuple[float, float] | None = Field(
        None, description="walls for every transformed input; by default the range of the training rows"
    )
    buffer_size: int = Field(10_000, ge=2)
    replay: float = Field(0.99, ge=0, le=1, description="the rest of a batch starts afresh from a normal distribution")
    distance: Literal["w2_squared", "w1", "sliced"] = Field(
        "w2_squared", description="the loss: W₂², W₁, or a sliced W₂²"
    )
    grad_steps: int | None = Field(1, description="the gradient flows through the last so many steps; null: all")
    contrast: float = Field(0.0, ge=0, description="weight of the gradient of the likelihood, which is that of an NAE")
    energy_weight: float = Field(0.0, ge=0, description="weight of the squared energies of data and chains")
    smear: float = Field(0.2, ge=0, description="noise on the training data, in units of their mean spread")
    long_steps: int = Field(
        500, ge=0, description="further steps of the long-run excess of every epoch; 0: at the end only"
    )
    long_run: tuple[int, ...] = Field(
        (0, 500, 2000), description="further steps after which the final model is measured"
    )
    efficiencies: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    resume: bool = False
    train: nn.TrainConfig = nn.TrainConfig(learning_rate=1e-3, schedule="cosine", average=0.99, clip_gradient=1.0)


def build(config: Config, columns: list[str]) -> nn.WNAE:
    """Return an untrained model."""
    torch.manual_seed(config.train.seed)
    return nn.WNAE(
        len(columns), transform=nn.preprocessing(config.preprocessing, columns),
        hidden=config.hidden, latent=config.latent, activation=config.activation,
        sampling=config.sampling, steps=config.steps, noise=config.noise, temperature=config.temperature,
        metropolis=config.metropolis, metric=config.metric, bounds=config.bounds,
        buffer_size=config.buffer_size, replay=config.replay,
        distance=config.distance, grad_steps=config.grad_steps, contrast=config.contrast,
        energy_weight=config.energy_weight, smear=config.smear, long_steps=config.long_steps,
    )  # fmt: skip


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train, export to `output`, and leave metrics, checkpoint and figures in the folder of the same name."""
    data = nn.load_skim(
        config.data, config.feature, config.options,
        datasets=config.datasets, weights=config.weights, filters=config.filters,
    )  # fmt: skip
    model = build(config, [column.name for column in data.feature.columns])
    folder = output.with_suffix("")
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    best = min(history, key=lambda row: row.get("smoothed", row[model.criterion]))
    measured = nn.long_run(model, data, steps=config.long_run, seed=config.train.seed)
    (folder / "long_run.json").write_text(json.dumps(measured, indent=1))

    card = nn.make_card(
        model,
        data,
        name=output.stem,
        config=config.model_dump(mode="json"),
        metrics={**best, "long_run": measured},
        efficiencies=config.efficiencies,
    )
    nn.export(model, output, card, data.splits("test", "validation").x)
    draw(model, data, history, measured, folder)
    return {"best": best, "regions": [r.name for r in card.regions], "n_effective": data.provenance["n_effective"]}


def draw(
    model: nn.WNAE, data: nn.Skim, history: list[dict[str, float]], measured: dict[str, Any], folder: Path
) -> None:
    """Draw how the training went, and data against chains."""
    best = min(history, key=lambda row: row.get("smoothed", row[model.criterion]))
    plots.training(history, model.figures, folder / "training.png", best=int(best["epoch"]))
    plots.chain_health(history, folder / "chain_health.png")
    plots.long_run(measured, folder / "long_run.png")
    held_out = data.splits("validation")
    held_out = held_out.select(np.random.default_rng(1).permutation(len(held_out.x))[:10_000])
    with torch.no_grad():
        z = model.transform(torch.from_numpy(held_out.x))
        generator = torch.Generator().manual_seed(1)
        chains = model.sample(len(z), generator, z=z if model.sampling == "cd" else None, steps=500).numpy()
    columns = [column.name for column in data.feature.columns]
    plots.data_and_chains(z.numpy(), held_out.weight, chains, columns, folder / "chains.png")
    plots.data_and_chains_2d(z.numpy(), held_out.weight, chains, columns, folder / "chains_2d.png")
