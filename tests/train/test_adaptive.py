"""ADA's controller: steps, direction, bounds."""

from __future__ import annotations

from math import nan

import pytest

from sg3.errors import UsageError
from sg3.train.adaptive import AdaController


def test_a_step_is_batch_times_interval_over_the_full_range() -> None:
    controller = AdaController(target=0.6, batch=32, ada_kimg=500, interval=4)
    assert controller.update(0.2, 0.9) == pytest.approx(0.2 + 32 * 4 / 500_000, rel=1e-12)
    assert controller.update(0.2, 0.1) == pytest.approx(0.2 - 32 * 4 / 500_000, rel=1e-12)
    assert controller.update(0.2, 0.6) == 0.2  # on target


def test_p_rises_from_0_to_1_in_ada_kimg() -> None:
    controller = AdaController(target=0.6, batch=64, ada_kimg=100)
    p, images = 0.0, 0
    while not controller.capped:
        p = controller.update(p, 1.0)
        images += 64 * 4
    assert images / 1000 == pytest.approx(100, rel=0.01)
    assert p == 1


def test_p_stays_within_0_and_1_and_the_cap_is_remembered() -> None:
    controller = AdaController(target=0.6, batch=100, ada_kimg=1)
    assert controller.update(0.1, -1.0) == 0
    assert not controller.capped
    assert controller.update(0.9, 1.0) == 1
    assert controller.capped
    assert controller.update(1.0, -1.0) == pytest.approx(0.6)
    assert controller.capped
    exactly = AdaController(target=0.6, batch=125, ada_kimg=2)
    assert exactly.update(0.75, 1.0) == 1
    assert exactly.capped


def test_without_a_statistic_p_stays() -> None:
    assert AdaController(target=0.6, batch=4, ada_kimg=1).update(0.3, nan) == 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 1.5}, "target: got 1.5, expected a number in 0..1"),
        ({"target": nan}, "target: got nan"),
        ({"ada_kimg": 0}, "ada_kimg: got 0, expected a number above 0"),
        ({"batch": -1}, "batch: got -1"),
        ({"interval": 0}, "interval: got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AdaController(**{"target": 0.6, "batch": 4, "ada_kimg": 500, **settings})
