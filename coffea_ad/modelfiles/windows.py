"""Bundle the models of several windows, such as those of a resonance search in m_jj, in one file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad.errors import CardMismatch, ConfigError
from coffea_ad.modelfiles.combine import (
    calibration_of,
    flat_score,
    golden_batch,
    golden_rows,
    provenance_of,
    read_members,
    shared_folds,
    shared_selection,
    side_by_side,
)
from coffea_ad.modelfiles.quantiles import input_quantiles
from coffea_ad.modelfiles.ranks import Nodes
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.domains import Domain, Windows
from coffea_ad.scoring.expectation import joined_expectations
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Golden, RegionSpec
from coffea_ad.skims.background import background as background_rows

__all__ = ["bundle"]


def bundle(
    models: Sequence[str | Path],
    *,
    name: str = "windows",
    background: str | Path | None = None,
    datasets: Sequence[str] = (),
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
) -> bytes:
    """Write one model from models of several windows: a row is scored by the member of its window, and by none outside.

    Each member keeps its calibration, so that a threshold on `ad_logp` has the same background efficiency in every window,
    although the scores of two members cannot be compared.

    Parameters
    ----------
    models : sequence of path
        Two or more, each with a domain. Domains differ in one spectator and do not overlap in it; features, level,
        collection and folds are the same.
    name : str
        On the card.
    background : path, optional
        A skim, for new regions and for the quantiles that notice drift; without it, the regions are those that all members
        have, and there are no quantiles.
    datasets, efficiencies
        Of the background.

    Returns
    -------
    bytes
        The new file. Of k folds, member window · k + fold has the output of that number.

    Raises
    ------
    ConfigError, CardMismatch, BadModel
        A member has no domain or no calibration, windows overlap, or members cannot be merged.

    References
    ----------
    J. Collins, K. Howe, B. Nachman, "Extending the search for new resonances with machine learning", arXiv:1902.02634.

    Examples
    --------
    >>> bundle([model_file])
    Traceback (most recent call last):
    coffea_ad.errors.ConfigError: a combination needs two models or more
    """
    members = read_members(models)
    spectator = _window_spectator(members)
    members.sort(key=lambda m: _window(m, spectator).low)
    _refuse_overlaps(members, spectator)
    first = members[0].card
    written, left_out = _common_regions([m.card for m in members])
    card = ModelCard(
        name=name,
        method=" / ".join(dict.fromkeys(m.card.method for m in members)),
        level=first.level,
        collection=first.collection,
        inputs=first.inputs,
        selection=shared_selection(members),
        folds=shared_folds(members),
        domain=tuple(d for d in first.domain if d.spectator != spectator),
        windows=Windows(
            spectator=spectator, bounds=tuple((w.low, w.high) for w in (_window(m, spectator) for m in members))
        ),
        slots_vary=all(m.card.slots_vary for m in members),
        flavours=tuple(sorted({f for m in members for f in m.card.flavours})),
        provenance={**provenance_of(members, "window", spectator), "regions_left_out": left_out},
    )
    folds = range(card.folds.k if card.folds is not None else 1)
    card = ModelCard.model_validate(
        {
            **card.model_dump(),
            "calibrations": tuple(calibration_of(m, f) for m in members for f in folds),
            "regions": written,
            "golden": _golden(members, card),
        }
    )

    def outputs(add: Nodes) -> None:
        for i, output in enumerate(card.outputs):
            place, fold = divmod(i, len(folds))
            flat_score(add, place, members[place], fold, output)

    sealed = write_card(side_by_side(members, card, outputs), card, name)
    if background is not None:
        sealed = new_regions(sealed, background, efficiencies=efficiencies, datasets=datasets, name=name)
        sealed = _with_quantiles(sealed, background, datasets, name)
    OnnxScorer(sealed, name=name).sessions  # noqa: B018  a file whose own golden rows fail must not be written
    return sealed


def _window_spectator(members: Sequence[OnnxScorer]) -> str:
    """Return the only spectator in which the domains differ."""
    domains = [{d.spectator: d for d in m.card.domain} for m in members]
    first = domains[0]
    for member, domain in zip(members, domains, strict=True):
        if not domain:
            raise ConfigError(f"{member.name}: its card has no domain, and so no window")
        if domain.keys() != first.keys():
            raise CardMismatch(
                f"{member.name}: its domain is in {', '.join(domain)}, but that of {members[0].name} in {', '.join(first)}"
            )
    differing = [name for name in first if any(domain[name] != first[name] for domain in domains)]
    if len(differing) > 1:
        raise CardMismatch(
            f"the domains differ in {' and '.join(differing)}; the windows of a bundle are in one spectator"
        )
    if not differing and len(first) > 1:
        raise CardMismatch(f"{members[1].name}: its domain is that of {members[0].name}, {members[0].card.validity}")
    return differing[0] if differing else next(iter(first))


def _window(member: OnnxScorer, spectator: str) -> Domain:
    return next(d for d in member.card.domain if d.spectator == spectator)


def _refuse_overlaps(members: Sequence[OnnxScorer], spectator: str) -> None:
    for one, two in itertools.pairwise(members):
        low, high = _window(one, spectator), _window(two, spectator)
        if high.low < low.high:
            raise CardMismatch(f"{two.name}: its window, {high}, overlaps with that of {one.name}, {low}")


def _common_regions(cards: Sequence[ModelCard]) -> tuple[list[RegionSpec], list[str]]:
    """Return the regions that mean the same in all windows, with what the worst rests on, and say which do not."""
    written, left_out = [], []
    for region in cards[0].regions:
        others = [next((r for r in card.regions if r.name == region.name), None) for card in cards]
        of = [r for r in others if r is not None]
        if len(of) < len(cards):
            card = cards[others.index(None)]
            left_out.append(f"region {region.name} is not written: {card.name} has none")
        elif any(_meaning(r) != _meaning(region) for r in of):
            left_out.append(
                f"region {region.name} is not written: its thresholds on ad_logp differ between the windows; derive them anew "
                "with --background"
            )
        else:
            origin = "; ".join(dict.fromkeys(r.derived_from for r in of))
            worst = {"error": max(r.error for r in of), "n_effective": min(r.n_effective for r in of)}
            expected = joined_expectations([r.expectation for r in of])
            written.append(region.model_copy(update={**worst, "derived_from": origin, "expectation": expected}))
    return written, left_out


def _meaning(region: RegionSpec) -> tuple[Any, ...]:
    return region.efficiency, region.thresholds, region.spectator, region.edges


def _golden(members: Sequence[OnnxScorer], card: ModelCard) -> Golden | None:
    """Take the golden rows of all members that each member can score, with their scores."""
    rows = golden_rows(members, card)
    if not rows:
        return None
    n = len(rows[card.inputs[0].name])
    scores = np.stack(
        [
            np.asarray(m(golden_batch(m, card, rows), np.full(n, f) if m.card.folds is not None else None))
            for m in members
            for f in range(card.folds.k if card.folds is not None else 1)
        ]
    )
    defined = np.isfinite(scores).all(axis=0)
    if not defined.any():
        return None
    return Golden.of({name: values[defined] for name, values in rows.items()}, scores[:, defined].ravel())


def _with_quantiles(sealed: bytes, background: str | Path, datasets: Sequence[str], name: str) -> bytes:
    """Tabulate the inputs of the background in all windows together: a run is compared with these."""
    card = OnnxScorer(sealed, name=name).card
    skim = background_rows(card, background, datasets)
    return write_card(sealed, card.model_copy(update={"quantiles": input_quantiles(skim, card.inputs[0])}), name)
