"""Operators survive a file."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
import torch

from curvlab.errors import CheckpointError
from curvlab.operators.eigenbasis import Eigenbasis
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.pack import pack, unpack
from curvlab.operators.product import product
from curvlab.operators.woodbury import Woodbury, WoodburyInverse

OPERATORS = [
    Kronecker((Dense(torch.eye(3)), Diagonal(torch.rand(2)), Kronecker((Dense(torch.rand(2, 2)),)))),
    GroupedKronecker((Grouped(torch.rand(2, 3, 3)), Grouped(torch.rand(2, 2, 2)))),
    LowRank(torch.rand(2, 5), 0.5),
    Eigenbasis((torch.rand(1, 3, 3), None), torch.rand(1, 3, 2)),
    Woodbury(torch.rand(2, 5), 0.5, 0.1),
    WoodburyInverse(torch.rand(2, 5), torch.rand(2, 2), torch.tensor(0.1)),
]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)
def test_a_file_of_plain_data_gives_the_same_operator(operator: Operator) -> None:
    file = io.BytesIO()
    torch.save(pack(operator), file)
    file.seek(0)
    found = unpack(torch.load(file, weights_only=True))
    assert type(found) is type(operator)
    x = torch.randn(operator.size)
    assert torch.equal(product(found, x), product(operator, x))


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(CheckpointError, match="'Dance' that cannot be made: known are"):
        unpack({"operator": "Dance"})
    with pytest.raises(CheckpointError, match="'Dense' that cannot be made"):
        unpack({"operator": "Dense", "matrices": torch.eye(2)})
    with pytest.raises(CheckpointError, match="at least one factor"):
        unpack({"operator": "Kronecker", "factors": []})


def test_fields_that_are_no_plain_data_are_refused() -> None:
    @dataclass(frozen=True)
    class Named(Operator):
        name: str
        size = 1

    with pytest.raises(TypeError, match="str is no plain data"):
        pack(Named("one"))
