"""Real time on a CPU: latency of one row, throughput, size and quality of AE-size models, in float32 and in int8.

    OMP_NUM_THREADS=1 python benchmarks/real_time.py --skim build/physics/skims/dev --background ttbar
    OMP_NUM_THREADS=1 python benchmarks/real_time.py            toys only; some minutes

All sessions live in one process with one thread each and take turns, round by round, so that what else the machine does
meets all of them; "±" is half the range of the middle two thirds of the rounds' medians. Models of eight inputs are
trained on the skim, if there is one; those of 57 and 1287 inputs always on toys: the latency does not depend on it, the
AUC does.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime import quantization as ortq

from coffea_ad import nn
from coffea_ad.evaluation import auc
from coffea_ad.features.spec import ColumnSpec, FeatureSpec
from coffea_ad.modelfiles.int8 import bare, dense_layers, int8_network
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.files import skim_files
from coffea_ad.skims.skim import Skim

JETS = "jet_substructure"


@dataclass
class Entry:
    """A session that takes part, with what was measured."""

    model: str
    what: str
    data: bytes
    x: np.ndarray
    macs: int
    auc: str = ""
    times: list[np.ndarray] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    def open(self) -> Entry:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.call = lambda rows: self.session.run(None, {self.input: rows})[0]
        return self

    def turn(self, calls: int) -> None:
        """Time calls with one row each, and five with 1024 rows."""
        rows = [self.x[i : i + 1] for i in range(256)]
        for row in rows[:100]:
            self.call(row)
        taken = np.empty(calls)
        for i in range(calls):
            row = rows[i % 256]
            start = time.perf_counter_ns()
            self.call(row)
            taken[i] = time.perf_counter_ns() - start
        self.times.append(taken / 1e3)
        block = np.resize(self.x, (1024, *self.x.shape[1:]))
        took = []
        for _ in range(5):
            start = time.perf_counter_ns()
            self.call(block)
            took.append(time.perf_counter_ns() - start)
        self.batches.append(1024 / np.median(took) * 1e6)

    def row(self) -> list[str]:
        medians = np.array([np.median(t) for t in self.times])
        low, high = np.quantile(medians, [1 / 6, 5 / 6])
        q50, q95, q99 = np.quantile(np.concatenate(self.times), [0.5, 0.95, 0.99])
        return [
            self.model, self.what, f"{self.macs}", f"{q50:.1f} ± {(high - low) / 2:.1f}", f"{q95:.1f}", f"{q99:.1f}",
            f"{np.median(self.batches):.0f}", f"{len(self.data) / 1000:.0f}", self.auc,
        ]  # fmt: skip


def toy_skim(columns: int, seed: int, n: int, *, sparse: bool = False, scrambled: bool = False) -> Skim:
    """Columns on a curved surface of a few dimensions; `scrambled`: further out, every fourth by itself."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    t = rng.normal(size=(n, 6)) * (1.5 if scrambled else 1.0)
    x = np.tanh(t @ fixed.normal(size=(6, columns)) / 2) + rng.normal(0, 0.1, (n, columns))
    if scrambled:
        for j in range(0, columns, 4):
            x[:, j] = x[rng.permutation(n), j]
    if sparse:
        x = np.maximum(x - fixed.uniform(0.3, 1.0, columns), 0)
    spec = FeatureSpec(
        name="toy" if columns != 8 else JETS, version=1, columns=[ColumnSpec(name=f"x{j}") for j in range(columns)]
    )
    split = rng.choice(["train", "validation", "test"], n, p=[0.5, 0.25, 0.25])
    provenance = {"files": {}, "flavours": [], "selection": {}, "n_effective": float(n)}
    return Skim(x.astype(np.float32), np.ones(n), np.full(n, "toy"), split, {}, spec, provenance)


def file_of(model: nn.Model, data: Skim, folder: Path) -> bytes:
    """Export a model with a card; a toy feature stands in for one of the table."""
    known = data.feature.model_copy(update={"name": JETS})
    held = data.splits("validation")
    named = Skim(data.x, data.weight, data.dataset, data.split, data.spectators, known, data.provenance)
    card = nn.make_card(model, named, name="model", config={}, metrics={})
    return nn.export(model, folder / "model.onnx", card, held.x[:500]).read_bytes()


def quality(pairs, n_bootstrap: int = 30, seed: int = 1) -> tuple[float, float, float]:
    """Return both AUC and the paired bootstrap error of their difference, of ((b, s) before, (b, s) after)."""

    def both(i, j):
        return [auc(b[i], s[j], n_bootstrap=0).value for b, s in pairs]

    rng = np.random.default_rng(seed)
    n, m = len(pairs[0][0]), len(pairs[0][1])
    first, second = both(np.arange(n), np.arange(m))
    drawn = [np.subtract(*both(rng.integers(0, n, n), rng.integers(0, m, m))) for _ in range(n_bootstrap)]
    return first, second, float(np.std(drawn, ddof=1))


