"""The first cases of the fuzz session, with its seeds: right results or one sentence, and never another exception."""

from __future__ import annotations

import fuzz
import pytest

FEW = 48
MENDED = {
    "metadata": (40,),
    "card": (1563,),
    "results": (323, 1017, 1182, 1248, 1382),
    "skim": (392, 1133, 1997),
}
"""Later cases that ended otherwise once."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize(("kind", "number"), [*fuzz.cases(FEW), *((k, n) for k, ns in MENDED.items() for n in ns)])
def test_a_mutated_input_ends_in_the_right_result_or_one_sentence(kind, number, root):
    fuzz.run_case(kind, number, root)


def test_cases_are_the_same_in_every_session():
    assert fuzz.cases(FEW) == fuzz.cases(2000)[:FEW]
    assert len({kind for kind, _ in fuzz.cases(FEW)}) > 10
