"""How a run is done: the keywords of `run`, which `resubmit`, the plan, the report and the command line share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from coffea_ad import files
from coffea_ad.config import Frozen
from coffea_ad.errors import ConfigError
from coffea_ad.luminosity.recorded import as_given
from coffea_ad.running.clusters.config import ClusterConfig, load_cluster
from coffea_ad.running.duplicates import Mode

__all__ = ["NO_CHECKPOINTS", "Executor", "RunOptions"]

Executor = Literal["iterative", "futures", "dask"]
NO_CHECKPOINTS = "none"
"""The word for no checkpoints at all."""
_WORKERS = 2
_STORED = ("chunksize", "limit_files", "limit_chunks", "checkpoints", "duplicates", "lumi")
"""What stands in the settings of a report under its own name, as it is."""


def _as_sequence(model: Any) -> Any:
    return (model,) if isinstance(model, (str, Path)) else model or ()


Count = Annotated[int, Field(ge=1)]


class RunOptions(Frozen):
    """The keywords of `coffea_ad.run`, where it says what they mean."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Annotated[tuple[str | Path, ...], BeforeValidator(_as_sequence)] = ()
    config: str | Path | None = None
    overrides: tuple[str, ...] = ()
    executor: Executor = "dask"
    workers: Count | None = None
    scheduler: str | None = None
    cluster: Any = None
    chunksize: Count = 100_000
    output: str | Path | None = None
    force: bool = False
    lumi: Annotated[Any, BeforeValidator(as_given)] = None
    test: bool = False
    limit_files: Count | None = None
    limit_chunks: Count | None = None
    allow_missing: bool = False
    checkpoints: str | Path | None = None
    preflight: bool = True
    progress: bool = True
    retries: int = Field(2, ge=0)
    timeout: float = Field(files.PATIENCE, gt=0)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    duplicates: Mode = "note"
    generator_weight: Literal["stored", "sign"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _limit_tests(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "limit_files": 1, "limit_chunks": 1} if values.get("test") else values

    @classmethod
    def of(cls, **values: Any) -> RunOptions:
        """Return checked options.

        Raises
        ------
        ConfigError
            A value is wrong; the sentence names it and what it must be.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from None

    @classmethod
    def of_report(cls, report: Mapping[str, Any], **others: Any) -> RunOptions:
        """Return the options of an earlier run, by its `report.json`, with others for how it goes on.

        Raises
        ------
        ConfigError
        """
        settings = {"duplicates": "ignore", "lumi": report["lumi"], **report["settings"]}
        same = {name: settings[name] for name in (*_STORED, "config", "overrides", "providers")}
        return cls.of(**same, model=settings["models"], **others)

    def settings(self) -> dict[str, Any]:
        """Return what a report says of how a run was done, and `of_report` reads."""
        return {
            **{name: getattr(self, name) for name in _STORED},
            "models": [str(m) for m in self.model],
            "config": None if self.config is None else str(self.config),
            "overrides": list(self.overrides),
            "providers": list(self.providers),
        }

    @property
    def processes(self) -> int:
        """How many worker processes there are on this machine."""
        return self.workers or _WORKERS

    def resolved_cluster(self) -> Any:
        """Return where the work is done: a ClusterConfig, or the client or cluster of dask that was handed over.

        Raises
        ------
        ConfigError
            The keywords contradict each other, or it is nothing of that kind.
        """
        cluster, scheduler = self.cluster, self.scheduler
        if self.executor != "dask" and (cluster is not None or scheduler is not None):
            raise ConfigError(
                f"the {self.executor} executor works on this machine; a cluster or scheduler needs executor dask"
            )
        if cluster is not None and scheduler is not None:
            raise ConfigError("give either a scheduler's address or a cluster, not both")
        if isinstance(cluster, (str, Path)):
            return load_cluster(cluster, workers=self.workers)
        if cluster is not None:
            if not isinstance(cluster, ClusterConfig) and not any(
                hasattr(cluster, name) for name in ("submit", "get_client")
            ):
                raise ConfigError(
                    f"cluster is {cluster!r}; give a kind, a file of site settings, a ClusterConfig, or a dask client or cluster"
                )
            return cluster
        if scheduler is not None:
            return ClusterConfig(kind="scheduler", address=scheduler)
        return ClusterConfig(workers=self.processes)

    def checkpoints_on(self, cluster: Any) -> str | None:
        """Return where finished chunks are stored: in the results folder, unless said otherwise or workers may not reach it."""
        if self.checkpoints is not None:
            return None if self.checkpoints == NO_CHECKPOINTS else str(self.checkpoints)
        on_this_machine = isinstance(cluster, ClusterConfig) and cluster.kind == "local"
        if not on_this_machine or self.output is None or "://" in str(self.output):
            return None
        return str(Path(self.output) / "checkpoints")


def _sentence(error: ValidationError) -> str:
    """Say which keyword is wrong first, and what it must be."""
    first = error.errors()[0]
    name, value, limits = first["loc"][0], first["input"], first.get("ctx", {})
    if name == "timeout":
        return f"timeout is {value}, but must be a positive number of seconds"
    if first["type"] == "greater_than_equal":
        return f"{name} is {value}, but must be at least {limits['ge']}"
    if name == "duplicates":
        return f"duplicates is {value!r}, but must be {', '.join(get_args(Mode))}"
    if first["type"] == "literal_error":
        expected = limits["expected"].replace("'", "")
        return f"{name} is {value!r}, but must be {expected}"
    return f"{name} is {value!r}, but must be {first['msg'].removeprefix('Input should be ')}"
