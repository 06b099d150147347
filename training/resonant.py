"""Resonant: weakly supervised searches for a bump in a mass, window by window, every event scored by what never saw it.

    coffea-ad run resonant data=skims/ method=cathode windows=lhco -o search.onnx
    coffea-ad run resonant --config resonant/dijet.yaml data=skims/ -o search.onnx --workers 8
    coffea-ad run resonant data=skims/ method=cwola -o search.onnx --cluster slurm.yaml --workers 50

Methods: cwola, anode, cathode, lacathode, r_anode, salad, transport; iad and supervised as references; cathode+salad merges the
templates of two. Of one window the model is written to -o; of several each to a file of its own beside it.
Copy the file with `coffea-ad cp resonant mine.py`, edit it, and run it by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from coffea_ad import nn, resonant
from coffea_ad.errors import ConfigError
from coffea_ad.skims.skim import WeightMode


class Config(nn.NetworkConfig):
    """Data, method, windows, folds, settings of the method."""

    unused: ClassVar[tuple[str, ...]] = ("train", "preprocessing")

    datasets: tuple[str, ...] = Field((), description="the data that are searched")
    feature: str = "dijet"
    weights: WeightMode = "none"
    method: str = Field("cathode", description="a method, or several with + between them, whose templates are merged")
    windows: str | tuple[resonant.Window, ...] = Field(
        "cms", description="a preset (lhco, cms), or a list of {low, high, outer_low, outer_high}"
    )
    mass: str = Field("mjj", description="column of the resonant variable")
    simulation: tuple[str, ...] = Field((), description="datasets: simulated background, for salad")
    background: tuple[str, ...] = Field((), description="datasets: true background, for iad and supervised")
    signal: tuple[str, ...] = Field((), description="datasets: true signal, for supervised and to be injected")
    inject: int | tuple[int, ...] = Field(
        0,
        description="so many signal events are mixed into the data: a study; several: efficiencies at these strengths too",
    )
    count: int = Field(
        0,
        ge=0,
        description="unblinds: count the data in all regions, and calibrate p-values by so many searches without signal",
    )
    null: resonant.Null = Field("permutations", description="what these are: permutations, half or pseudo_data")
    settings: resonant.Settings = resonant.Settings()
    template_rows: int = Field(40_000, ge=1000, description="of each fold: half calibrate the score, half are counted")
    folds: int = Field(5, ge=3, description="one is scored, one validates, the others train")
    salt: str = Field("resonant folds", description="of the hash that divides events into folds")
    seed: int = 1

    @model_validator(mode="after")
    def _of_this_training(self) -> Config:
        for name in self.unused:
            if name in self.model_fields_set:
                raise ValueError(
                    f"{name} has no effect in a search; it trains as settings.flow and settings.classifier say"
                )
        return self


def roles(config: Config) -> dict[resonant.Role, tuple[str, ...]]:
    """Return which datasets are for what."""
    if not config.datasets:
        raise ConfigError("datasets: name those of the skim that are searched")
    return {
        "data": config.datasets, "simulation": config.simulation, "background": config.background, "signal": config.signal,
    }  # fmt: skip


def train(config: Config, output: Path, cluster: Any = None, *, force: bool = False) -> dict[str, Any]:
    """Search all windows, on a cluster or in this process, and write a model file for each; the same search goes on."""
    where = roles(config)
    resonant.check_method(
        config.method, [role for role, names in where.items() if names], config.settings, network=config.network
    )
    every = tuple(dict.fromkeys(name for names in where.values() for name in names))
    inputs = config.model_copy(update={"datasets": every}).rows()
    network, rows = config.vectors(inputs, config.mass)
    skims = resonant.in_roles(rows, where, config.mass)
    strengths = (config.inject,) if isinstance(config.inject, int) else config.inject
    searched = skims
    if len(strengths) == 1 and strengths[0]:
        searched = {**skims, "data": resonant.injected(skims, strengths[0], config.seed)}
    windows = [w.model_copy(update={"mass": config.mass}) for w in resonant.windows_of(config.windows)]
    tasks = resonant.tasks_of(
        config.method, config.settings, windows, k=config.folds, salt=config.salt, seed=config.seed,
        template_rows=config.template_rows,
    )  # fmt: skip
    folder = output.with_suffix("")
    resonant.claim(folder, resonant.outputs_of(output, windows), config.model_dump(mode="json"), searched, force=force)
    trained, left_out = resonant.search(tasks, searched, folder, cluster=cluster)
    summary = resonant.publish(
        trained, left_out, windows, searched["data"], config, output, efficiencies=config.efficiencies, network=network,
        inputs=inputs,
    )  # fmt: skip
    if len(strengths) > 1:
        summary["told"] += resonant.study(
            tasks, skims, strengths, folder, efficiencies=config.efficiencies, seed=config.seed, cluster=cluster
        )
    if config.count:
        summary["told"] += resonant.worth(
            tasks, trained.members, searched, folder, null=config.null, number=config.count,
            efficiencies=config.efficiencies, cluster=cluster,
        )  # fmt: skip
    return summary
