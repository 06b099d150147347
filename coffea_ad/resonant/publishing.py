"""Members of a search → model files, each with what the template leads one to expect in its regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from coffea_ad.errors import BadModel, ConfigError, IncompleteRun
from coffea_ad.nn.cross_training import CrossTrained
from coffea_ad.nn.encoded import FrozenGraph
from coffea_ad.nn.export import behind, export, make_card
from coffea_ad.nn.recipe import RecipeConfig
from coffea_ad.nn.scorable import Scorable
from coffea_ad.progress import say
from coffea_ad.resonant.figures import draw_window
from coffea_ad.resonant.members import Member
from coffea_ad.resonant.trainings import Trained
from coffea_ad.resonant.windows import Window, mass_of
from coffea_ad.scoring.calibration import card_logp
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.expectation import Expectation
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.scoring.working_points import efficiency
from coffea_ad.skims.skim import Skim
from coffea_ad.splits import fold_of
from coffea_ad.typing import Float32s, Float64s

__all__ = ["expectation", "outputs_of", "publish", "publish_window"]

_COMPARED = 2000
_MASS_BINS = 8
_PASSING = 50  # template rows that a bin of the mass must have on average, to have an expectation of its own


def in_fold(n: int, f: int, k: int, salt: str) -> dict[str, Any]:
    """Return ids of n events that the hash puts into a fold: generated rows are then scored by the member they belong to.

    >>> ids = in_fold(5, 2, 4, "folds")
    >>> fold_of("folds", 4, *(ids[c] for c in ("run", "luminosityBlock", "event"))).tolist()
    [2, 2, 2, 2, 2]
    """
    events = np.arange(max(2 * k * n, 1000), dtype=np.uint64)
    zeros = np.zeros(len(events), np.uint32)
    events = events[fold_of(salt, k, zeros, zeros, events) == f][:n]
    return {"run": np.zeros(n, np.uint32), "luminosityBlock": np.zeros(n, np.uint32), "event": events}


def _template(members: Sequence[Member], data: Skim, salt: str, half: int) -> Skim:
    """Return one half of the members' templates, each row with the fold of its member."""
    rows, weights, ids = [], [], []
    for f, member in enumerate(members):
        middle = len(member.template) // 2
        part = slice(0, middle) if half == 0 else slice(middle, None)
        rows.append(member.template[part])
        weights.append(member.template_weight[part])
        ids.append(in_fold(len(rows[-1]), f, len(members), salt))
    spectators = {name: np.concatenate([i[name] for i in ids]) for name in ids[0]}
    out = data.replaced(np.concatenate(rows), dataset="template", weight=np.concatenate(weights), spectators=spectators)
    return replace(out, provenance=data.provenance | {"rows": data.provenance.get("rows", {})})


def publish_window(
    window: Window, members: Sequence[Member], data: Skim, config: Mapping[str, Any], output: Path, *, salt: str,
    efficiencies: Sequence[float], network: FrozenGraph | None = None, inputs: Skim | None = None,
) -> ModelCard:  # fmt: skip
    """Write the model file of a window: all its members, calibrated on the half of their templates that is not counted.

    Parameters
    ----------
    window : Window
    members : sequence of Member
        In the order of the folds.
    data : Skim
        The rows that were searched.
    config : mapping
        Resolved, for the card.
    output : path
    salt : str
        Of the folds.
    efficiencies : sequence of float
        Of the template.
    network, inputs : FrozenGraph, Skim
        Of a search on the vectors of a network: the network, and rows that it takes.

    Returns
    -------
    ModelCard
        Each region has the part of the template that passes it, measured on the other half.
    """
    model = CrossTrained(members, salt)
    calibrating, counted = (_template(members, data, salt, half) for half in (0, 1))
    metrics = {"folds": [m.metrics for m in members]}
    card = make_card(
        model, calibrating, name=output.stem, config=dict(config), metrics=metrics, efficiencies=efficiencies
    )
    folds = model.folds.of(counted.spectators)
    score = model.scores(np.asarray(counted.x), folds)
    logp = card_logp(card, score, folds)
    mass = mass_of(counted, window.mass)
    written = tuple(
        r.model_copy(
            update={
                "expectation": expectation(logp, r.thresholds[0], mass, counted.weight, window).model_copy(
                    update=_in_sidebands(card, members, r.thresholds[0])
                )
            }
        )
        for r in card.regions
    )
    verdict = [*card.provenance["verdict"], *_doubts(written)]
    card = card.model_copy(
        update={
            "domain": (window.domain,),
            "regions": written,
            "provenance": {
                **card.provenance,
                "window": window.model_dump(),
                "verdict": verdict,
                "calibrated_on": "half of the template, which is not counted",
            },
        }
    )
    published, compared = cast("Scorable", model), calibrating
    if network is not None and inputs is not None:
        _refuse_mass(model, calibrating, window.mass)
        compared = inputs
        published, card = behind(network, model, card, inputs)
    export(published, output, card, np.asarray(compared.x[:_COMPARED]))
    return card