def without_transform(model: nn.Model, data: Skim) -> tuple[nn.Model, Skim]:
    """Return the same network on rows that were transformed before."""
    bare_model = copy.deepcopy(model)
    with torch.no_grad():
        z = model.transform(torch.from_numpy(data.x)).numpy()
    bare_model.transform = nn.Unchanged(z.shape[1])
    return bare_model, Skim(z, data.weight, data.dataset, data.split, data.spectators, data.feature, data.provenance)


def compare(label, model, data, signals, folder, *, seed, epochs, samples=8192):
    """Train; return the sessions of a model, with and without its transform, in float32 and in int8."""
    print(f"train {label}", flush=True)
    torch.manual_seed(seed)
    made = model()
    nn.fit(made, data, nn.TrainConfig(epochs=epochs, samples_per_epoch=samples, seed=seed, device="cpu"))
    entries = []
    forms = [("transform in the graph", made, data)]
    if not isinstance(made.transform, nn.Unchanged):
        forms.append(("without transform", *without_transform(made, data)))
    for what, form, rows in forms:
        float32 = file_of(form, rows, folder)
        int8 = int8_network(float32, rows.splits("train").x[:4096])
        layers, arrays = dense_layers(bare(float32)), {t.name: t for t in bare(float32).graph.initializer}
        macs = sum(math.prod(arrays[n.input[1]].dims) for n in layers)
        # Without its card, so that sizes compare; the card takes as much in both.
        pair = [
            Entry(label, f"{what}, {name}", d, rows.x, macs).open()
            for name, d in (("float32", bare(float32).SerializeToString()), ("int8", int8))
        ]
        if form is made:
            held = rows.splits("validation", "test").x
            scores = {e.what: e.call(held).reshape(-1) for e in pair}
            found = []
            for name, x in signals.items():
                first, second, error = quality([(scores[e.what], e.call(x).reshape(-1)) for e in pair])
                found.append(f"{name} {first:.3f} → {second:.3f} ({second - first:+.4f} ± {error:.4f})")
            rank = [np.argsort(np.argsort(scores[e.what])) for e in pair]
            pair[1].auc = "; ".join(found) + f"; ρ {np.corrcoef(*rank)[0, 1]:.4f}"
        entries += pair
    return made, entries


