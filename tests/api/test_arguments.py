"""What functions of the API are given by mistake: one line that names the argument, and nothing done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.api.checks import names_of, number, seeds_of, whole
from sg3.api.runs import as_words
from sg3.errors import StorageError, UsageError
from tests.helpers.for_tools import saved, tiny2, tiny3

G = tiny3()


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (3, [3]), (np.int64(3), [3]), (np.arange(3), [0, 1, 2]), (torch.tensor([4, 5]), [4, 5]), (range(2), [0, 1]),
        ((i for i in (7, 8)), [7, 8]), ([], []), ([2**32 - 1], [2**32 - 1]),
    ],
)  # fmt: skip
def test_seeds(given: Any, seeds: list[int]) -> None:
    assert seeds_of(given) == seeds


@pytest.mark.parametrize("given", ["0-3", b"ab", 1.5, [1.0], [None], ["a"], -1, [2**32], np.zeros((2, 2), int), {1.5}])
def test_no_seeds(given: Any) -> None:
    with pytest.raises(UsageError, match=r"^seeds=.*: expected a whole number from 0 to 4294967295"):
        seeds_of(given)


def test_numbers_and_names() -> None:
    assert number("trunc", np.float32(0.5)) == number("trunc", torch.tensor(0.5)) == 0.5
    assert whole("batch", np.uint8(4), least=1) == 4
    assert names_of("metrics", ("a", " b ")) == names_of("metrics", "a, b,") == ["a", "b"]
    for wrong in ("1", None, [1], float("nan"), 1e300):
        with pytest.raises(UsageError, match=r"^trunc="):
            number("trunc", wrong)


CALLS: list[tuple[Callable[[Path], object], str]] = [
    (lambda out: sg3.generate(G, [0], trunc="0.7"), r"trunc='0.7': expected a number"),
    (lambda out: sg3.generate(G, [0], batch=0), "batch=0: expected a whole number from 1"),
    (lambda out: sg3.generate(G, [0], noise_mode="foo"), "noise_mode='foo': expected const, random, none"),
    (lambda out: sg3.generate(G, [0], translate=(1,)), r"translate=\(1,\): expected two numbers"),
    (lambda out: sg3.generate(G, [0], rotate="a"), "rotate='a': expected a number"),
    (lambda out: sg3.generate(G, [0], device=None), "--device=None: expected auto"),
    (lambda out: sg3.generate(tiny2(c_dim=3), [0], class_idx="1"), "class_idx='1': expected a whole number"),
    (lambda out: sg3.generate(G.state_dict(), [0]), "network: got OrderedDict, expected a run, a file"),
    (lambda out: sg3.generate(G, latents=np.zeros((1, 8))), "latents=.*: expected a file"),
    (lambda out: sg3.evaluate(G, None), "metrics=None: expected names"),
    (lambda out: sg3.evaluate(G, "fwd8", seed="a"), "seed='a': expected a whole number"),
    (lambda out: sg3.evaluate(G, "fwd8", gpus=0), "gpus=0: expected a whole number from 1"),
    (lambda out: sg3.evaluate(G, "fwd8", workers=-1), "workers=-1: expected a whole number from 0"),
    (lambda out: sg3.evaluate(G, "fwd8", mirror="yes"), "mirror='yes': expected True or False"),
    (lambda out: sg3.evaluate(G, "fwd8", on_result=3), "on_result=3: expected a function"),
    (lambda out: sg3.open_run(None), "path=None: expected a run folder"),
    (lambda out: sg3.load(None), "network: got NoneType, expected a run"),
    (lambda out: sg3.load("x.pkl", device=2.5), "device=2.5: .*expected cpu or cuda"),
    (lambda out: sg3.load("x.pkl", device="gpu"), "device=gpu: .*expected cpu or cuda"),
    (lambda out: sg3.save(G, out / "x.pkl"), r"got Generator, expected a snapshot such as sg3.Snapshot\(G_ema=G\)"),
    (lambda out: sg3.export(G, None), "path=None: expected the name of a file"),
    (lambda out: sg3.export(G, out / "x.pt2", half="no"), "half='no': expected True or False"),
    (lambda out: sg3.push(G, "me/x"), "got Generator, .*save a network in memory first"),
    (lambda out: sg3.push("x.pkl", 3), "repo=3: expected OWNER/NAME"),
    (lambda out: sg3.fit("x.zip", outdir=None), "outdir=None: expected a folder"),
    (lambda out: sg3.fit("x.zip", outdir=out, on_tick=3), "on_tick=3: expected a function"),
    (lambda out: sg3.fit("x.zip", outdir=out, preset=3), "preset=3: expected a name"),
    (lambda out: sg3.fit("x.zip", outdir=out, config=3), "config=3: expected the name of a file"),
    (lambda out: sg3.fit(np.zeros((9, 9)), outdir=out), "^--data=.*: expected text$"),
]


@pytest.mark.parametrize("index", range(len(CALLS)))
def test_a_wrong_argument_is_one_line(tmp_path: Path, index: int) -> None:
    call, why = CALLS[index]
    with pytest.raises(UsageError, match=why) as raised:
        call(tmp_path)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(StorageError, match="File name too long"):
        sg3.load("a" * 5000)


def test_options_as_the_command_line_has_them() -> None:
    said = {"batch": np.int64(3), "gamma": np.float32(2), "mirror": np.bool_(True), "device": torch.device("cpu"),
            "metrics": [], "log_to": ["wandb", "trackio"], "grid": (3, 2), "kimg": None}  # fmt: skip
    words = as_words(said)
    assert words == {"batch": 3, "gamma": 2.0, "mirror": True, "device": "cpu", "metrics": "none",
                     "log_to": "wandb,trackio", "grid": (3, 2)}  # fmt: skip
    assert [type(words[name]) for name in ("batch", "gamma", "mirror")] == [int, float, bool]


def test_pictures_of_numpys_seeds(tmp_path: Path) -> None:
    path = saved(G, tmp_path / "net.safetensors")
    pictures = sg3.generate(path, np.arange(3, 5), device="cpu")
    assert np.array_equal(pictures, sg3.generate(path, [3, 4], device="cpu"))
