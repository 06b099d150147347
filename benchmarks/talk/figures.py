"""Figures of the talk's comparisons, drawn from the numbers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

NAMES = {"qcd": "QCD", "ttbar": r"$t\bar{t}$"}
COLORS = mpl.color_sequences["petroff10"]
TITLES = {"auc": "AUC", "matched": "AUC at equal pT"}
Found = dict[str, Any]


@contextmanager
def canvas(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    style = {**mplhep.style.ROOT, "font.size": 12, "axes.labelsize": 12, "legend.fontsize": 9.5, "xtick.labelsize": 11,
             "ytick.labelsize": 11, "axes.titlesize": 12, "lines.linewidth": 1.5}  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.subplots(rows, columns, squeeze=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def chosen(rows: Iterable[Found], **wanted: Any) -> list[Found]:
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def numbers(rows: list[Found], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return AUCs and the larger of the spread over seeds and the bootstrap error."""
    each = [row[key] for row in rows]
    return np.array([e["value"] for e in each]), np.array([max(e["spread"] or 0, e["error"]) for e in each])


def components(found: Found, path: Path, signal: str = "svj_2000_05") -> None:
    with canvas(path, 2, 3, (4.4, 3.6)) as axes:
        for line, name in zip(axes, NAMES, strict=True):
            for i, label in zip((0, 1, 2, 4), ("PCA", "kernel PCA", "AE 10-10", "AE 32-32"), strict=True):
                look = {"color": COLORS[i], "marker": "os^ v"[i], "label": label, "markersize": 5, "capsize": 2}
                left = chosen(found["errors"], trained=name, score=label)
                at = [e["components"] for e in left]
                line[0].errorbar(at, [e["unexplained"] for e in left], [e["spread"] for e in left], **look)
                for ax, key in zip(line[1:], TITLES, strict=True):
                    rows = chosen(found["rows"], trained=name, score=label, signal=signal)
                    ax.errorbar(at, *numbers(rows, key), **look)
            line[0].set(yscale="log", ylabel="unexplained share of the variance")
            for ax, key in zip(line[1:], TITLES, strict=True):
                ax.set(ylim=(0.32, 0.88), ylabel=TITLES[key])
                ax.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
                for label, style in (("multiplicity", "--"), ("IsolationForest", "-.")):
                    row = chosen(found["rows"], trained=name, score=label, signal=signal)[0]
                    ax.axhline(row[key]["value"], color="black", linewidth=1, linestyle=style, label=label)
            for ax in line:
                ax.set_xlabel("components or width of the bottleneck")
                ax.set_title(f"trained on {NAMES[name]}", loc="left")
                ax.set_xticks(range(1, 7))
                ax.xaxis.minorticks_off()
        axes[0, 0].legend()
        axes[0, 1].legend(ncols=2, loc="lower center")


def scores(found: Found, path: Path) -> None:
    """Draw ln score of both classes, for models of either."""
    kinds = {"AE 10-10-6, quantile": (found["b"], "substructure"), "plain": (found["c"], "images"),
             "power 0.5, smear 1": (found["c"], "images, power 0.5, smear 1")}  # fmt: skip
    with canvas(path, 2, len(kinds), (4.4, 3.4)) as axes:
        for k, (label, (part, title)) in enumerate(kinds.items()):
            for ax, name in zip(axes[:, k], NAMES, strict=True):
                shown = part["distributions"][f"{label}/{name}"]
                other = next(n for n in NAMES if n != name)
                for i, (process, content) in enumerate(zip((name, other), shown["content"], strict=True)):
                    look = {"fill": True, "alpha": 0.35} if i == 0 else {"linewidth": 1.6}
                    text = NAMES[process] + (" (trained on)" if i == 0 else "")
                    ax.stairs(content, shown["edges"], color=COLORS[list(NAMES).index(process)], label=text, **look)
                row = chosen(part["rows"], trained=name, score=label, signal=other)[0]
                ax.set_title(f"{title}: AUC {row['auc']['value']:.2f}", loc="left")
                ax.set_xlabel("ln score")
                ax.set(yticks=[], ylim=(0, 1.35 * max(map(max, shown["content"]))))
                ax.legend(loc="upper right", ncols=2, fontsize=9)


