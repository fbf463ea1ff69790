"""`sg3 dataset` makes exactly those sizes that some system can be trained on."""

from __future__ import annotations

import pytest

from sg3 import limits
from sg3.data.transforms import SMALLEST, ImagePlan, is_trainable_size
from sg3.errors import DataError, UsageError
from sg3.train.recipes import RECIPES, options_of, resolve
from tests.helpers.runs import facts


def takes(cfg: str, side: int) -> bool:
    try:
        resolve(options_of({"cfg": cfg, "data": "x.zip"}), facts(resolution=side))
    except DataError:
        return False
    except UsageError:  # with other options than the defaults
        return True
    return True


@pytest.mark.parametrize("side", [1, 2, 4, 6, 8, 12, 16, 18, 24, 32, 36, 200, 256, 300, 1024, 4096, 8192, 16384, 65536,
                                  12288])
def test_datasets_and_systems_agree(side: int) -> None:
    cfgs = [cfg for recipe in RECIPES for cfg in recipe.cfgs if takes(cfg, side)]
    assert is_trainable_size((side, side)) == bool(cfgs)
    assert (cfgs == ["r3gan"]) == (side == SMALLEST), "the note of sg3 dataset says so"
    if cfgs:
        assert ImagePlan(resolution=(side, side)).resolution == (side, side)
    else:
        with pytest.raises(UsageError, match=f"powers of two from {SMALLEST} to {limits.RESOLUTION}"):
            ImagePlan(resolution=(side, side))
