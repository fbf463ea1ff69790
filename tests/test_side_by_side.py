"""Pieces of work that threads take side by side: the same results, in order, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import torch

from sg3 import sampling
from sg3.metrics.equivariance_psnr import equivariance
from sg3.metrics.features import generated_statistics
from sg3.metrics.names import parse
from sg3.metrics.progress import Progress
from sg3.metrics.samples import Samples, random_labels
from sg3.metrics.statistics import StatisticsSpec
from sg3.models import fastgan, stylegan2, stylegan3
from sg3.processes import World
from sg3.sampling import generate, pieces_of, seed_latents
from sg3.side_by_side import MANY, NAME, side_by_side
from sg3.tools.video import frame_times, make_keyframes, make_walk, render

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    assert not [thread for thread in threading.enumerate() if thread.name == NAME]


def small(family: str, side: int = 16) -> stylegan2.Generator | stylegan3.Generator | fastgan.Generator:
    torch.manual_seed(0)
    if family == "fastgan":
        return fastgan.Generator(z_dim=16, c_dim=0, img_resolution=side, ngf=8).eval().requires_grad_(False)
    module = {"stylegan2": stylegan2, "stylegan3": stylegan3}[family]
    G = module.Generator(
        z_dim=16, c_dim=0, w_dim=16, img_resolution=side, img_channels=3, channel_base=256, channel_max=16
    )  # fmt: skip
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    return G.eval().requires_grad_(False)


def test_results_come_in_order_from_threads_of_their_own() -> None:
    torch.set_num_threads(2)
    both = threading.Barrier(2)

    def work(item: int) -> tuple[int, str, int, bool]:
        both.wait(30)  # two are at work at a time
        time.sleep(0.01 * (item % 2 == 0))
        return item, threading.current_thread().name, torch.get_num_threads(), torch.is_grad_enabled()

    assert list(side_by_side(work, iter(range(10)), 10, CPU, MANY)) == [(i, NAME, 1, False) for i in range(10)]
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()


def test_threads_are_shared_out_where_memory_holds_fewer_pieces() -> None:
    torch.set_num_threads(4)
    assert set(side_by_side(lambda _: torch.get_num_threads(), range(8), 8, CPU, 2)) == {2}
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("number", "count", "most", "device"),
    [(1, 8, MANY, "cpu"), (2, 8, 1, "cpu"), (2, 8, 0, "cpu"), (2, 9, MANY, "cpu"), (4, 2, MANY, "cpu"),
     (2, 1, MANY, "cpu"), (2, 8, MANY, "meta")],
)  # fmt: skip
def test_in_turn_where_threads_would_be_idle(number: int, count: int, most: int, device: str) -> None:
    """Or where there is one, or no CPU."""
    torch.set_num_threads(number)
    found = list(side_by_side(lambda i: (i, threading.get_ident(), torch.is_grad_enabled()), range(count), count,
                              torch.device(device), most))  # fmt: skip
    assert found == [(i, threading.get_ident(), False) for i in range(count)]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("count", [0, 21])
def test_any_number_of_pieces(count: int) -> None:
    torch.set_num_threads(2)
    assert list(side_by_side(lambda i: i * i, range(count), count, CPU, MANY)) == [i * i for i in range(count)]


def test_no_more_pieces_are_begun_than_are_waited_for() -> None:
    torch.set_num_threads(2)
    begun: list[int] = []
    with closing(side_by_side(begun.append, range(20), 20, CPU, MANY)) as results:
        next(results)
        time.sleep(0.2)
        assert len(begun) == 3


def test_an_error_is_raised_in_its_place() -> None:
    torch.set_num_threads(2)
    with closing(side_by_side(lambda i: 60 // (4 - i), range(20), 20, CPU, MANY)) as results:
        assert [next(results) for _ in range(4)] == [15, 20, 30, 60]
        with pytest.raises(ZeroDivisionError):
            next(results)


@pytest.mark.parametrize("how", ["closed", "interrupted"])
def test_what_is_at_work_ends_when_nobody_wants_it(how: str) -> None:
    torch.set_num_threads(2)
    at_work = threading.Barrier(3)

    def work(item: int) -> int:
        if item > 0:
            at_work.wait(30)
            while True:
                time.sleep(0.01)
        return item

    began = time.monotonic()
    results = side_by_side(work, range(20), 20, CPU, MANY)
    with closing(results):
        assert next(results) == 0
        at_work.wait(30)
        if how == "interrupted":
            threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                next(results)
    assert time.monotonic() - began < 20


def test_a_process_ends_that_has_not_asked_for_all_results() -> None:
    script = """
