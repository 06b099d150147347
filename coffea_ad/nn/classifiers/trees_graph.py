"""Decision trees as plain arrays, whichever library grew them, and their ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.modelfiles.ranks import Nodes
from coffea_ad.nn.ensemble import LARGEST_LOG_ODDS
from coffea_ad.typing import Bools, Float32s, Float64s, Ints

__all__ = ["SMALL", "Sums", "Tree", "below", "lightgbm_trees", "scikit_learn_trees", "trees_graph"]

SMALL = np.float32(1e-35)
"""LightGBM's zero: numbers up to this size are one, where zeros are missing."""

_NODES = (
    "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids",
    "nodes_falsenodeids", "nodes_missing_value_tracks_true",
)  # fmt: skip
_TARGETS = ("target_treeids", "target_nodeids", "target_ids", "target_weights")


@dataclass(frozen=True)
class Tree:
    """A decision tree; the root is node 0.

    Attributes
    ----------
    feature : (nodes,) int64
        Column that a node looks at; −1 for a leaf.
    threshold : (nodes,) float64
        A row with x ≤ threshold goes left.
    left, right : (nodes,) int64
    value : (nodes,) float64
        Of leaves.
    missing_left : (nodes,) bool
        Where a missing value goes.
    zero_missing : bool
        |x| ≤ 10⁻³⁵ counts as missing as well.
    """

    feature: Ints
    threshold: Float64s
    left: Ints
    right: Ints
    value: Float64s
    missing_left: Bools
    zero_missing: bool = False


@dataclass(frozen=True)
class Sums:
    """The trees of one member and what is added to the sum of their leaves."""

    trees: Sequence[Tree]
    base: float = 0.0


def lightgbm_trees(dump: Mapping[str, Any], columns: Sequence[int]) -> list[Tree]:
    """Return the trees of a booster of LightGBM.

    LightGBM takes a missing value for 0 where it learnt none ("None"), sends it the default way ("NaN"), or sends zeros that way
    too ("Zero").

    Parameters
    ----------
    dump : mapping
        What `booster.dump_model()` returns.
    columns : sequence of int
        Place of each of the booster's columns in a row of x.

    Raises
    ------
    ConfigError
        A split is by categories, or the leaves hold linear models.

    Examples
    --------
    >>> leaf = [{"leaf_value": -1.0}, {"leaf_value": 1.0}]
    >>> split = {"split_feature": 0, "threshold": 0.5, "decision_type": "<=", "default_left": True, "missing_type": "NaN"}
    >>> (tree,) = lightgbm_trees({"tree_info": [{"tree_structure": {**split, "left_child": leaf[0], "right_child": leaf[1]}}]}, [3])
    >>> tree.feature, tree.value
    (array([ 3, -1, -1]), array([ 0., -1.,  1.]))
    """
    return [_from_structure(info["tree_structure"], columns) for info in dump["tree_info"]]


def _from_structure(root: Mapping[str, Any], columns: Sequence[int]) -> Tree:
    """Return a nested tree as arrays, root first."""
    nodes: list[Mapping[str, Any]] = [root]
    left, right = [], []
    for node in nodes:  # which grows on the way
        split = "split_feature" in node
        left.append(len(nodes) if split else 0)
        right.append(len(nodes) + 1 if split else 0)
        if split:
            if node["decision_type"] != "<=":
                raise ConfigError("trees that split by categories cannot be exported; use columns that are numbers")
            nodes += [node["left_child"], node["right_child"]]
        elif "leaf_coeff" in node:
            raise ConfigError("trees with linear models in their leaves cannot be exported; leave out linear_tree")
    kinds = {node["missing_type"] for node in nodes if "split_feature" in node}
    return Tree(
        feature=np.array([columns[n["split_feature"]] if "split_feature" in n else -1 for n in nodes], np.int64),
        threshold=_around_zero(np.array([n.get("threshold", 0.0) for n in nodes], np.float64)),
        left=np.array(left, np.int64),
        right=np.array(right, np.int64),
        value=np.array([n.get("leaf_value", 0.0) for n in nodes], np.float64),
        missing_left=np.array([_missing_left(n) for n in nodes], bool),
        zero_missing="Zero" in kinds,
    )


