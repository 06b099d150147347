"""Simulate and skim what the physics benchmarks use: jets of QCD, tt̄ and semivisible jets, and whole events.

.venv/bin/python benchmarks/samples.py [--scale 1.0] [-o build/physics]

Four sets of files that share no event: `train` (backgrounds: training and validation rows), `dev` (backgrounds and two
signal points, for choices while recipes are designed) and `eval` (backgrounds and four other signal points: no setting is
chosen with them); `fresh` is like `eval`, to be looked at once. About 25 minutes on two cores; what is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from coffea_ad.running import run
from coffea_ad.simulation import simulate

BACKGROUNDS = {"qcd": ("qcd", {"pthat_min": 300.0}), "ttbar": ("ttbar_boosted", {})}
DEV_SIGNALS = {
    "svj_2500_02": ("svj", {"m_zprime": 2500.0, "r_inv": 0.2}),
    "svj_t_1500_05": ("svj_t", {"m_phi": 1500.0, "r_inv": 0.5}),
}
EVAL_SIGNALS = {
    "svj_1500_03": ("svj", {"m_zprime": 1500.0, "r_inv": 0.3}),
    "svj_2000_05": ("svj", {"m_zprime": 2000.0, "r_inv": 0.5}),
    "svj_3000_07": ("svj", {"m_zprime": 3000.0, "r_inv": 0.7}),
    "svj_t_2000_03": ("svj_t", {"m_phi": 2000.0, "r_inv": 0.3}),
}
SETS = {
    "dev": (30_000, {**{k: (v, 8_000) for k, v in BACKGROUNDS.items()}, **{k: (v, 2_500) for k, v in DEV_SIGNALS.items()}}),
    "train": (10_000, {"qcd": (BACKGROUNDS["qcd"], 45_000), "ttbar": (BACKGROUNDS["ttbar"], 45_000)}),
    "eval": (
        20_000,
        {**{k: (v, 16_000) for k, v in BACKGROUNDS.items()}, **{k: (v, 5_000) for k, v in EVAL_SIGNALS.items()}},
    ),
    "fresh": (
        40_000,
        {**{k: (v, 9_000) for k, v in BACKGROUNDS.items()}, **{k: (v, 2_500) for k, v in EVAL_SIGNALS.items()}},
    ),
}  # fmt: skip
_STEP = 15_000  # events of one file


def samples(folder: Path, scale: float) -> None:
    for name, (seed, datasets) in SETS.items():
        fileset = {}
        for i, (dataset, ((process, parameters), n)) in enumerate(datasets.items()):
            total, files, xsec = max(int(n * scale), 200), {}, 1.0
            for k, start in enumerate(range(0, total, _STEP)):
                path = folder / "samples" / name / f"{dataset}_{k}.root"
                record_of = path.with_suffix(".json")
                if not record_of.exists():
                    record = simulate(
                        process, min(_STEP, total - start), path, seed=seed + 100 * i + k, parameters=parameters
                    )
                    record_of.write_text(json.dumps(record))
                if not process.startswith("svj"):
                    xsec = json.loads(record_of.read_text())["cross_section"]
                files[str(path.resolve())] = "Events"
            fileset[dataset] = {"files": files, "metadata": {"is_mc": True, "xsec": xsec, "year": "2018"}}
        (folder / f"{name}.json").write_text(json.dumps(fileset, indent=1))
        if not (folder / "skims" / name / "manifest.json").exists():
            run(fileset, "skim_jets", executor="futures", workers=2, chunksize=4000, output=folder / "skims" / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/physics"))
    args = parser.parse_args()
    samples(args.output, args.scale)


if __name__ == "__main__":
    main()