def dynamic(entry: Entry) -> str:
    """Quantise with ranges taken from each batch, and see how far a row's score depends on its neighbours."""
    proto = onnx.load_from_string(entry.data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dynamic.onnx"
        onnx.helper.set_model_props(proto, {"onnx.quant.pre_process": "onnxruntime.quant"})
        ortq.quantize_dynamic(proto, path, op_types_to_quantize=["Gemm", "MatMul"], per_channel=True)
        other = Entry(entry.model, "dynamic", path.read_bytes(), entry.x, entry.macs).open()
    x = entry.x[:1000]
    alone, together = np.concatenate([other.call(r[None]).reshape(-1) for r in x]), other.call(x).reshape(-1)
    for _ in range(3):
        other.turn(2000)
    moved = np.abs(alone - together) / np.maximum(np.abs(alone), 1e-6)
    return (
        f"{entry.model}, dynamic ranges: {np.median(np.concatenate(other.times)):.1f} µs; with 999 others beside it, a "
        f"row's score moves by {np.median(moved):.1%} (median) and {np.max(moved):.0%} (largest)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skim", help="of jet_substructure, for the models of eight inputs")
    parser.add_argument("--background", nargs="+", default=("ttbar",))
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20, help="0: only what int8 loses")
    parser.add_argument("--calls", type=int, default=1000, help="with one row, per round")
    parser.add_argument("--epochs", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.skim:
        jets = nn.load_skim(args.skim, JETS, datasets=args.background, weights="none")
        others = [d for d in skim_files(args.skim) if d.startswith("svj")]
        signals = {d: nn.load_skim(args.skim, JETS, datasets=[d], weights="none").x for d in others}
    else:
        jets, signals = toy_skim(8, 1, 20_000), {"toy": toy_skim(8, 2, 5000, scrambled=True).x}
    objects, odd_objects = toy_skim(57, 1, 20_000), {"toy": toy_skim(57, 2, 5000, scrambled=True).x}
    matrix = toy_skim(1287, 1, 6000, sparse=True)
    odd_matrix = {"toy": toy_skim(1287, 2, 2000, sparse=True, scrambled=True).x}

    q8, q57 = (lambda: nn.QuantileNormal(8)), (lambda: nn.QuantileNormal(57))
    jobs = [
        ("AE 8-10-10-6", lambda: nn.AE(8, transform=q8()), jets, signals, {"epochs": args.epochs}),
        ("WNAE 8-10-10-6", lambda: nn.WNAE(8, transform=q8()), jets, signals, {"epochs": args.epochs}),
        ("Deep SVDD 8-64-32-8", lambda: nn.DeepSVDD(8, transform=q8()), jets, signals, {"epochs": args.epochs}),
        ("VAE 57-32-16-3, score μ²", lambda: nn.VAE(57, hidden=(32, 16), latent=3, transform=q57(), score="mu2"),
         objects, odd_objects, {"epochs": args.epochs}),
        ("AE 57-32-16-3", lambda: nn.AE(57, hidden=(32, 16), latent=3, transform=q57()), objects, odd_objects, {"epochs": args.epochs}),
        ("AE 57-28-15-8", lambda: nn.AE(57, hidden=(28, 15), latent=8, transform=q57()), objects, odd_objects, {"epochs": args.epochs}),
        ("AE 1287-800-400-200", lambda: nn.AE(1287, hidden=(800, 400), latent=200, transform=nn.Unchanged(1287)),
         matrix, odd_matrix, {"epochs": 5, "samples": 4096}),
    ]  # fmt: skip
    entries, lines = [floor()], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, make, data, odd, training in (job for job in jobs if args.only in job[0]):
            made, more = compare(label, make, data, odd, folder, seed=args.seed, **training)
            entries += more
            if label.startswith("VAE"):
                entries += folded(more[0], made, data, folder)
            if label.startswith("AE 8"):
                lines.append(dynamic(more[2]))  # without the transform, which must not be quantised
                entries.append(scorer(file_of(made, data, folder), more[0]))
            elif label.startswith("AE 1287"):
                lines.append(dynamic(more[0]))
    order = np.random.default_rng(1)
    if not args.rounds:
        print("\n".join(f"{e.model}: {e.auc}" for e in entries if e.auc))
        return
    print("measure", flush=True)
    for _ in range(args.rounds):
        for i in order.permutation(len(entries)):
            entries[i].turn(args.calls)
    columns = ["model", "graph", "MACs", "1 row, µs", "95 %", "99 %", "1024 rows, rows/ms", "kB", "AUC, float32 → int8"]
    print("\n| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for entry in entries:
        print("| " + " | ".join(entry.row()) + " |")
    by_name = {(e.model, e.what): e for e in entries}
    for (model, what), entry in by_name.items():
        if what.endswith("int8"):
            before = by_name[model, what.replace("int8", "float32")]
            ratios = [np.median(b) / np.median(a) for a, b in zip(entry.times, before.times, strict=True)]
            blocks = [a / b for a, b in zip(entry.batches, before.batches, strict=True)]
            spread = [np.subtract(*np.quantile(r, [5 / 6, 1 / 6])) / 2 for r in (ratios, blocks)]
            lines.append(
                f"{model}, {what.removesuffix(', int8')}: int8 is {np.median(ratios):.2f} ± {spread[0]:.2f} times as fast as "
                f"float32 with one row, {np.median(blocks):.2f} ± {spread[1]:.2f} with 1024"
            )
    print("\n" + "\n".join(f"- {line}" for line in lines))
    print(f"\nonnxruntime {ort.__version__}, torch {torch.__version__}, {args.rounds} rounds of {args.calls} calls")


def floor() -> Entry:
    """A graph that does nothing: what a call from Python costs by itself."""
    value = [onnx.helper.make_tensor_value_info(n, 1, ["rows", 8]) for n in ("features", "score")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["features"], ["score"])], "floor", value[:1], value[1:]
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return Entry("none: the call itself", "", proto.SerializeToString(), np.zeros((1024, 8), np.float32), 0).open()


def scorer(data: bytes, like: Entry) -> Entry:
    """Time a model through OnnxScorer, checks of the input included."""
    entry = Entry(like.model, "through OnnxScorer, float32", data, like.x, like.macs)
    entry.call = OnnxScorer(data)
    return entry


def folded(like: Entry, made: nn.Model, data: Skim, folder: Path) -> list[Entry]:
    """Standardise instead, in the graph and folded into the first layer; the weights are those of the other transform."""
    model = copy.deepcopy(made)
    model.transform = nn.Standard(data.x.shape[1]).fit(data.x, data.weight)
    plain = file_of(model, data, folder)
    forms = (
        ("standardised in the graph, float32", plain),
        ("standardisation folded in, float32", nn.fuse_linear(plain)),
    )
    return [Entry(like.model, what, bare(d).SerializeToString(), data.x, like.macs).open() for what, d in forms]


if __name__ == "__main__":
    main()
