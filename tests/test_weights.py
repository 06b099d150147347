from __future__ import annotations

import numpy as np
import pytest
from toys import open_events

from coffea_ad import weights
from coffea_ad.errors import ConfigError


def test_splitmix64_gives_the_published_sequence():
    """The first outputs of the reference implementation for seed 1234567."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + k * golden) % 2**64 for k in range(5)], np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert weights.splitmix64(states).tolist() == expected


def test_the_event_hash_is_uniform_and_its_salts_are_independent():
    event = np.arange(20_000)
    one, two = (weights.event_uniform(salt, np.ones_like(event), event // 100, event) for salt in ("train", "folds"))
    for u in (one, two):
        counts = np.histogram(u, 20, (0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 50  # χ² with 19 degrees of freedom
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03


def test_the_event_hash_depends_on_nothing_but_the_event_ids():
    ids = (np.array([1, 2, 3], np.uint32), np.array([4, 5, 6], np.uint32), np.array([7, 8, 9], np.uint64))
    together = weights.event_uniform("train", *ids)
    apart = [weights.event_uniform("train", *(np.array([int(a[i])]) for a in ids))[0] for i in range(3)]
    assert together.tolist() == apart
    assert len(set(together.tolist())) == 3


def test_data_and_simulation_are_told_apart(svj, svj_file):
    assert weights.is_mc(svj)
    as_data = open_events(svj_file, metadata={"isMC": False})
    assert not weights.is_mc(as_data)
    assert (weights.generator_weight(as_data) == 1).all()


def test_normalisation():
    mc = {"is_mc": True, "xsec": 3.0}
    assert weights.normalisation("x", mc, 600.0, 2.0) == pytest.approx(10.0)
    assert weights.normalisation("x", {"isMC": False}, 600.0, 2.0) == 1.0
    assert weights.normalisation("x", {"is_mc": True, "cross_section": 3.0}, 600.0, 2.0) == pytest.approx(10.0)
    with pytest.raises(ConfigError, match="dataset x: the metadata gives no xsec"):
        weights.normalisation("x", {"is_mc": True}, 600.0, 2.0)
