"""A job: a processor by name, by path or as an object, with its configuration and its models."""

from __future__ import annotations

import inspect
import json
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
from pydantic import BaseModel, ConfigDict, create_model
from pydantic_core import PydanticSerializationError

from coffea_ad import recipes
from coffea_ad.config import load_config, load_eras
from coffea_ad.errors import CoffeaADError, ConfigError, ProcessorFailed
from coffea_ad.running.chunks import own_lines
from coffea_ad.running.eras import ByEra, needs_of
from coffea_ad.scoring.modelfile import network_digest
from coffea_ad.scoring.tagger import Tagger
from coffea_ad.weights import era_of

__all__ = ["Job"]


@dataclass
class Job:
    """A processor, and what it was made of.

    Attributes
    ----------
    name : str
    module : module or None
        The recipe that it came from.
    instance : processor
    config : pydantic model or None
    models : list of str
        Files of the taggers.
    taggers : list of Tagger
    make : callable or None
        Makes the processor of a recipe, given where it may write.
    source : path or None
        The YAML file of the configuration.
    eras : {era: pydantic model}
        The configurations of eras, if it has some; `config` is then that of the first.
    """

    name: str
    module: ModuleType | None
    instance: Any
    config: Any
    models: list[str]
    taggers: list[Tagger]
    make: Callable[[Any], Any] | None = None
    source: Path | None = None
    eras: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, processor: Any, models: Sequence[str | Path], config: str | Path | None, overrides: Sequence[str], output: Any,
        **tagging: Any,
    ) -> Job:  # fmt: skip
        """Load models and recipe and make the processor.

        Raises
        ------
        BadModel, CardMismatch, ConfigError, UnknownName
        """
        taggers = [Tagger(m, name="ad" if i == 0 else f"ad{i + 1}", **tagging) for i, m in enumerate(models)]
        names = [str(m) for m in models]
        if not isinstance(processor, (str, Path)):
            if taggers or config is not None or tuple(overrides):
                raise ConfigError(
                    "a processor that is an object already takes no model or configuration; give it its own"
                )
            return cls(type(processor).__name__, None, processor, None, names, taggers)
        module = recipes.load(processor)
        if recipes.kind_of(module) != "processor":
            raise ConfigError(f"{processor}: this is a training recipe; it takes no fileset")
        factory, config_model = recipes.parts_of(module)
        path = recipes.configuration(processor, config)
        eras: dict[str, Any] = {}
        if config_model is None:
            resolved, make = _by_arguments(str(processor), factory, path, overrides, names, taggers)
        else:
            eras = load_eras(config_model, path, overrides)
            resolved, make = next(iter(eras.values())), partial(_build, factory, eras, taggers)
        by_era = "" not in eras and bool(eras)
        try:
            instance = make(output)
        except CoffeaADError:
            raise
        except Exception as error:
            raise ProcessorFailed(f"{processor}: it cannot be made: {own_lines(error)}") from error
        return cls(str(processor), module, instance, resolved, names, taggers, make, path, eras if by_era else {})

    @property
    def fills_histograms(self) -> bool:
        """Whether it fills histograms, or writes files."""
        return bool(getattr(self.instance, "fills_histograms", True))

    @property
    def fraction(self) -> float:
        """The part of the events that the processor keeps by their hash, of simulation or, with the luminosity, of data too."""
        return float(getattr(self.instance, "fraction", 1.0))

    @property
    def configs(self) -> list[Any]:
        """The configurations, one of each era; one where it is the same for all."""
        return list(self.eras.values()) or [self.config]

    def config_of(self, metadata: Mapping[str, Any]) -> Any:
        """Return the configuration of a dataset."""
        return self.eras.get(era_of(metadata), self.config)

    def needs(self, dataset: str, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the branches that it declares for a dataset, as alternatives."""
        try:
            return needs_of(self.instance, metadata, dataset)
        except CoffeaADError:
            raise
        except Exception as error:
            raise ProcessorFailed(f"{self.name}, reads(): {own_lines(error)}") from error

    @property
    def resolved(self) -> dict[str, Any]:
        """The configuration with all defaults; by era under `eras`, if it is."""
        if self.eras:
            return {"eras": {era: _dumped(config) for era, config in self.eras.items()}}
        return {} if self.config is None else _dumped(self.config)

    @contextmanager
    def dry_run(self) -> Iterator[Any]:
        """Yield a processor for the first events: what it writes is removed."""
        if self.make is None:
            try:
                copy = cloudpickle.loads(cloudpickle.dumps(self.instance))
            except Exception:  # noqa: BLE001  it may hold what cannot be copied
                copy = self.instance
            yield copy
            return
        with tempfile.TemporaryDirectory(prefix="coffea-ad-") as folder:
            yield self.make(folder)

    def described(self) -> list[dict[str, Any]]:
        """Say which models these were: file, network and calibration, whose digests survive a change of the regions.

        Of regions with an expectation by a template, its relative error too, as a search of the results counts with it.
        """
        return [
            {
                "file": file,
                "name": t.card.name,
                "digest": t.scorer.digest,
                "network": network_digest(t.scorer.data),
                "calibration": t.scorer.card.calibration_digest,
                **_expectations(t, first=i == 0),
            }
            for i, (file, t) in enumerate(zip(self.models, self.taggers, strict=True))
        ]


def _expectations(tagger: Tagger, *, first: bool) -> dict[str, Any]:
    """Return of each region, under its name of the results, the efficiency and the relative error of what a template leads one to expect."""
    prefix = "" if first else f"{tagger.name}_"
    out = {
        prefix + r.name: {
            "spectator": e.spectator,
            "efficiency": r.efficiency,
            "low": e.edges[0],
            "high": e.edges[-1],
            "relative_error": e.uncertainty / e.expected,
        }
        for r in tagger.card.regions
        if (e := r.expectation) is not None and e.expected > 0
    }
    return {"expectations": out, "inclusive": prefix + "inclusive"} if out else {}


def _dumped(config: Any) -> dict[str, Any]:
    try:
        return dict(config.model_dump(mode="json"))
    except PydanticSerializationError:  # an argument of a class of one's own may be anything
        return dict(json.loads(json.dumps(config.model_dump(), default=_plain)))


def _build(factory: Any, configs: Mapping[str, Any], taggers: Sequence[Tagger], output: Any) -> Any:
    """Return the processor, or one of each era."""
    if "" in configs:
        return factory(configs[""], taggers, output)
    return ByEra({era: factory(config, taggers, output) for era, config in configs.items()})


def _plain(value: Any) -> Any:
    """Return what JSON has in the place of a value that it has not."""
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def _by_arguments(
    name: str, factory: Any, path: Path | None, overrides: Sequence[str], models: Sequence[str], taggers: Sequence[Tagger]
) -> tuple[BaseModel, Callable[[Any], Any]]:  # fmt: skip
    """Make a class configurable whose arguments are its configuration: their names are the keys, checked by their types.

    Arguments named `taggers`, `tagger` or `model` take what was given as --model, one named `output` the output.
    """
    parameters = {
        key: parameter for key, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }  # fmt: skip
    set_by_us: dict[str, Any] = {}
    if models:
        by_name = {"taggers": list(taggers), "tagger": taggers[0], "model": models[0]}
        key = next((k for k in by_name if k in parameters), None)
        if key is None or (key != "taggers" and len(models) > 1):
            raise ConfigError(
                f"{name}: its processor takes no --model; its arguments are {', '.join(parameters) or 'none'}"
            )
        set_by_us[key] = by_name[key]
    asked = {key: p for key, p in parameters.items() if key not in set_by_us and key != "output"}
    try:
        resolved = load_config(_arguments_model(factory, asked), path, overrides)
    except ConfigError as error:
        listed = f"are {', '.join(asked)}" if asked else "are none"
        raise ConfigError(f"{name}: the arguments of its processor, key=value, {listed}; {error}") from None
    values = {key: getattr(resolved, key) for key in asked} | set_by_us

    def make(output: Any) -> Any:
        return factory(**values, **({"output": output} if "output" in parameters else {}))

    return resolved, make


def _arguments_model(factory: Any, parameters: Mapping[str, inspect.Parameter]) -> type[BaseModel]:
    """Return a model with a class's arguments as keys."""
    try:
        types = typing.get_type_hints(factory.__init__)
    except Exception:  # noqa: BLE001  names that are known to a type checker only
        types = {}
    fields: dict[str, Any] = {
        key: (types.get(key, Any), ... if p.default is p.empty else p.default) for key, p in parameters.items()
    }
    settings = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Field name .* shadows an attribute")
        return create_model("Arguments", __config__=settings, **fields)