def _around_zero(threshold: Float64s) -> Float64s:
    """Move thresholds so that all numbers up to 10⁻³⁵ go where 0 goes: the library takes them for 0 when it reads a row."""
    small = float(SMALL)
    raised = np.where((threshold >= 0) & (threshold < small), small, threshold)
    return np.where((raised < 0) & (raised >= -small), float(np.nextafter(-SMALL, np.float32(-1))), raised)


def _missing_left(node: Mapping[str, Any]) -> bool:
    if "split_feature" not in node:
        return False
    return bool(node["threshold"] >= 0 if node["missing_type"] == "None" else node["default_left"])


def scikit_learn_trees(classifier: Any, columns: Sequence[int] | None = None) -> Sums:
    """Return the trees of a `HistGradientBoostingClassifier` with two classes.

    Parameters
    ----------
    classifier : HistGradientBoostingClassifier
        Fitted.
    columns : sequence of int, optional
        Place of each of its columns in a row of x; the same by default.
    """
    place = np.arange(classifier.n_features_in_) if columns is None else np.asarray(columns, np.int64)
    trees = []
    for (predictor,) in classifier._predictors:  # noqa: SLF001  compared with onnxruntime on export
        nodes = predictor.nodes
        leaf = nodes["is_leaf"].astype(bool)
        trees.append(
            Tree(
                feature=np.where(leaf, -1, place[np.where(leaf, 0, nodes["feature_idx"])]).astype(np.int64),
                threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
                left=nodes["left"].astype(np.int64),
                right=nodes["right"].astype(np.int64),
                value=np.where(leaf, nodes["value"], 0.0),
                missing_left=nodes["missing_go_to_left"].astype(bool),
            )
        )
    return Sums(trees, float(np.ravel(classifier._baseline_prediction)[0]))  # noqa: SLF001


