"""Calls made again by the launch that the first one came to: the same values, and no call that only looks alike."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from sg3.kernels import filtered_lrelu, tuning
from sg3.kernels.filtered_lrelu import marching, tiles
from sg3.kernels.fir import design_lowpass_filter
from sg3.kernels.repeats import Repeats, Start, repeats
from sg3.kernels.triton_launch import launch, noted

MARCHING = {"up": 2, "down": 2, "padding": [9, 8, 9, 8], "gain": 1.3, "slope": 0.2, "clamp": 0.8, "impl": "triton"}
TILES = {**MARCHING, "up": 1, "down": 1, "padding": 1, "fu": None, "fd": None}
POINTWISE = {**TILES, "padding": 0}
FIR = design_lowpass_filter(12, cutoff=9, width=14, fs=64)


@pytest.fixture(autouse=True)
def _none_kept() -> Iterator[None]:
    repeats.forget()
    yield
    repeats.forget()


class Call:
    """Arguments of filtered_lrelu, of a small float16 image unless they are others."""

    def __init__(self, device: str, **arguments: Any) -> None:
        x, b = torch.randn(1, 1, 7, 8, dtype=torch.float16), torch.randn(1, dtype=torch.float16)
        fir = FIR.to(device)
        self.arguments = {"x": x.to(device), "b": b.to(device), "fu": fir, "fd": fir, **MARCHING, **arguments}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.arguments[name]

    def __call__(self, **changed: Any) -> torch.Tensor:
        with torch.no_grad():
            return filtered_lrelu(**self.arguments | changed)


class Kernel:
    """Takes a kernel's place and writes down what it is started with."""

    def __init__(self) -> None:
        self.starts: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.starts.append((grid, arguments, options))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """That of both of filtered_lrelu's kernels."""
    kernel = Kernel()
    monkeypatch.setattr(marching, "_marching_kernel", kernel)
    monkeypatch.setattr(tiles, "_filtered_lrelu_kernel", kernel)
    return kernel


