"""`sg3 tune` from end to end: values in the interpreter, times by a clock that the test sets; and its compilations."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
import sg3  # noqa: E402
from sg3.formats import Snapshot  # noqa: E402
from sg3.kernels import dispatch, tuning  # noqa: E402
from sg3.kernels.dispatch import Status  # noqa: E402
from sg3.kernels.filtered_lrelu import pointwise  # noqa: E402
from sg3.kernels.triton_launch import INTERPRETING  # noqa: E402
from sg3.models import stylegan2, stylegan3  # noqa: E402
from sg3.tools.tune import ahead, machine  # noqa: E402
from sg3.tools.tune.ahead import Target  # noqa: E402
from sg3.tools.tune.calls import Blank, Call, Network, Taps, calls  # noqa: E402
from sg3.tools.tune.measure import Measured, disagreement, measure  # noqa: E402
from tests.helpers.commands import Result  # noqa: E402

CPU = torch.device("cpu")
HERE = "NVIDIA Pretend 100"
MODES = ("with signs", "grad", "plain")


def generator() -> stylegan3.Generator:
    """One channel of StyleGAN3-T, as few and small layers as there can be."""
    return stylegan3.Generator(2, 0, 2, 16, 1, channel_base=16, channel_max=1, num_layers=2, num_critical=1,
                               margin_size=2, mapping_kwargs={"num_layers": 1})  # fmt: skip


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "tiny.safetensors"
    sg3.save(Snapshot(G_ema=generator()), path)
    return path


@dataclass
class FakeClock:
    """Says how long a configuration takes instead of running it."""

    microseconds: Callable[[Any], float]
    asked: list[Any] = field(default_factory=list)

    def __call__(self, run: partial[object]) -> float:
        (configuration,) = run.args[:1]
        self.asked.append(configuration)
        return self.microseconds(configuration)


@pytest.fixture
def clock() -> FakeClock:
    """More warps are faster, and so are fewer rows."""
    return FakeClock(lambda c: 100 / c.warps + getattr(c, "rows", 0) / 100)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: FakeClock) -> None:
    """A GPU whose kernels are interpreted and whose clock is a fake one. It measures two classes: ToRGB's, forward."""
    if not INTERPRETING:
        pytest.skip("kernels are not interpreted here")
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setattr(machine, "target", lambda arch, needs_gpu: Target(90, HERE))
    monkeypatch.setattr(machine, "device", lambda: CPU)
    monkeypatch.setattr(machine, "clock", clock)
    measures("filtered_lrelu_triton", lambda call: call.arguments[4] == 1, monkeypatch)
    for cache in (tuning.chosen, tuning.tables, tuning.warn_once):
        cache.cache_clear()