def trees_graph(members: Sequence[Sums], columns: int, output: str, *, undefined: bool = True) -> bytes:
    """Return the ONNX graph of trees, (rows, columns) → (rows,): one TreeEnsembleRegressor with a target for each member.

    With mₖ = base + Σ leaves of member k, the score of one member is m₁, and of several ln Σ σ(mₖ) − ln Σ σ(−mₖ): the log-odds of
    the mean probability.

    Parameters
    ----------
    members : sequence of Sums
    columns : int
        Of a row of x.
    output : str
        Name of the score.
    undefined : bool
        The score is NaN where any column is not finite; otherwise a missing value takes the way that the library gives it.

    Raises
    ------
    ConfigError
        Zeros are missing for some trees only.

    Examples
    --------
    >>> leaf = Tree(np.array([-1]), np.zeros(1), np.zeros(1, int), np.zeros(1, int), np.array([2.0]), np.zeros(1, bool))
    >>> import onnxruntime
    >>> session = onnxruntime.InferenceSession(trees_graph([Sums([leaf], 0.5)], 3, "score"))
    >>> session.run(None, {"features": np.zeros((2, 3), np.float32)})[0]
    array([2.5, 2.5], dtype=float32)
    """
    import onnx
    from onnx import helper, numpy_helper

    add = Nodes()
    trees = _regressor(add, members, _with_missing_zeros(add, members), columns)
    score = add("Squeeze", trees, add.constant([1], np.int64)) if len(members) == 1 else _log_odds(add, trees)
    if undefined:
        nothing = add("Sub", "features", "features")  # NaN where an input is not finite
        score = add("Add", score, add("ReduceSum", nothing, add.constant([1], np.int64), keepdims=0))
    add("Identity", score, output=output)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        add.nodes,
        "trees",
        [value("features", onnx.TensorProto.FLOAT, ["rows", columns])],
        [value(output, onnx.TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(v, k) for k, v in add.constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _with_missing_zeros(add: Nodes, members: Sequence[Sums]) -> str:
    """Replace zeros by NaN where they are missing: trees that learnt of no missing value send both the same way."""
    trees = [tree for member in members for tree in member.trees]
    if not any(tree.zero_missing for tree in trees):
        return "features"
    if any(_learnt_missing(tree) for tree in trees if not tree.zero_missing):
        raise ConfigError("zeros are missing values for some trees and numbers for others; train all with one setting")
    small = add("LessOrEqual", add("Abs", "features"), add.constant(SMALL, np.float32))
    return add("Where", small, add.constant(np.nan, np.float32), "features")


def _learnt_missing(tree: Tree) -> bool:
    """Say whether a tree sends a missing value another way than a zero."""
    split = tree.feature >= 0
    return bool((tree.missing_left != (tree.threshold >= 0))[split].any())


def _log_odds(add: Nodes, trees: str) -> str:
    """Add ln Σ σ(m) − ln Σ σ(−m) over the targets, by one exponential of −|m| that cannot overflow."""
    one, zero = add.constant(1, np.float32), add.constant(0, np.float32)
    m = add("Clip", trees, add.constant(-LARGEST_LOG_ODDS, np.float32), add.constant(LARGEST_LOG_ODDS, np.float32))
    small = add("Exp", add("Neg", add("Abs", m)))
    larger = add("Reciprocal", add("Add", small, one))
    smaller = add("Mul", small, larger)
    positive = add("GreaterOrEqual", m, zero)
    sums = [
        add("ReduceSum", add("Where", positive, *pair), add.constant([1], np.int64), keepdims=0)
        for pair in ((larger, smaller), (smaller, larger))
    ]
    return add("Sub", *(add("Log", s) for s in sums))


def _regressor(add: Nodes, members: Sequence[Sums], features: str, columns: int) -> str:
    """Add the operator: nodes and values of leaves, each in one list."""
    lists: dict[str, Any] = {name: [] for name in (*_NODES, *_TARGETS)}
    number = 0
    for target, member in enumerate(members):
        for tree in member.trees or [_nothing()]:
            if (tree.feature >= columns).any():
                raise ConfigError(f"a tree looks at column {tree.feature.max()}, but rows have {columns}")
            _append(lists, tree, number, target)
            number += 1
    return add(
        "TreeEnsembleRegressor", features, domain="ai.onnx.ml", n_targets=len(members),
        base_values=[float(m.base) for m in members], **lists,
    )  # fmt: skip


def _append(lists: dict[str, Any], tree: Tree, number: int, target: int) -> None:
    n, leaf = len(tree.feature), tree.feature < 0
    lists["nodes_treeids"] += [number] * n
    lists["nodes_nodeids"] += range(n)
    lists["nodes_featureids"] += np.maximum(tree.feature, 0).tolist()
    lists["nodes_values"] += below(tree.threshold).tolist()
    lists["nodes_modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
    lists["nodes_truenodeids"] += np.where(leaf, 0, tree.left).tolist()
    lists["nodes_falsenodeids"] += np.where(leaf, 0, tree.right).tolist()
    lists["nodes_missing_value_tracks_true"] += tree.missing_left.astype(int).tolist()
    lists["target_treeids"] += [number] * int(leaf.sum())
    lists["target_nodeids"] += np.flatnonzero(leaf).tolist()
    lists["target_ids"] += [target] * int(leaf.sum())
    lists["target_weights"] += tree.value[leaf].tolist()


def _nothing() -> Tree:
    """Return a tree that is one leaf of 0, for a member without trees."""
    nil = np.zeros(1, np.int64)
    return Tree(np.array([-1]), np.zeros(1), nil, nil, np.zeros(1), np.zeros(1, bool))


def below(threshold: Float64s) -> Float32s:
    """Return the largest float32 that is not above a threshold: x ≤ t is the same for every x of float32.

    >>> float(below(np.array([0.1]))[0]) < 0.1 < float(np.float32(0.1))
    True
    """
    with np.errstate(over="ignore", under="ignore"):  # at the ends of float32, where infinity is right
        near = threshold.astype(np.float32)
        lower = np.nextafter(near, np.float32(-np.inf))
    return np.where(near > threshold, lower, near).astype(np.float32)
