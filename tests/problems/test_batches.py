"""Batches: each example once an epoch, in an order that seed and epoch decide."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from curvlab.data.dataset import Dataset
from curvlab.errors import DataError
from curvlab.problems.batches import batches, permutation

DATA = Dataset("rows", torch.arange(20.0).reshape(10, 2), torch.arange(10), "ten rows")


def order(epoch, seed, size=3, last="keep"):
    return [y.tolist() for _, y in batches(DATA, size, epoch, seed, last=last)]


def test_each_example_comes_once_with_its_target():
    for x, y in batches(DATA, 4, 2, 1, last="keep"):
        assert torch.equal(x[:, 0], 2.0 * y)
    assert sorted(chain(*order(2, 1))) == list(range(10))


def test_a_last_partial_batch_is_kept_or_dropped():
    kept, dropped = order(0, 0), order(0, 0, last="drop")
    assert [len(batch) for batch in kept] == [3, 3, 3, 1]
    assert dropped == kept[:3]
    assert len(order(0, 0, 5, "drop")) == len(order(0, 0, 5, "keep")) == 2
    assert [len(batch) for batch in order(0, 0, 50)] == [10]


def test_the_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = order(3, 5)
    torch.rand(7)
    assert order(3, 5) == first
    assert list(chain(*order(3, 5, size=2))) == list(chain(*first))


def test_no_two_epochs_of_small_seeds_share_an_order():
    orders = {tuple(permutation(30, epoch, seed).tolist()) for epoch in range(12) for seed in range(12)}
    assert len(orders) == 144


def test_drawing_batches_leaves_other_random_numbers_alone():
    before = torch.get_rng_state()
    order(0, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("size", "last"), [(0, "keep"), (11, "drop")])
def test_sizes_that_give_no_batch_are_refused_at_once(size, last):
    with pytest.raises(DataError, match=f"batches of {size} cannot be made of 10 examples"):
        batches(DATA, size, 0, 0, last=last)


def test_data_without_targets_is_refused():
    with pytest.raises(DataError, match="ten rows has no targets"):
        batches(Dataset("rows", DATA.x, None, "ten rows"), 2, 0, 0, last="keep")
