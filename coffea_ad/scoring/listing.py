"""What a card says, as a table of texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from coffea_ad.errors import listed
from coffea_ad.tables import Listing

if TYPE_CHECKING:
    from coffea_ad.scoring.card import ModelCard

__all__ = ["card_table", "verdict_of"]


def verdict_of(card: ModelCard) -> str:
    """Return what a card says of its training."""
    doubts = card.provenance.get("verdict")
    if doubts is None:
        return "the card has none"
    return "; ".join(doubts) if doubts else "nothing doubtful was found"


def card_table(card: ModelCard, title: str = "") -> Listing:
    """Return inputs, calibrations, regions and provenance of a card in words."""
    what = f"jet level, {card.collection}" if card.level == "jet" else "event level"
    rows = [
        ("name", f"{card.name} ({card.method}, {what})"),
        *_inputs(card),
        ("output", ", ".join(card.outputs)),
        *_members(card),
        *(("calibration", f"{c.derived_from}; N_eff {c.n_effective:.0f}") for c in card.calibrations),
        *_regions(card),
        ("verdict", verdict_of(card)),
        ("NanoAOD", ", ".join(card.flavours)),
        ("versions", ", ".join(f"{k} {v}" for k, v in card.provenance.get("versions", {}).items())),
    ]
    return Listing(title, ("what", "value"), tuple(rows))


def _inputs(card: ModelCard) -> Iterator[tuple[str, str]]:
    for spec in card.inputs:
        for f in spec.features:
            columns = listed((c.name + (f" [{c.unit}]" if c.unit else "") for c in f.columns), 60)
            yield f"input {spec.name}", f"{f.key} v{f.version}: {columns}"
            yield "  options", ", ".join(f"{k}={v}" for k, v in f.options.items())


def _members(card: ModelCard) -> Iterator[tuple[str, str]]:
    """Say which network scores which rows, and where rows have a score."""
    if card.folds:
        yield "folds", f"{card.folds.k} members, salt {card.folds.salt!r}; each event by the one that never saw it"
    if card.density:
        of = {"x": "of the inputs", "z": "of the transformed inputs"}[card.density]
        yield "score", f"−log p, a density {of}; ad_logp is none: −log₁₀ of the background efficiency"
    if card.contributions:
        where = ", ".join(card.contribution_outputs)
        yield "contributions", f"{where}: add up to {card.contributions.of}; {listed(card.parts, 8)}"
    for condition in card.domain:
        yield "domain", f"{condition}; no score elsewhere"
    for i, window in enumerate(card.windows.parts if card.windows else ()):
        folds = len(card.outputs) // len(card.windows.bounds) if card.windows else 1
        outputs = ", ".join(card.outputs[folds * i : folds * (i + 1)])
        yield f"window {i}", f"{window} by output {outputs}; no score outside of all windows"


def _regions(card: ModelCard) -> Iterator[tuple[str, str]]:
    for r in card.regions:
        where = listed((f"{t:.3f}" for t in r.thresholds), 8)
        bins = f" in bins of {r.spectator} with edges {listed((f'{e:g}' for e in r.edges), 8)}" if r.edges else ""
        text = f"ad_logp ≥ {where} ± {r.error:.3f}{bins}; ε_B {r.efficiency:g}, N_eff {r.n_effective:.0f}"
        yield f"region {r.name}", text
    for label, about in card.provenance.get("flat_in", {"regions": {}})["regions"].items():
        yield f"  {label}", about["check"]
    for sentence in card.provenance.get("regions_left_out", ()):
        yield "left out", sentence
