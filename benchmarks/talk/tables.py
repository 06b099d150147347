"""Markdown tables of the talk's comparisons."""

from __future__ import annotations

from typing import Any

from figures import chosen, pairs

Found = dict[str, Any]
CLASS = {"qcd": "QCD", "ttbar": "tt̄"}
SINGLE = ("multiplicity", "mass", "pT", "pTD (reversed)")
FITTED = ("Mahalanobis (standardised)", "Mahalanobis (quantile-normal)", "IsolationForest")


def shown(row: Found, key: str) -> str:
    """Return a mean ± the spread over seeds, or a value; in brackets the bootstrap error."""
    e = row.get(key)
    if e is None:
        return "—"
    spread = f" ± {e['spread']:.3f}" if e["spread"] is not None else ""
    few = f", N_eff {e['n_effective']}" if e["n_effective"] < 1000 else ""
    return f"{e['value']:.3f}{spread} ({e['error']:.3f}{few})"


def table(head: list[str], body: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def components(found: Found) -> str:
    body = []
    signals = list(dict.fromkeys(r["signal"] for r in found["rows"]))
    for name, title in CLASS.items():
        rows = chosen(found["rows"], trained=name)
        for label in (*SINGLE, *FITTED):
            per = [shown(chosen(rows, score=label, signal=s)[0], key) for s in signals for key in ("auc", "matched")]
            body.append([title, label, "", "", *per])
        for label in ("PCA", "kernel PCA", "AE 10-10", "AE 32-32"):
            for k in sorted({r["components"] for r in rows if "components" in r}):
                error = chosen(found["errors"], trained=name, score=label, components=k)[0]
                these = chosen(rows, score=label, components=k)
                per = [shown(chosen(these, signal=s)[0], key) for s in signals for key in ("auc", "matched")]
                body.append([title, label, str(k), f"{error['unexplained']:.4f} ± {error['spread']:.4f}", *per])
    head = ["trained on", "score", "components", "unexplained"]
    return table([*head, *(f"{s}{t}" for s in signals for t in ("", ", equal pT"))], body)


def directions(found: Found) -> str:
    rows, body = found["rows"], []
    plain, matched = pairs(rows, "auc"), pairs(rows, "matched")
    for label in plain:
        each = [
            shown(chosen(rows, trained=a, signal=b, score=label)[0], key)
            for key in ("auc", "matched")
            for a, b in (("qcd", "ttbar"), ("ttbar", "qcd"))
        ]
        core = [chosen(rows, trained=a, signal="core", score=label) for a in CLASS]
        body.append(
            [
                label,
                *each,
                f"{min(v for v, _ in matched[label]):.3f}",
                *(shown(c[0], "auc") if c else "—" for c in core),
            ]
        )
    head = [
        "score",
        "QCD → tt̄",
        "tt̄ → QCD",
        "QCD → tt̄, equal pT",
        "tt̄ → QCD, equal pT",
        "smaller one",
        "core, QCD",
        "core, tt̄",
    ]
    return table(head, body)


def contamination(found: Found) -> str:
    body = []
    for name, title in CLASS.items():
        for row in chosen(found["rows"], trained=name):
            at = f"{100 * row['fraction']:g}" if "fraction" in row else ""
            body.append([title, row["score"], at, shown(row, "auc"), shown(row, "matched")])
    return table(["trained on", "score", "SVJ in training, %", "AUC", "AUC, equal pT"], body)


def tables(found: dict[str, Found]) -> dict[str, str]:
    """Return the tables of the parts that there are numbers for."""
    makers = {"a": components, "b": directions, "c": directions, "d": contamination, "e": directions}
    return {part: makers[part](found[part]) for part in makers if part in found}