def _refuse_mass(model: CrossTrained, rows: Skim, mass: str) -> None:
    """Refuse scores that depend on the mass: in the graph, the column behind the vector is blank.

    Raises
    ------
    ConfigError
    """
    x = np.array(rows.x[:_COMPARED], np.float32)
    blank = x.copy()
    blank[:, rows.columns.index(mass)] = 0
    if any(not np.array_equal(member.scores(x), member.scores(blank)) for member in model.members):
        raise ConfigError(f"the score depends on {mass}, which the network does not give; leave it out of the inputs")


def _doubts(regions: Sequence[RegionSpec]) -> list[str]:
    """Say which regions keep another part of the template than they should, by four errors, or of the sidebands' events."""
    other = [
        f"region {r.name}: in the sidebands {e.sidebands:.2f} ± {e.sidebands_error:.2f} times as many events pass as the template "
        "leads one to expect; what is expected in the window is multiplied by that"
        for r in regions
        if (e := r.expectation) is not None and e.sidebands is not None and e.sidebands_error is not None
        and abs(e.sidebands - 1) > 3 * e.sidebands_error
    ]  # fmt: skip
    return other + [
        f"region {r.name}: {e.efficiency:.3g} ± {e.error:.2g} of the template rows that are counted pass, not {r.efficiency:g}"
        for r in regions
        if (e := r.expectation) is not None and abs(e.efficiency - r.efficiency) > 4 * np.hypot(e.error, r.error)
    ]


def expectation(logp: Float32s, threshold: float, mass: Float64s, weight: Float64s, window: Window) -> Expectation:
    """Return what part of a template passes a threshold: over the window, and in bins of the mass as far as rows allow.

    Parameters
    ----------
    logp : (n,) float32
        `ad_logp` of template rows.
    threshold : float
    mass, weight : (n,)
    window : Window

    """
    whole, error, n_effective = efficiency(np.nan_to_num(logp, nan=-1.0), weight, threshold)
    bins = int(np.clip(n_effective / _PASSING, 1, _MASS_BINS))
    edges = np.linspace(window.low, window.high, bins + 1)
    place = np.clip(np.digitize(mass, edges) - 1, 0, bins - 1)
    parts = [efficiency(np.nan_to_num(logp[place == i], nan=-1.0), weight[place == i], threshold) for i in range(bins)]
    return Expectation(
        spectator=window.mass, edges=tuple(edges.tolist()), efficiency=whole, error=error, n_effective=n_effective,
        efficiencies=tuple(p[0] for p in parts), errors=tuple(p[1] for p in parts),
    )  # fmt: skip


