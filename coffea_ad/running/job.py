"""A job: a processor by name, by path or as an object, with its configuration and its models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from coffea_ad import recipes
from coffea_ad.config import load_config
from coffea_ad.errors import CoffeaADError, ConfigError, ProcessorFailed
from coffea_ad.modelfile import network_digest
from coffea_ad.running.chunks import own_lines
from coffea_ad.tagger import Tagger

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
    """

    name: str
    module: ModuleType | None
    instance: Any
    config: Any
    models: list[str]
    taggers: list[Tagger]

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
        path = recipes.find_config(config) if config is not None else None
        resolved = load_config(module.Config, path, overrides)
        try:
            made = module.Processor(resolved, taggers, output)
        except CoffeaADError:
            raise
        except Exception as error:
            raise ProcessorFailed(f"{processor}: it cannot be made: {own_lines(error)}") from error
        return cls(str(processor), module, made, resolved, names, taggers)

    @property
    def fills_histograms(self) -> bool:
        """Whether it fills histograms, or writes files."""
        return bool(getattr(self.instance, "fills_histograms", True))

    @property
    def needs(self) -> Mapping[str, Any]:
        """Branches that it declares, as alternatives."""
        try:
            return self.instance.reads() if hasattr(self.instance, "reads") else {}
        except CoffeaADError:
            raise
        except Exception as error:
            raise ProcessorFailed(f"{self.name}, reads(): {own_lines(error)}") from error

    @property
    def resolved(self) -> dict[str, Any]:
        """The configuration with all defaults."""
        return {} if self.config is None else self.config.model_dump(mode="json")

    @contextmanager
    def rehearsal(self) -> Iterator[Any]:
        """Yield a processor that may write what nobody keeps."""
        if self.module is None:
            try:
                copy = cloudpickle.loads(cloudpickle.dumps(self.instance))
            except Exception:  # noqa: BLE001  it may hold what cannot be copied
                copy = self.instance
            yield copy
            return
        with tempfile.TemporaryDirectory(prefix="coffea-ad-") as folder:
            yield self.module.Processor(self.config, self.taggers, folder)

    def described(self) -> list[dict[str, Any]]:
        """Say which models these were: file, network and calibration, whose digests survive a change of the regions."""
        return [
            {
                "file": file,
                "name": t.card.name,
                "digest": t.scorer.digest,
                "network": network_digest(t.scorer.data),
                "calibration": t.scorer.card.calibration_digest,
            }
            for file, t in zip(self.models, self.taggers, strict=True)
        ]