def measures(op: str, which: Callable[[Call], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only such calls, and nothing is compiled before."""
    monkeypatch.setattr(machine, "compiled_groups", lambda calls, target, jobs: (
        [call] for call in calls if call.op.startswith(op) and which(call)
    ))  # fmt: skip


def kind(mode: str) -> pointwise.Kind:
    """ToRGB's filtered_lrelu, which has no filters: quick even in the interpreter."""
    return pointwise.Kind("float16", mode, fours=True)


def test_from_a_network_file_to_a_launch(
    network: Path, run: Callable[..., Result], gpu: None, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every candidate is right and timed, the table says so, and a launch on that GPU goes by it."""
    measures("filtered_lrelu", lambda call: not any(isinstance(value, Taps) for value in call.arguments), monkeypatch)
    result = run("tune", f"--network={network}", "--batch=1")
    path = tuning.user_file()
    assert path is not None
    assert result.code == 0, result.err
    assert result.out == f"{path}: 3 kernels tuned for {HERE}\n"
    content = json.loads(path.read_text())
    (table,) = content["tables"]
    assert (content["format"], table["gpu"], table["triton"]) == (1, HERE, triton.__version__)
    classes = table["classes"]["filtered_lrelu pointwise"]
    assert set(classes) == {tuning.class_name(kind(mode)) for mode in MODES}
    for mode in MODES:
        entry = classes[tuning.class_name(kind(mode))]
        candidates = pointwise.POINTWISE.candidates(kind(mode), 90)
        assert [row["configuration"] for row in entry["tried"]] == [tuning.as_plain(c) for c in candidates]
        times = {c: clock.microseconds(c) for c in candidates}
        assert [row["microseconds"] for row in entry["tried"]] == pytest.approx([*times.values()], abs=1e-3)
        fastest = min(times, key=lambda c: times[c])
        assert fastest != pointwise.rule(kind(mode), 90)
        assert entry["choice"] == tuning.as_plain(fastest)
        assert entry["microseconds"] == pytest.approx(times[fastest], abs=1e-3)

        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: HERE)
        assert tuning.chosen(pointwise.POINTWISE, kind(mode), torch.device("cuda", 0), 90) == fastest
    lines = [line for line in result.err.splitlines() if line.startswith("filtered_lrelu pointwise")]
    assert len(lines) == 3
    assert all("us, by the rule" in line for line in lines)


def test_a_table_keeps_what_it_does_not_measure(
    network: Path, run: Callable[..., Result], gpu: None, tmp_path: Path
) -> None:
    """Another GPU's table, another version's, and other classes of this one's."""
    path = tmp_path / "new" / "table.json"
    entry = {"choice": {"size": 3}, "microseconds": 1.0, "tried": []}
    old = [{"gpu": gpu, "triton": version, "classes": {"a kernel": {"taps=4": entry}}}
           for gpu, version in (("NVIDIA other", triton.__version__), (HERE, "3.5.0"), (HERE, triton.__version__))]
    path.parent.mkdir()
    path.write_text(json.dumps({"format": 1, "tables": old}))
    assert run("tune", f"--network={network}", "--batch=1", f"--output={path}").code == 0
    tables = json.loads(path.read_text())["tables"]
    assert tables[:2] == old[:2]
    assert tables[2]["classes"].pop("a kernel") == {"taps=4": entry}
    assert len(tables[2]["classes"]["filtered_lrelu pointwise"]) == 2
    assert not (tmp_path / "cache").exists()


def test_a_damaged_table_is_replaced(network: Path, run: Callable[..., Result], gpu: None, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text('{"format": 1, "tab')
    result = run("tune", f"--network={network}", "--batch=1", f"--output={path}")
    assert result.code == 0
    assert f"note: {path}: is no JSON" in result.err
    assert "it is replaced" in result.err
    assert [table.gpu for table in tuning.read(path)] == [HERE]


def test_a_place_that_cannot_be_written_is_known_first(
    network: Path, run: Callable[..., Result], gpu: None, clock: FakeClock, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Before anything is measured: a cache that is read-only, a file where its folder should be, no home."""
    read_only = tmp_path / "read-only"
    read_only.mkdir(mode=0o500)
    monkeypatch.setenv("SG3_CACHE", str(read_only))
    if os.geteuid() == 0:  # whom permissions do not stop
        monkeypatch.setattr(Path, "open", _refused(read_only, Path.open))
    result = run("tune", f"--network={network}")
    assert result.code == 74
    assert result.error_line() == f"error: {read_only / 'tuning.json'}: cannot be written: Permission denied; " \
                                  "--output names another file"  # fmt: skip
    (tmp_path / "file").touch()
    result = run("tune", f"--network={network}", f"--output={tmp_path / 'file' / 'table.json'}")
    assert result.code == 74
    assert result.error_line() == f"error: --output={tmp_path / 'file' / 'table.json'}: nothing was written: " \
                                  f"{tmp_path / 'file'} is no folder"  # fmt: skip
    monkeypatch.setattr(tuning, "user_file", lambda: None)
    assert "--output=FILE names a place" in run("tune", f"--network={network}").error_line()
    assert not clock.asked


def _refused(folder: Path, plain: Callable[..., Any]) -> Callable[..., Any]:
    def open(self: Path, *args: Any, **kwargs: Any) -> Any:
        if folder in self.parents and args == ("xb",):
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *args, **kwargs)

    return open


def test_what_was_measured_before_an_interruption_is_kept(
    network: Path, run: Callable[..., Result], gpu: None, clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    plain = clock.microseconds

    def interrupted(configuration: Any) -> float:
        if "choice" in path.read_text():
            raise KeyboardInterrupt
        return plain(configuration)

    clock.microseconds = interrupted
    result = run("tune", f"--network={network}", "--batch=1", f"--output={path}")
    assert result.code == 130
    (table,) = tuning.read(path)
    assert len(table.classes["filtered_lrelu pointwise"]) == 1


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_every_candidate_of_every_kernel_is_right() -> None:
    """Of all classes of a radial StyleGAN3, a StyleGAN2 and its discriminator: what may be chosen gives the values.

    (Not in bfloat16, to which the interpreter truncates.)
    """
    if not INTERPRETING:
        pytest.skip("kernels are not interpreted here")
    tiny: dict[str, Any] = {"channel_base": 64, "channel_max": 2, "mapping_kwargs": {"num_layers": 1}}
    radial = stylegan3.Generator(2, 0, 2, 16, 1, num_layers=3, num_critical=1, margin_size=2, conv_kernel=1,
                                 use_radial_filters=True, **tiny)  # fmt: skip
    D = stylegan2.Discriminator(0, 8, 1, channel_base=8, channel_max=2)
    found = calls([Network(radial, None), Network(stylegan2.Generator(2, 0, 2, 8, 1, **tiny), D)], batch=2)
    results: list[Measured] = []
    measure([[call] for call in found], found, CPU, lambda run: 1.0, results.append,
            lambda call, reason: pytest.fail(reason))  # fmt: skip
    assert {result.tunable for result in results} == \
        {"filtered_lrelu marching", "filtered_lrelu pointwise", "modulated_conv2d", "upfirdn2d pass", "bias_act"}
    assert len(results) >= 30
    for result in results:
        assert all("microseconds" in row for row in result.entry["tried"]), result


# ---- candidates that are wrong, fail, or are hardly faster ----


def one_call() -> Call:
    """filtered_lrelu by 1 and 1, whose interpretation is quick."""
    x, signs = Blank((1, 1, 9, 8), (72, 72, 8, 1), torch.float16), Blank((0,), (1,), torch.uint8)
    arguments = (x, None, None, None, 1, 1, (0, 0, 0, 0), 1.3, 0.2, 0.8, False, False)
    return Call("filtered_lrelu_triton", arguments, (x, signs))


def measured(tunable: tuning.Tunable[Any, Any, ...], clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Measured:
    if not INTERPRETING:
        pytest.skip("kernels are not interpreted here")
    monkeypatch.setattr(pointwise, "POINTWISE", tunable)
    found: list[Measured] = []
    measure([[one_call()]], [one_call()], CPU, clock, found.append, lambda call, reason: pytest.fail(reason))
    (result,) = found
    return result


def spoiled(spoil: Callable[[Any, torch.Tensor], None]) -> tuning.Tunable[Any, Any, ...]:
    """The kernel with something done to its results."""
    plain = pointwise.POINTWISE

    def launch(configuration: Any, *arguments: Any) -> Sequence[torch.Tensor]:
        written = plain.launch(configuration, *arguments)
        spoil(configuration, written[0])
        return written

    return replace(plain, launch=launch)


@pytest.mark.parametrize("spoil", [
    lambda y: y[0, 0, 3, 3].add_(0.1), lambda y: y.mul_(1.01), lambda y: y[0, 0, 8, 7].fill_(float("nan")),
], ids=["one element", "all by a percent", "NaN"])  # fmt: skip
def test_wrong_values_are_never_chosen(
    spoil: Callable[[torch.Tensor], object], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunable = spoiled(lambda c, y: spoil(y) if c.warps == 8 else None)
    entry = measured(tunable, clock, monkeypatch).entry
    assert entry["choice"]["warps"] == 4
    wrong = [row for row in entry["tried"] if "wrong" in row]
    assert {row["configuration"]["warps"] for row in wrong} == {8}
    assert not any("microseconds" in row for row in wrong)
    assert not any(c.warps == 8 for c in clock.asked)


def test_elements_that_a_candidate_leaves_out_are_noticed(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the memory still holds what the launch before it wrote there."""
    before: dict[int, torch.Tensor] = {}

    def forget(configuration: Any, y: torch.Tensor) -> None:
        if configuration.warps == 8:
            y[0, 0, 0] = before[0][0, 0, 0]

    plain = pointwise.POINTWISE

    def launch(configuration: Any, *arguments: Any) -> Sequence[torch.Tensor]:
        before[0] = arguments[2].clone()
        written = plain.launch(configuration, *arguments)
        forget(configuration, written[0])
        return written

    entry = measured(replace(plain, launch=launch), clock, monkeypatch).entry
    assert all(("wrong" in row) == (row["configuration"]["warps"] == 8) for row in entry["tried"])


def test_a_wrong_rule_is_replaced_by_what_is_right(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    by_rule = pointwise.rule(kind("plain"), 90)
    entry = measured(spoiled(lambda c, y: y.zero_() if c == by_rule else None), clock, monkeypatch).entry
    assert "wrong" in entry["tried"][0]
    assert entry["choice"] != tuning.as_plain(by_rule)


def test_where_nothing_is_right_nothing_is_chosen(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = measured(spoiled(lambda c, y: y.zero_()), clock, monkeypatch).entry
    assert "choice" not in entry
    assert all("wrong" in row for row in entry["tried"])
    assert not clock.asked


def test_a_candidate_that_cannot_run_is_left_out(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(configuration: Any, y: torch.Tensor) -> None:
        if configuration.rows == 16:
            raise ValueError("out of resource:\nshared memory")

    entry = measured(spoiled(fail), clock, monkeypatch).entry
    failed = [row for row in entry["tried"] if "failed" in row]
    assert failed
    assert all(row["failed"] == "ValueError: out of resource: shared memory" for row in failed)
    assert entry["choice"]["rows"] == 4


@pytest.mark.parametrize(("times", "changes"), [((100, 99), False), ((100, 97), True)])
def test_the_rule_stays_where_others_are_hardly_faster(
    times: tuple[float, float], changes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rule = pointwise.rule(kind("plain"), 90)
    clock = FakeClock(lambda c: times[0] if c == by_rule else times[1])
    entry = measured(pointwise.POINTWISE, clock, monkeypatch).entry
    assert (entry["choice"] != tuning.as_plain(by_rule)) == changes


def test_what_counts_as_a_disagreement() -> None:
    exact = torch.linspace(-1, 1, 100, dtype=torch.float64)
    half = exact.to(torch.float16)
    assert disagreement(half, exact, half, torch.float16) is None
    assert disagreement(half * 1.002, exact, half, torch.float16) is None
    assert "off by" in (disagreement(half * 1.01, exact, half, torch.float16) or "")
    assert "off by" in (disagreement(exact.float() * 1.002, exact, exact.float(), torch.float32) or "")
    signs = torch.zeros(10_000, dtype=torch.uint8)
    assert disagreement(signs, signs, signs, torch.float16) is None
    other = signs.clone()
    other[:100] = 1
    assert disagreement(other, signs, signs, torch.float16) is None
    other[:1000] = 1
    assert disagreement(other, signs, signs, torch.float16) == "0.1 of all signs differ"


# ---- calls, and kernels compiled ahead ----


def test_a_networks_calls_are_those_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision, forward with and without signs, gradients; nothing is computed, and the network stays."""
    monkeypatch.setenv("SG3_IMPL", "ref")
    G, D = generator().eval().requires_grad_(False), stylegan2.Discriminator(0, 16, 1, channel_base=16, channel_max=2)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    found = calls([Network(G, D), Network(G, None)], batch=3)
    assert os.environ["SG3_IMPL"] == "ref"
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
    assert not G.training
    assert not any(p.requires_grad for p in G.parameters())
    assert len(set(found)) == len(found)
    assert [call.size for call in found] == sorted((call.size for call in found), reverse=True)
    ops = {call.op for call in found}
    assert ops >= {"filtered_lrelu_triton", "filtered_lrelu_grad_triton", "bias_act_triton", "bias_act_grad_triton",
                   "upfirdn2d_triton"}  # fmt: skip
    forward = {(call.arguments[1], call.arguments[2]) for call in found if call.op == "filtered_lrelu_triton"}
    layers = [getattr(G.synthesis, name) for name in G.synthesis.layer_names[:-1]]
    assert forward - {(None, None)} >= {(Taps.of(layer.up_filter), Taps.of(layer.down_filter)) for layer in layers}
    assert all(call.arguments[0].dtype == torch.float16 for call in found if "filtered_lrelu" in call.op)
    assert {call.arguments[0].shape[0] for call in found if "filtered_lrelu" in call.op} == {3}
    grad = next(call for call in found if call.op == "filtered_lrelu_grad_triton")
    assert any(grad.arguments[1] in call.results for call in found)  # the signs that it reads
    halves = calls([Network(G, None)], batch=1, bf16=True)
    assert {call.arguments[0].dtype for call in halves if "filtered" in call.op} == {torch.bfloat16}


def test_tensors_of_any_strides() -> None:
    for shape, strides in (((2, 3), (3, 1)), ((2, 3), (1, 2)), ((2, 3), (0, 1)), ((2, 3), (10, 2)), ((0, 3), (3, 1))):
        blank = Blank(shape, strides, torch.float16)
        for tensor in (blank.noise(CPU), blank.empty(CPU)):
            assert Blank.of(tensor) == blank
        assert blank.noise(CPU).isfinite().all()


SMALL = Blank((1, 2, 8, 8), (128, 64, 8, 1), torch.float16)
BIAS_ACT = Call("bias_act_triton", (SMALL, None, None, None, 1, "lrelu", 0.2, 1.0, None, False, False),
                (SMALL, Blank((0, 0), (1, 1), torch.uint8)))  # fmt: skip


def test_kernels_compiled_in_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton finds them in its cache later. By class, and every candidate once."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # there, not here
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    target = Target(90, None)
    with ahead.compilers(1) as pool:
        groups = ahead.by_classes(pool, [BIAS_ACT, replace(BIAS_ACT, results=())], target)
        (classes, group), = groups.items()
        assert [name for name, _ in classes] == ["bias_act"]
        assert "dtype=float16" in classes[0][1]
        assert len(group) == 2
        assert not list(tmp_path.rglob("*.cubin"))
        assert list(ahead.compile_groups(pool, [group], target, every_candidate=False)) == [ahead.Outcome(2)]
        assert len(list(tmp_path.rglob("*.cubin"))) == 1
        monkeypatch.setattr(ahead, "compilers", lambda jobs: nullcontext(pool))
        assert list(machine.compiled_groups([BIAS_ACT], target, jobs=1)) == [[BIAS_ACT]]
        assert len(list(tmp_path.rglob("*.cubin"))) == 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_warmup_of_a_network(network: Path, tmp_path: Path) -> None:
    """In a process of its own, for a GPU that is not here; the second time there is nothing new to compile."""
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "sg3", "tune", "--warmup", "--arch=sm_80", f"--network={network}", "--jobs=2"]
    environ["TRITON_CACHE_DIR"] = str(tmp_path)
    kept: list[set[Path]] = []
    for _ in range(2):
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("kernels compiled for sm_80\n")
        kept.append(set(tmp_path.rglob("*.cubin")))
    assert len(kept[0]) >= 8
    assert kept[0] == kept[1]


def test_a_cache_of_tritons_that_cannot_be_written_is_known_first(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, before a network is read or a kernel compiled; a disk that fills up later ends the work, too."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(machine, "INTERPRETING", False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "cache"))
    result = run("tune", "--warmup", "--arch=sm_90", "--network=none.pkl")
    assert result.code == 74
    assert result.error_line() == f"error: {tmp_path}/file/cache: Triton cannot keep compiled kernels there: Not a " \
                                  "directory; TRITON_CACHE_DIR=FOLDER names another place"  # fmt: skip
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert run("tune", "--warmup", "--arch=sm_90", "--network=none.pkl").code == 66
    assert list((tmp_path / "new" / "cache").iterdir()) == []

    def compile(arch: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        ahead._compile_one(SimpleNamespace(compile=compile), Target(90, None), ahead.Outcome())


def test_what_a_request_needs(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*words: str) -> str:
        result = run("tune", *words)
        assert result.code == 2
        return result.error_line()

    assert "only --warmup compiles for others" in error("--arch=sm_90")
    assert "--warmup compiles into Triton's cache and writes no table" in error("--warmup", "--output=x.json")
    monkeypatch.setattr(machine, "INTERPRETING", True)
    assert "TRITON_INTERPRET is set" in error()
    monkeypatch.setattr(machine, "INTERPRETING", False)
    assert "--arch=sm_75: expected one of sm_80, sm_86" in error("--warmup", "--arch=sm_75")
    gpu = Status(False, "PyTorch sees no CUDA device", "see whether nvidia-smi does")
    monkeypatch.setattr(dispatch, "triton_status", lambda device: gpu if device.type == "cuda" else Status(True, ""))
    assert error().endswith("PyTorch sees no CUDA device; see whether nvidia-smi does; without a GPU, "
                            "`sg3 tune --warmup --arch=sm_90` compiles for one")  # fmt: skip
    assert error("--warmup").endswith("see whether nvidia-smi does; or name an architecture, --arch=sm_90")
    monkeypatch.setattr(dispatch, "triton_status", lambda device: Status(False, "the package triton is not installed"))
    assert error() == "error: sg3 tune: the package triton is not installed"
