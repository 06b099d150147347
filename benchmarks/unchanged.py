"""Are features, skims, networks, scores and histograms the same to the bit as at another commit?

    python benchmarks/unchanged.py --before COMMIT

Both versions make the same chain of the files in tests/data, each in a process of its own with one thread: all features, the skims of
jets and of events, two epochs of every configuration of every training recipe on toy rows, the scores of the shipped models and the
histograms of both searches. Nothing but public names is used. Rows of the table are SHA-256 digests; the exit code is 1 if one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = ("qcd_v15", "svj_v15", "svj_pfnano", "ttbar_v15")
SHORT = ["train.epochs=2", "train.seed=3", "train.samples_per_epoch=1024", "train.validation_rows=400"]
CHAINS = ["long_run=[0,5]", "long_steps=5", "buffer_size=500"]
MORE = {"nae": [*CHAINS, "warmup.epochs=1"], "wnae": CHAINS}


def digest(*arrays) -> str:
    import numpy as np

    out = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
        out.update(f"{array.dtype}{array.shape}".encode() + content)
    return out.hexdigest()


def record(checkout: Path, folder: Path) -> dict[str, str]:
    """Return the digests of one version, which is the one that is imported."""
    import awkward as ak
    import numpy as np
    import onnx
    import pyarrow.parquet as pq
    from coffea.nanoevents import NanoEventsFactory

    import coffea_ad as ad

    sys.path.insert(0, str(checkout / "tests"))
    from toy_skims import toy_rows, write_skim

    out: dict[str, str] = {}
    data = checkout / "tests" / "data"
    fileset = {}
    for i, name in enumerate(FILES):
        path = data / f"{name}.root"
        fileset[name] = {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0 + i}}
        events = NanoEventsFactory.from_root(f"{path}:Events", schemaclass=ad.NanoAODSchema).events()
        for feature in sorted(ad.features.FEATURES):
            try:
                rows = ad.features.compute(feature, events)
            except ad.errors.CoffeaADError as error:
                out[f"feature {feature} of {name}"] = type(error).__name__
            else:
                out[f"feature {feature} of {name}"] = digest(
                    *(b for _, b in sorted(ak.to_buffers(ak.to_packed(rows))[2].items()))
                )
        for model in ("wnae", "ae_stored"):
            try:
                jets = ad.Tagger(data / f"{model}.onnx")(events)
            except ad.errors.CoffeaADError as error:
                out[f"scores of {model} in {name}"] = type(error).__name__
            else:
                columns = [np.asarray(ak.flatten(jets[f])) for f in ("ad_score", "ad_logp", "ad_region")]
                out[f"scores of {model} in {name}"] = digest(*columns)

    names = {r.name for r in ad.recipes.available()}
    loose = ["leading_lepton_pt_min=0"]
    for recipe, overrides in (("skim_jets" if "skim_jets" in names else "skim", []), ("skim_events", loose)):
        ad.run(fileset, recipe, overrides=overrides, executor="iterative", output=folder / recipe)
        for path in sorted((folder / recipe).rglob("*.parquet")):
            table = pq.read_table(path)
            of = path.relative_to(folder / recipe).parts[0]
            out[f"skim of {'jets' if recipe != 'skim_events' else 'events'}, {of}"] = digest(
                *(table[c].combine_chunks().to_numpy(zero_copy_only=False) for c in sorted(table.column_names))
            )
    searches = {"semivisible_jets": (data / "wnae.onnx", []), "rmm_two_body": (None, ["jet_scale=0", *loose])}
    for recipe, (model, overrides) in searches.items():
        target = folder / recipe
        ad.run(fileset, recipe, model=model, overrides=overrides, executor="iterative", output=target, lumi=1.0)
        for dataset, histograms in ad.load_results(target).histograms.items():
            for observable, h in histograms.items():
                edges = [json.dumps(str(axis)) for axis in h.axes]
                view = h.view(flow=True)
                fields = [view[f] for f in view.dtype.names] if view.dtype.names else [view]
                out[f"histogram {observable} of {recipe}, {dataset}"] = digest(np.array(edges), *fields)

    x, rng = toy_rows(4000, seed=2)
    write_skim(folder / "toys", {"toy": {"x": x, "weight": rng.exponential(size=len(x)) + 0.1, "xsec": 1.0}})
    skims = {"jet_substructure": folder / "toys", "rmm": folder / "skim_events"}
    for recipe in ad.recipes.available():
        for configuration in recipe.configurations if recipe.kind == "training" else ():
            text = (checkout / "training" / configuration).read_text()
            feature = next((f for f in skims if f"feature: {f}\n" in text and "source:" not in text), None)
            if feature is None:
                continue
            target = folder / f"{configuration.replace('/', '_')}.onnx"
            words = ["run", recipe.name, "--config", configuration, f"data={skims[feature]}", "-o", str(target), *SHORT]
            train([*words, *MORE.get(recipe.name, [])])
            proto = onnx.load(target)
            card = json.loads({p.key: p.value for p in proto.metadata_props}["coffea_ad.card"])
            del proto.metadata_props[:]
            out[f"network of {configuration}"] = hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
            for part in ("golden", "calibrations", "regions", "quantiles"):
                out[f"{part} of {configuration}"] = hashlib.sha256(json.dumps(card.get(part)).encode()).hexdigest()
    return out


def train(words: list[str]) -> None:
    from coffea_ad.cli.main import main

    code = main(words)
    if code != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {code}")


def recorded(checkout: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "digests.json"
        path = os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        command = [sys.executable, __file__, "--record", str(target), "--checkout", str(checkout)]
        subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return json.loads(target.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="commit, tag or branch to compare with")
    parser.add_argument(
        "--digests", help="JSON of digests to compare with, or to keep with --keep, instead of a commit"
    )
    parser.add_argument("--keep", action="store_true", help="write the digests of this version to --digests")
    parser.add_argument("--record", help=argparse.SUPPRESS)
    parser.add_argument("--checkout", help=argparse.SUPPRESS)
    args = parser.parse_args()
    here = Path(__file__).resolve().parent.parent
    if args.record:
        with tempfile.TemporaryDirectory() as folder:
            Path(args.record).write_text(json.dumps(record(Path(args.checkout), Path(folder)), indent=1))
        return 0
    now = recorded(here)
    if args.keep:
        Path(args.digests).write_text(json.dumps(now, indent=1))
        return 0
    if args.digests:
        before = json.loads(Path(args.digests).read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            other = Path(folder) / "before"
            subprocess.run(
                ["git", "-C", str(here), "worktree", "add", "-q", "--detach", str(other), args.before], check=True
            )
            try:
                (other / "coffea_ad" / "_version.py").write_text((here / "coffea_ad" / "_version.py").read_text())
                before = recorded(other)
            finally:
                subprocess.run(["git", "-C", str(here), "worktree", "remove", "--force", str(other)], check=True)
    different = [k for k in sorted(before.keys() | now.keys()) if before.get(k) != now.get(k)]
    for name in different:
        print(f"{name}: {before.get(name, '–')[:12]} → {now.get(name, '–')[:12]}")
    kinds: dict[str, list[bool]] = {}
    for name in now:
        kinds.setdefault(name.split()[0], []).append(name not in different)
    for kind, same in kinds.items():
        print(f"{kind:12} {sum(same):5} of {len(same)} the same to the bit")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
