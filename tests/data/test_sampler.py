from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.data.sampler import InfiniteSampler, epoch_order, sample_index
from sg3.errors import UsageError


def take(count: int, *args: int, **kwargs: int) -> list[int]:
    return list(islice(InfiniteSampler(*args, **kwargs), count))


def test_every_epoch_is_another_permutation() -> None:
    order = take(30, dataset_size=10, seed=1)
    epochs = [order[:10], order[10:20], order[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_order_depends_on_the_seed_only() -> None:
    assert take(25, dataset_size=10, seed=1) == take(25, dataset_size=10, seed=1)
    assert take(25, dataset_size=10, seed=1) != take(25, dataset_size=10, seed=2)


def test_order_is_frozen() -> None:
    # A change here breaks the exact continuation of runs saved earlier.
    assert epoch_order(0, 8, 0).tolist() == [3, 4, 2, 1, 5, 0, 6, 7]
    assert epoch_order(12345, 8, 7).tolist() == [5, 3, 1, 0, 2, 7, 4, 6]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 20), seed=st.integers(0, 2**64), start=st.integers(0, 100), ranks=st.integers(1, 5))
def test_any_start_and_number_of_ranks_continue_one_order(size: int, seed: int, start: int, ranks: int) -> None:
    whole = take(start + 6 * ranks, size, seed)
    for rank in range(ranks):
        assert take(6, size, seed, start, rank, ranks) == whole[start + rank::ranks]


def test_sample_index_names_one_position() -> None:
    assert [sample_index(3, 7, i) for i in range(20)] == take(20, dataset_size=7, seed=3)


@pytest.mark.parametrize("arguments", [(0, 0), (5, 0, -1), (5, 0, 0, 2, 2), (5, 0, 0, -1, 2)])
def test_impossible_places_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        InfiniteSampler(*arguments)
