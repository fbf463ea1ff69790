"""Where launch configurations come from: the user's table, a bundled one, the rule; and what is not believed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

triton = pytest.importorskip("triton")
from sg3.kernels import tuning  # noqa: E402
from sg3.kernels.bias_act import impl_triton as bias_act  # noqa: E402
from sg3.kernels.filtered_lrelu import (  # noqa: E402
    marching,
    marching_plan,
    pointwise,
    symmetric,
    symmetric_plan,
    tiles,
)
from sg3.kernels.modulated_conv2d import impl_triton as modulated_conv2d  # noqa: E402
from sg3.kernels.triton_launch import architecture  # noqa: E402
from sg3.kernels.tuning import Tunable  # noqa: E402
from sg3.kernels.upfirdn2d import impl_triton as upfirdn2d  # noqa: E402

GPU = torch.device("cuda", 0)
HERE = "NVIDIA Pretend 100"


@dataclass(frozen=True)
class Config:
    size: int
    most: tuple[int, int] | None = None


class Kind(NamedTuple):
    taps: int
    dtype: str


def launch(config: Config, x: torch.Tensor, taps: int) -> tuple[torch.Tensor]:
    return (x * config.size,)


TUNABLE = Tunable(
    "a kernel", launch, lambda x, taps: Kind(taps, str(x.dtype)[6:]), lambda kind, arch: Config(arch),
    lambda kind, arch: [Config(1), Config(arch), Config(2, (3, kind.taps))], lambda dtype, x, taps: (None,),
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, no bundled tables, and a GPU by name."""
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "BUNDLED", tmp_path / "tuned")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: HERE)
    for folder in ("cache", "tuned"):
        (tmp_path / folder).mkdir()
    caches = (tuning.chosen, tuning.tables, tuning.warn_once)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def table(choice: dict[str, Any], taps: int = 4, gpu: str = HERE, version: str = triton.__version__) -> dict[str, Any]:
    entry = {"choice": choice, "microseconds": 1.5, "tried": []}
    return {"gpu": gpu, "triton": version, "classes": {"a kernel": {f"taps={taps} dtype=float16": entry}}}


def write(path: Path, *tables: dict[str, Any], **more: Any) -> None:
    path.write_text(json.dumps({"format": 1, "tables": tables, **more}))


def choice(taps: int = 4) -> Config:
    return tuning.chosen(TUNABLE, Kind(taps, "float16"), GPU, 90)