import torch
from sg3.side_by_side import side_by_side
torch.set_num_threads(2)
x = torch.rand(300, 300)
results = side_by_side(lambda i: [x @ x for _ in range(50)] and i, range(1000), 1000, torch.device("cpu"), 2)
print(next(results), next(results))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1\n", "")


@pytest.mark.parametrize(
    ("family", "side", "largest"),
    [("stylegan2", 16, 64), ("stylegan3", 16, 64), ("fastgan", 32, 64), ("stylegan2", 16, 1), ("stylegan3", 16, 1)],
)
def test_pictures_do_not_depend_on_the_number_of_threads(
    family: str, side: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in batches nor, as of larger networks, one by one."""
    monkeypatch.setattr(sampling, "SMALL_IMAGE", largest**2)
    G = small(family, side)
    assert pieces_of(G, 4, CPU) == ((4, MANY) if largest > 1 else (1, 4))
    assert pieces_of(G, 4, torch.device("meta")) == (4, MANY)
    z, c = seed_latents(range(16), G.z_dim), torch.zeros(16, 0)

    def made(threads: int) -> np.ndarray:
        torch.set_num_threads(threads)
        return np.stack(list(generate(G, z, c, batch=4)))

    assert np.array_equal(made(1), made(2))
    assert np.array_equal(made(1), made(4))


def test_nor_do_frames() -> None:
    G = small("stylegan2")
    walk = make_walk(G, make_keyframes(G, "z", seed_latents(range(4), G.z_dim), tiles=2), 2)

    def made(threads: int) -> np.ndarray:
        torch.set_num_threads(threads)
        return np.stack(list(render(G, walk, frame_times(2, 4, loop=True), (2, 1), batch=4)))

    assert np.array_equal(made(1), made(2))


class Bright:
    """A detector without weights: the mean of each channel and row."""

    name, sha256, dim, resize = "bright", "", 48, None
    device = CPU

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=3).flatten(1)


@pytest.mark.parametrize(("family", "largest"), [("stylegan2", 64), ("stylegan3", 64), ("stylegan3", 1)])
def test_nor_do_statistics(family: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer noise included, to the last bit, whichever thread is first."""
    monkeypatch.setattr(sampling, "SMALL_IMAGE", largest**2)
    G = small(family)
    specs = {StatisticsSpec("bright", "moments", False, 90), StatisticsSpec("bright", "features", False, 75)}

    def made(threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        samples = Samples(G, random_labels(G, None, 0), seed=0, batch=8)
        told: list[int] = []
        progress = Progress(lambda _what, done, _total: told.append(done))
        found = generated_statistics(specs, samples, {"bright": Bright()}, World(0, 1, CPU), progress, "images")
        assert told == list(range(13))
        moments, features = (found[spec] for spec in sorted(specs, key=lambda spec: spec.kind, reverse=True))
        return [moments.total, moments.outer, features]

    for one, other in zip(made(1), made(3), strict=True):
        assert torch.equal(one, other)


def test_nor_does_equivariance() -> None:
    G = small("stylegan3")
    before = G.synthesis.input.transform.clone()

    def found(threads: int) -> object:
        torch.set_num_threads(threads)
        metrics = [parse("eqt16_int"), parse("eqr14")]
        values = equivariance(metrics, G, random_labels(G, None, 0), 0, World(0, 1, CPU), Progress()).values
        G.synthesis.input.transform.copy_(before)
        return values

    assert found(1) == found(2)