def _in_sidebands(card: ModelCard, members: Sequence[Member], threshold: float) -> dict[str, float]:
    """Return how many events of the sidebands pass, over what a template that is made for them leads one to expect."""
    observed = expected = variance = 0.0
    for f, member in enumerate(members):
        if not len(member.sideband_score) or not len(member.sideband_template_score):
            return {}
        data, template = (
            np.nan_to_num(card_logp(card, score, np.full(len(score), f)), nan=-1.0)
            for score in (member.sideband_score, member.sideband_template_score)
        )
        part, error, _ = efficiency(template, member.sideband_template_weight, threshold)
        observed += float((data >= threshold).sum())
        expected += part * len(data)
        variance += (error * len(data)) ** 2
    if not expected:
        return {}
    # one event more in both, so that none of a few expected does not say that nothing is expected
    ratio = (observed + 1) / (expected + 1)
    return {"sidebands": ratio, "sidebands_error": float(np.sqrt(observed + 1 + variance * ratio**2) / (expected + 1))}


def outputs_of(output: Path, windows: Sequence[Window]) -> list[Path]:
    """Return the model file of each window: the output itself, or with several windows one beside it for each.

    >>> windows = [Window(low=a, high=a + 400, outer_low=1500, outer_high=5500) for a in (3000, 3400)]
    >>> [path.name for path in outputs_of(Path("search.onnx"), windows)]
    ['search_3000_3400.onnx', 'search_3400_3800.onnx']
    """
    if len(windows) == 1:
        return [output]
    return [output.with_name(f"{output.stem}_{window.name}.onnx") for window in windows]


def publish(
    trained: Trained, left_out: Mapping[str, str], windows: Sequence[Window], data: Skim, config: RecipeConfig, output: Path,
    *, efficiencies: Sequence[float], network: FrozenGraph | None = None, inputs: Skim | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the model files of all windows whose trainings are complete, and say what is missing.

    Of a search in one window the file is `output`; of several, each window has its own: `search_3300_3700.onnx`.

    Returns
    -------
    dict
        What the command line prints: outputs, regions, metrics, and further sentences.

    Raises
    ------
    IncompleteRun
        A training failed or was refused; what is complete is written first, and the same command does only the rest.
    """
    cards: dict[Path, ModelCard] = {}
    refused: dict[str, str] = {}
    for window, path in zip(windows, outputs_of(output, windows), strict=True):
        names = [f"{window.name}_fold_{f}" for f in range(config.folds)]
        if any(name not in trained.members for name in names):
            continue
        members = [trained.members[n] for n in names]
        try:
            cards[path] = publish_window(
                window,
                members,
                data,
                config.model_dump(mode="json"),
                path,
                salt=config.salt,
                efficiencies=efficiencies,
                network=network,
                inputs=inputs,
            )
        except (ConfigError, BadModel) as error:  # such as a fold whose scores are all the same
            refused[window.name] = str(error)
            continue
        draw_window(window, members, data, cards[path], output.with_suffix("") / f"{window.name}.png")
    for name, why in {**left_out, **refused}.items():
        say(f"window {name} is left out: {why}")
    if trained.failed:
        told = "; ".join(f"{name}: {why}" for name, why in list(trained.failed.items())[:5])
        raise IncompleteRun(
            f"{len(trained.failed)} of {len(trained.failed) + len(trained.members)} trainings failed ({told}); "
            f"{len(cards)} of {len(windows)} model files are written, and the same command does what is missing"
        )
    if not cards:
        raise ConfigError("no model file is written: " + "; ".join(f"window {w}: {why}" for w, why in refused.items()))
    return {
        "outputs": [str(path) for path in cards],
        "regions": list(dict.fromkeys(r.name for card in cards.values() for r in card.regions)),
        "best": _means(list(trained.members.values())),
        "n_effective": data.provenance["n_effective"],
        "told": [f"{trained.resumed} of {len(trained.members)} trainings were there already"]
        if trained.resumed
        else [],
    }


def _means(members: Sequence[Member]) -> dict[str, float]:
    """Return the means over members of the numbers that all of them have."""
    first = members[0].metrics
    numbers = [k for k, v in first.items() if isinstance(v, (int, float)) and all(k in m.metrics for m in members)]
    return {k: float(np.mean([m.metrics[k] for m in members])) for k in numbers}