def test_the_users_table_then_a_bundled_one_then_the_rule(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(home / "cache" / "tuning.json", table({"size": 1, "most": None}))
    write(home / "tuned" / "b.json", table({"size": 2, "most": [3, 5]}, taps=5))
    write(home / "tuned" / "a.json", table({"size": 90, "most": None}, gpu="NVIDIA other"),
          table({"size": 2, "most": [3, 4]}))  # fmt: skip
    assert choice(4) == Config(1)
    assert choice(5) == Config(2, (3, 5))
    assert choice(6) == Config(90)
    files = f"{home / 'cache' / 'tuning.json'}, {home / 'tuned' / 'a.json'}, {home / 'tuned' / 'b.json'}"
    assert tuning.describe(HERE) == f"2 kinds of launches as measured, {files}"
    (home / "cache" / "tuning.json").unlink()
    assert choice(4) == Config(1)  # read once per process
    for cache in (tuning.chosen, tuning.tables):
        cache.cache_clear()
    assert choice(4) == Config(2, (3, 4))
    assert not caplog.messages


def test_a_launch_takes_what_was_chosen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, dtype=torch.float16)
    by_rule = [architecture(x.device)] * 2
    write(home / "cache" / "tuning.json", table({"size": 1, "most": None}))
    assert TUNABLE(x, 4)[0].tolist() == by_rule  # on a CPU, where no table counts
    with tuning.observed(lambda tunable, group, arguments: [group, *arguments]):
        assert TUNABLE(x, 4) == [Kind(4, "float16"), x, 4]
    assert TUNABLE(x, 4)[0].tolist() == by_rule
    monkeypatch.setattr(tuning, "look_up", lambda tunable, group, arch, gpu: Config(3))
    tuning.chosen.cache_clear()
    assert TUNABLE(x, 4)[0].tolist() == [3, 3]


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "is no JSON"),
    (b'{"format": 1, "tables": [{"gpu": "NVIDIA Pre', "is no JSON"),
    (b"\xff\xfe\x00", "is no JSON"),
    (b"[1, 2]", "has no list of tables"),
    (b'{"format": 1}', "has no list of tables"),
    (b'{"format": 2, "tables": []}', "has format 2, this version reads 1"),
    (b'{"format": 1, "tables": [5]}', "does not say its GPU"),
    (b'{"format": 1, "tables": [{"gpu": "a", "triton": 3, "classes": {}}]}', "does not say its GPU"),
    (b'{"format": 1, "tables": [{"gpu": "a", "triton": "3.6.0"}]}', "has no choice"),
    (b'{"format": 1, "tables": [{"gpu": "a", "triton": "3.6.0", "classes": {"a kernel": [1]}}]}', "has no choice"),
    (b'{"format": 1, "tables": [{"gpu": "a", "triton": "3.6.0", "classes": {"a kernel": {"taps=4": {}}}}]}',
     "has no choice"),
], ids=lambda value: "" if isinstance(value, str) else value.decode(errors="replace")[:20])  # fmt: skip
def test_a_damaged_file_is_one_line_and_the_rule(
    content: bytes, reason: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = home / "cache" / "tuning.json"
    path.write_bytes(content)
    for taps in (4, 5, 6):
        assert choice(taps) == Config(90)
    (line,) = caplog.messages
    assert line.startswith(f"sg3: {path}: ")
    assert reason in line
    assert line.endswith(": not used; `sg3 tune` writes a new one")


def test_a_file_that_cannot_be_read_is_one_line_and_the_rule(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "cache" / "tuning.json").mkdir()
    assert choice() == Config(90)
    assert caplog.messages == [f"sg3: {home / 'cache' / 'tuning.json'}: {os.strerror(21)}: not used; "
                               "`sg3 tune` writes a new one"]  # fmt: skip


@pytest.mark.parametrize("other", [{"gpu": "NVIDIA A100-SXM4-80GB"}, {"version": "3.5.1"}], ids=["GPU", "Triton"])
def test_what_was_measured_elsewhere_is_not_used_and_says_so(
    other: dict[str, str], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(home / "cache" / "tuning.json", table({"size": 1, "most": None}, **other))
    assert choice(4) == choice(5) == Config(90)
    (line,) = caplog.messages
    elsewhere = f"{other.get('gpu', HERE)} with Triton {other.get('version', triton.__version__)}"
    assert f"measured on {elsewhere}; this is {HERE} with Triton {triton.__version__}: not used" in line


def test_a_choice_that_is_none_of_the_candidates(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A table of another version of sg3: what it names is not launched. The next table may know better."""
    write(home / "cache" / "tuning.json", table({"size": 7, "most": None}))
    assert choice() == Config(90)
    (line,) = caplog.messages
    assert "tuning.json: a kernel taps=4 dtype=float16 has a configuration that this version does not know" in line
    write(home / "tuned" / "a.json", table({"size": 1, "most": None}))
    for cache in (tuning.chosen, tuning.tables):
        cache.cache_clear()
    assert choice() == Config(1)


def test_without_a_home_folder_there_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SG3_CACHE")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert tuning.user_file() is None
    assert choice() == Config(90)


@pytest.mark.parametrize("arch", [80, 90, 100, 120])
def test_candidates_are_distinct_and_begin_with_the_rule(arch: int) -> None:
    """Of all kernels; each comes back from a table as it was written."""
    kinds: list[tuple[Any, Any]] = [
        (tiles.TILES, tiles.Kind(up, up_taps, down, down_taps, dtype, "ieee", mode))
        for up, up_taps, down, down_taps in ((1, 1, 1, 1), (2, 12, 2, 12), (4, 24, 2, -12), (2, -12, 4, 24))
        for dtype in ("float16", "float32") for mode in ("plain", "grad")
    ]  # fmt: skip
    kinds += [(tiles.TILES, tiles.Kind(2, -12, 4, 24, "float32", "fp16x3", "grad"))]
    kinds += [(pointwise.POINTWISE, pointwise.Kind("float16", "grad", fours)) for fours in (False, True)]
    for tunable, plan in ((marching.MARCH, marching_plan), (symmetric.SYMMETRIC, symmetric_plan)):
        for dtype, shapes in (("float16", plan.SHAPES), ("float32", plan.SHAPES_FLOAT32)):
            of_sizes = (marching_plan.Kind(*sizes, dtype, mode) for sizes in shapes for mode in marching_plan.MODES)
            kinds += [(tunable, kind) for kind in of_sizes]
    kinds += [(symmetric.SYMMETRIC, marching_plan.Kind(*sizes, "float32", mode))
              for sizes in symmetric_plan.OF_ARCHITECTURE.get(arch, {}) for mode in marching_plan.MODES]  # fmt: skip
    kinds += [(modulated_conv2d.CONVOLUTION, modulated_conv2d.Kind(dtype, "ieee", wide, size, 9, False))
              for dtype in ("bfloat16", "float32") for wide in (False, True)
              for size in ("wide", "medium", "narrow", "small", "huge")]  # fmt: skip
    kinds += [(upfirdn2d.PASS, upfirdn2d.Kind(layout, "float16", "float16", (4, 4), (1, 1), (2, 2)))
              for layout in ("channels_last", "contiguous")]  # fmt: skip
    kinds += [(bias_act.ELEMENTWISE, bias_act.Kind("grad", "lrelu", True, False, "float16", "xx----x"))]
    for tunable, kind in kinds:
        candidates = tunable.candidates(kind, arch)
        assert candidates[0] == tunable.rule(kind, arch)
        assert len(set(candidates)) == len(candidates) >= 3
        for candidate in candidates:
            written = json.loads(json.dumps(tuning.as_plain(candidate)))
            assert [other for other in candidates if tuning.as_plain(other) == written] == [candidate]


def test_class_names_tell_all_classes_apart() -> None:
    kind = tiles.Kind(2, 12, 2, -12, "float16", "ieee", "with signs")
    names = {tuning.class_name(kind._replace(**{name: 7})) for name in kind._fields}
    assert len(names) == len(kind)
    assert tuning.class_name(kind) == \
        "up=2 up_taps=12 down=2 down_taps=-12 dtype=float16 precision=ieee mode=with signs"


def test_configurations_with_a_cap_on_registers() -> None:
    kind = tiles.Kind(2, 12, 2, 12, "float16", "ieee", "grad")
    by_rule = tiles.rule(kind, 90)
    assert by_rule.registers is None
    assert tiles.rule(kind, 100) == replace(by_rule, registers=tiles.MOST_REGISTERS)
    radial = tiles.Kind(2, 12, 2, -12, "float32", "fp16x3", "with signs")
    assert tiles.rule(radial, 86) == replace(tiles.rule(radial, 80), registers=tiles.MOST_REGISTERS_RADIAL)