@pytest.mark.parametrize("arguments", [{}, TILES, POINTWISE], ids=["marching", "tiles", "pointwise"])
def test_the_same_call_with_other_contents(
    arguments: dict, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call(device, **arguments)
    first = call()
    assert len(repeats) == 1
    monkeypatch.delattr(Repeats, "keep")  # so that a call in full fails
    x, b = torch.randn_like(call["x"]), torch.randn_like(call["b"])
    with torch.inference_mode():
        y = call(x=x, b=b)
    assert y.data_ptr() != first.data_ptr()
    assert y.is_inference()
    torch.testing.assert_close(y.double(), call(x=x.double(), b=b.double(), impl="ref"), rtol=0, atol=4e-3)


def in_full_and_again(kernel: Kernel, call: Call, **changed: Any) -> None:
    """What starts the kernel is the same, if the call is made when nothing is kept, and twice when something may be."""
    del kernel.starts[:]
    with repeats.paused():
        results = [call(**changed)]
    results += [call(**changed), call(**changed)]
    given = call.arguments | changed
    (grid, arguments, options), *others = kernel.starts
    assert len(others) == 2
    for y, (its_grid, its_arguments, its_options) in zip(results[1:], others, strict=True):
        assert (its_grid, its_options) == (grid, options)
        assert (y.shape, y.stride(), y.dtype) == (results[0].shape, results[0].stride(), results[0].dtype)
        assert its_arguments[0] is given["x"]
        assert its_arguments[2] is y
        for one, other in zip(arguments[3:], its_arguments[3:], strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        own = its_arguments[1]
        assert own is given["b"] or (given["b"] is not None and not given["b"].is_contiguous())


def test_what_a_call_depends_on(kernel: Kernel, device: str) -> None:
    """After a call was kept, each of these has its own launch."""
    call = Call(device)
    in_full_and_again(kernel, call)
    assert len(repeats) == 1
    kept = 1
    wider = torch.zeros(1, 1, 7, 17, dtype=torch.float16, device=device)
    for change in (
        {"x": torch.randn(2, 1, 7, 8, dtype=torch.float16, device=device)}, {"x": call["x"][:, :, :, :6]},
        {"x": call["x"].bfloat16(), "b": call["b"].bfloat16()}, {"x": call["x"].float(), "b": call["b"].float()},
        {"x": torch.randn(1, 1, 7, 8, dtype=torch.float16, device=device).mT.contiguous().mT},
        {"x": wider[:, :, :, 1:9]}, {"x": wider[:, :, :, 2:10]},  # rows begin at odd pixels, and at even ones
        {"b": None}, {"fu": call["fu"] * 2}, {"fd": call["fd"] * 2}, {"fd": None},
        {"fu": torch.outer(FIR, FIR).to(device)}, {"up": 4}, {"down": 1}, {"up": 3, "down": 3},
        {"padding": [8, 9, 9, 8]}, {"padding": 9}, {"padding": (9, 8)},
        {"gain": 1}, {"slope": 0.5}, {"clamp": None}, {"clamp": 0.5}, {"clamp": 1}, {"flip_filter": True},
    ):  # fmt: skip
        in_full_and_again(kernel, call, **change)
        kept += 1
        assert len(repeats) == kept, change
        in_full_and_again(kernel, call)


def test_filters_that_change(kernel: Kernel, device: str) -> None:
    """In place, and another one in the place of one that is gone."""
    call = Call(device, fu=FIR.to(device).clone())
    for factor in (1.0, 1.1, 1.2):
        call["fu"].mul_(factor)
        in_full_and_again(kernel, call)
    assert len(repeats) == 3
    places = set()
    for factor in range(1, 6):
        filters = FIR.to(device) * factor / 3
        places.add(filters.data_ptr())
        in_full_and_again(kernel, call, fu=filters, fd=filters)
        del filters
    assert len(places) == 5  # what is kept keeps the filter, so that its place is not given to another


def test_arguments_are_checked_as_before(kernel: Kernel, device: str) -> None:
    """Values that are equal but not what is meant, and others that the first call could not have."""
    call = Call(device, up=1, down=1, padding=1, fu=None, fd=None)
    call()
    for change, kind in [
        ({"up": True}, TypeError), ({"down": 1.0}, TypeError), ({"padding": 1.0}, TypeError),
        ({"padding": (True, 1)}, TypeError), ({"padding": [1.0, 1, 1, 1]}, TypeError), ({"clamp": -1}, ValueError),
        ({"gain": 0}, ValueError), ({"b": call["b"].float()}, TypeError), ({"x": call["x"][0]}, ValueError),
        ({"x": [1]}, TypeError), ({"impl": "cupy"}, ValueError), ({"slope": float("nan")}, ValueError),
    ]:  # fmt: skip
        for _ in range(2):
            with pytest.raises(kind):
                call(**change)
    call = Call(device, fu=FIR.to(device).clone())
    call()
    call["fu"].requires_grad_()
    with pytest.raises(ValueError, match="requires a gradient"):
        call()


def test_what_is_made_in_full(kernel: Kernel, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, autocast, transforms, whoever looks on; nothing of it is kept, and nothing kept is used."""
    call = Call(device)
    call()
    assert len(repeats) == 1
    x = call["x"].clone().requires_grad_()
    assert filtered_lrelu(**call.arguments | {"x": x}).requires_grad
    with torch.autocast(device, torch.float16):
        assert call(b=call["b"].float()).dtype == torch.float16
    assert len(kernel.starts) == len(repeats) + 2
    with monkeypatch.context() as patch, noted() as starts:
        patch.setattr(torch._C._autograd, "_profiler_enabled", lambda: True)
        call()
    assert len(starts) == 1
    assert len(repeats) == 1
    groups = []

    def observer(tunable: Any, group: Any, given: tuple[Any, ...]) -> Any:
        groups.append(group)
        return tunable.launch(tunable.rule(group, 90), *given)

    with tuning.observed(observer):
        call()
        call()
        call(clamp=0.5)
    assert len(groups) == 3
    assert len(repeats) == 1


def test_switches_count(kernel: Kernel, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that say how float32 is multiplied."""
    call = Call(device)
    call.arguments |= {"x": call["x"].float(), "b": call["b"].float()}
    in_full_and_again(kernel, call)
    monkeypatch.setenv("SG3_FLOAT32", "ieee")
    in_full_and_again(kernel, call)
    call.arguments |= {"up": 3, "down": 3}
    try:
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            in_full_and_again(kernel, call)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(repeats) == 5


def test_sg3_impl_counts(kernel: Kernel, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(device, impl="auto" if device == "cuda" else "triton")
    call()
    monkeypatch.setenv("SG3_IMPL", "ref")
    call(impl="auto")
    assert len(kernel.starts) == 1


def test_what_was_copied_for_a_launch_is_not_kept(kernel: Kernel, device: str) -> None:
    call = Call(device, x=torch.randn(1, 2, 7, 8, dtype=torch.float16, device=device))
    in_full_and_again(kernel, call, b=torch.randn(4, dtype=torch.float16, device=device)[::2])
    call(b=None, x=call["x"][0:0])  # no launch at all
    assert len(repeats) == 0


def test_tensors_of_a_call_are_let_go(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marching, "_marching_kernel", {(1,): lambda *arguments, **options: None})
    call = Call(device)
    x, b = call["x"].clone(), call["b"].clone()
    gone = [weakref.ref(x), weakref.ref(b), weakref.ref(call(x=x, b=b)), weakref.ref(call(x=x, b=b))]
    assert len(repeats) == 1
    del x, b
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4


# ---- the store by itself


class Twice:
    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: arguments[1].copy_(2 * arguments[0])


def start(x: torch.Tensor, y: torch.Tensor, *more: Any, fixed: tuple = (), room: tuple = ()) -> Start:
    with noted() as starts:
        launch(Twice(), (1,), x, y, *more, like=x, fixed=fixed, room=room, SIZE=3)
    return starts[0]


def test_no_more_than_the_most() -> None:
    store = Repeats(3)
    x, y = torch.ones(3), torch.empty(3)
    for key in range(5):
        store.keep(key, [start(x, y)], y, (x,), ())
    assert [store.get(key) is None for key in range(5)] == [True, True, False, False, False]
    kept = store.get(4)
    assert kept is not None
    assert kept(torch.arange(3.0)).tolist() == [0, 2, 4]


def test_only_launches_whose_tensors_are_known() -> None:
    store = Repeats(9)
    x, y, other = torch.ones(3), torch.empty(3), torch.zeros(3)
    store.keep("none", [], y, (x,), ())
    store.keep("two", [start(x, other), start(other, y)], y, (x,), ())
    store.keep("room", [start(x, y, other)], y, (x,), ())
    store.keep("a copy", [start(x.clone(), y)], y, (x,), ())
    assert len(store) == 0
    store.keep("fixed", [start(x, y, other, fixed=(other,))], y, (x,), ())
    with store.paused():
        assert store.get("fixed") is None
        store.keep("more", [start(x, y)], y, (x,), ())
    assert store.get("fixed") is not None
    assert len(store) == 1
    store.forget()
    assert len(store) == 0


def test_room_between_launches_is_new_in_every_call() -> None:
    store = Repeats(9)
    x, y, room = torch.ones(3), torch.empty(3), torch.empty(3)
    store.keep("two", [start(x, room, room=(room,)), start(room, y)], y, (x,), ())
    kept = store.get("two")
    assert kept is not None
    assert kept(torch.arange(3.0)).tolist() == [0, 4, 8]
    assert room.tolist() == [2, 2, 2]


def test_threads_do_not_note_each_others_launches() -> None:
    x, y = torch.ones(3), torch.empty(3)
    with noted() as starts:
        thread = threading.Thread(target=lambda: launch(Twice(), (1,), x, y, like=x))
        thread.start()
        thread.join()
    assert starts == []
    with noted() as outer, noted() as inner:
        launch(Twice(), (1,), x, y, like=x)
    assert (len(outer), len(inner)) == (0, 1)


