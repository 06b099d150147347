"""One configuration for several eras: a processor for each, and every dataset is processed by that of its era."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coffea.processor import ProcessorABC

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.weights import era_of

__all__ = ["ByEra", "divide_by_era", "needs_of"]

Needs = Mapping[str, tuple[tuple[str, ...], ...]]


class ByEra(ProcessorABC):
    """Processors of one kind by era.

    Parameters
    ----------
    processors : {era: processor}

    Attributes
    ----------
    fills_histograms, fraction, luminosity_fraction
        As those of the processors, which must agree in them.

    Raises
    ------
    ConfigError
        They do not.
    """

    def __init__(self, processors: Mapping[str, Any]) -> None:
        self.processors = dict(processors)
        self.fills_histograms = self._same("fills_histograms", True)
        self.fraction = self._same("fraction", 1.0)
        self.luminosity_fraction = self._same("luminosity_fraction", 1.0)

    def _same(self, name: str, default: Any) -> Any:
        each = {era: getattr(processor, name, default) for era, processor in self.processors.items()}
        if len(set(each.values())) > 1:
            listed = ", ".join(f"{era}: {value}" for era, value in each.items())
            raise ConfigError(f"the eras of one run must keep the same fraction of events, and not {listed} ({name})")
        return next(iter(each.values()))

    def of(self, metadata: Mapping[str, Any], dataset: str) -> Any:
        """Return the processor of a dataset.

        Raises
        ------
        UnknownName, ConfigError
            The configuration has no such era; the metadata name none.
        """
        era = era_of(metadata)
        if not era:
            raise ConfigError(
                f"dataset {dataset}: the configuration is by era ({', '.join(self.processors)}), and its metadata name none"
            )
        if era not in self.processors:
            raise UnknownName.of(f"era of {dataset} in the configuration", era, self.processors)
        return self.processors[era]

    def reads(self) -> dict[str, Any]:
        """Return the branches that any of the processors reads."""
        out: dict[str, Any] = {}
        for era, processor in self.processors.items():
            for what, ways in _reads(processor).items():
                out[what if out.get(what, ways) == ways else f"{what} ({era})"] = ways
        return out

    def process(self, events: Any) -> Any:
        """Let the processor of the era process."""
        return self.of(events.metadata, str(events.metadata.get("dataset", ""))).process(events)

    def postprocess(self, accumulator: Any) -> Any:
        """Let the first of the processors postprocess, if it does."""
        postprocess = getattr(next(iter(self.processors.values())), "postprocess", None)
        return accumulator if postprocess is None else postprocess(accumulator)


def _reads(processor: Any) -> Needs:
    return processor.reads() if hasattr(processor, "reads") else {}


def needs_of(processor: Any, metadata: Mapping[str, Any], dataset: str) -> Needs:
    """Return the branches that a processor declares for a dataset, as alternatives; of a ByEra those of the dataset's era."""
    return _reads(processor.of(metadata, dataset) if isinstance(processor, ByEra) else processor)


def divide_by_era(datasets: Mapping[str, Any], *, eras: bool) -> list[dict[str, Any]]:
    """Return datasets era by era, or all together if eras make no difference.

    Parameters
    ----------
    datasets : {dataset: {"metadata": {…}, …}}
    eras : bool
        The configuration is by era.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, entry in datasets.items():
        parts.setdefault(era_of(entry["metadata"]) if eras else "", {})[name] = entry
    return list(parts.values())