def pairs(rows: list[Found], key: str) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """Return {score: (AUC, error) of QCD models that look for top jets, and of top models that look for QCD}."""
    out = {}
    for label in dict.fromkeys(row["score"] for row in rows):
        both = [chosen(rows, trained=a, signal=b, score=label) for a, b in (("qcd", "ttbar"), ("ttbar", "qcd"))]
        if all(both):
            (x,), (ex,) = numbers(both[0][:1], key)
            (y,), (ey,) = numbers(both[1][:1], key)
            out[label] = (float(x), float(ex)), (float(y), float(ey))
    return out


def directions(found: dict[str, Found], path: Path) -> None:
    """Draw both directions of every score against one another, at equal pT."""
    groups = {"b": "substructure: ", "c": "images: ", "e": "from 200 GeV: "}  # e was trained on jets of lower pT too
    single = {"multiplicity": "x", "mass": "P", "pTD (reversed)": "+", "IsolationForest": "d",
              "Mahalanobis (standardised)": "*"}  # fmt: skip
    with canvas(path, 1, 1, (9.2, 5.4)) as axes:
        ax = axes[0, 0]
        for g, (part, prefix) in enumerate((k, v) for k, v in groups.items() if k in found):
            points = pairs(found[part]["rows"], "matched")
            models = {row["score"] for row in found[part]["rows"] if row["seeds"] > 1}
            for i, label in enumerate(label for label in points if label in models):
                (x, ex), (y, ey) = points[label]
                ax.errorbar(x, y, ey, ex, marker="os^"[g], color=COLORS[(i + 4 * g) % 10], label=prefix + label,
                            markersize=6, linestyle="")  # fmt: skip
            for label, marker in single.items():
                if part == "b" or (part == "e" and marker in "d*"):
                    (x, _), (y, _) = points[label]
                    face, text = ("black", label) if part == "b" else ("white", prefix + label)
                    ax.plot(
                        x, y, linestyle="", marker=marker, color="black", markerfacecolor=face, label=text, markersize=8
                    )
        ax.plot([0, 1], [1, 0], color="grey", linewidth=0.8, linestyle=":")
        ax.axhline(0.5, color="grey", linewidth=0.8)
        ax.axvline(0.5, color="grey", linewidth=0.8)
        ax.set(xlim=(0.3, 1), ylim=(0.1, 0.9))
        ax.set_xlabel(r"AUC at equal pT: QCD models find $t\bar{t}$")
        ax.set_ylabel(r"AUC at equal pT: $t\bar{t}$ models find QCD")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def contamination(found: Found, path: Path) -> None:
    """Draw the AUC against the fraction of signal in the training sample."""
    fractions = sorted({row["fraction"] for row in found["rows"] if "fraction" in row})
    looks = {"AE 10-10-6": COLORS[0], "AE 32-32-6": COLORS[1], "IsolationForest": "black"}
    with canvas(path, 1, 2, (5.4, 4.2)) as axes:
        for ax, name in zip(axes[0], NAMES, strict=True):
            for label, color in looks.items():
                for key, style in (("auc", "-"), ("matched", "--")):
                    rows = [chosen(found["rows"], trained=name, score=label, fraction=f)[0] for f in fractions]
                    look = {"color": color, "marker": "o", "markersize": 4, "capsize": 2, "linestyle": style}
                    look |= {"markerfacecolor": color, "label": label} if key == "auc" else {"markerfacecolor": "white"}
                    ax.errorbar(range(len(fractions)), *numbers(rows, key), **look)
            row = chosen(found["rows"], trained=name, score="multiplicity")[0]
            ax.axhline(row["auc"]["value"], color="grey", linewidth=1, linestyle="-.", label="multiplicity")
            ax.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
            ax.set_xticks(range(len(fractions)), [f"{100 * f:g}" for f in fractions])
            ax.minorticks_off()
            ax.set(ylim=(0.1, 0.9))
            ax.set_xlabel("SVJ jets in the training sample, %")
            ax.set_ylabel("AUC for SVJ (open: at equal pT)")
            ax.set_title(f"{NAMES[name]} and SVJ", loc="left")
        axes[0, 0].legend(loc="lower left")


def draw(found: dict[str, Found], folder: Path) -> None:
    """Draw what there are numbers for."""
    if "a" in found:
        components(found["a"], folder / "autoencoders_components.png")
    if {"b", "c"} <= set(found):
        scores(found, folder / "autoencoders_scores.png")
    if "b" in found:
        directions(found, folder / "autoencoders_directions.png")
    if "d" in found:
        contamination(found["d"], folder / "autoencoders_contamination.png")
