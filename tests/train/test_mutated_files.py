"""Files that sg3 writes or reads as JSON, TOML and states, with something else in each place: no "bug in sg3" ever.

Every reader gets every mutation of a valid document: each value replaced by each of EXTREMES, each entry left out or
doubled. What comes out is a result or one of sg3's own errors, which names the file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

import sg3.cli
from sg3 import run_folder
from sg3.cli.info import describe_run
from sg3.data.dataset_json import label_array, labels_by_name
from sg3.errors import DataError, Sg3Error
from sg3.kernels import tuning
from sg3.limits import parse_shallow
from sg3.metrics.plot import _curves
from sg3.train.changes import require_same_run
from sg3.train.evaluation import Evaluation
from sg3.train.launch import read_run
from sg3.train.option_file import read_options
from sg3.train.recipes import options_of, resolve
from sg3.train.state import load_state, save_state
from sg3.train.state_check import check_state
from tests.helpers.runs import facts, tiny_config
from tests.helpers.trainers import new_trainer

DEEP: Any = 0
for _ in range(150):
    DEEP = [DEEP]
EXTREMES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, float("nan"), float("inf"), -1e308, "", "a", "1", "\0",
    "\ud800", "x" * 70_000, "../..", [], [[]], {}, {"a": {"b": 1}}, [1, "a", None], DEEP,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value in a document, the whole of it first."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for number in range(min(len(value), 3)):
            yield from places(value[number], (*path, number))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    result = copy.copy(document)
    result[path[0]] = replaced(document[path[0]], path[1:], value)
    return result


def mutations(document: Any, extremes: list[Any] = EXTREMES) -> Iterator[tuple[str, Any]]:
    """What was done, and the document with it."""
    for path in places(document):
        for value in extremes:
            yield f"{path} = {str(value)[:20]!a}", replaced(document, path, value)
        if path:
            parent = document
            for name in path[:-1]:
                parent = parent[name]
            rest = {k: v for k, v in parent.items() if k != path[-1]} if isinstance(parent, dict) else parent[1:]
            yield f"without {path}", replaced(document, path[:-1], rest)
            if isinstance(parent, dict):
                yield f"{path} misspelt", replaced(document, path[:-1], {**rest, "unknown": parent[path[-1]]})


def as_json(value: Any) -> str:
    return json.dumps(value)


@pytest.fixture(params=[pytest.param(5, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def check(request: pytest.FixtureRequest) -> Callable[..., float]:
    """Try one of so many mutations."""
    return partial(tried, request.param)


def tried(every: int, read: Callable[[Any], object], document: Any) -> float:
    """The share of mutations that were refused. Fails for any other outcome than a result or an error of sg3."""
    refused = count = 0
    read(document)
    for what, mutated in islice(mutations(document), None, None, every):
        count += 1
        try:
            read(mutated)
        except Sg3Error:
            refused += 1
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    return refused / count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / run_folder.OPTIONS).write_text(as_json(options_record()))
    return tmp_path


def options_record() -> dict[str, Any]:
    config = tiny_config(metrics="fid50k_full", desc="a", minutes=1.0, grid=(2, 2))
    plain = json.loads(as_json(config.to_dict()))
    return {"options": {"batch": 4}, "config": plain, "command": ["sg3"], "versions": {}}


def written(path: Path, read: Callable[[], object]) -> Callable[[Any], object]:
    def reads(document: Any) -> object:
        path.write_text(as_json(document))
        return read()

    return reads


def test_training_options(folder: Path, check: Callable[..., float]) -> None:
    def read() -> None:
        config, _ = read_run(folder)
        config.problems(options_of({"cfg": config.cfg}))
        config.data_problems()
        assert config.run_name

    assert check(written(folder / run_folder.OPTIONS, read), options_record()) > 0.4


def test_a_run_is_described(folder: Path, check: Callable[..., float]) -> None:
    stats = {"Progress/kimg": {"num": 1, "mean": 1.0, "std": 0.0}, "Timing/sec_per_kimg": {"num": 1, "mean": 1.0}}
    ends = {"exit_code": 75, "message": "stopped", "kimg": 1.0, "started": 1.0, "ended": 2.0}
    (folder / run_folder.STATS).write_text(as_json(stats) + "\n")
    (folder / run_folder.EXIT).write_text(as_json(ends))

    def read() -> None:
        json.dumps(facts := describe_run(folder))
        assert list(sg3.cli.info._flatten(facts))

    check(written(folder / run_folder.STATS, read), stats)
    check(written(folder / run_folder.EXIT, read), ends)
    check(written(folder / run_folder.OPTIONS, read), {"config": {"cfg": "a", "dataset": {"path": "b"}}})


def test_option_files(tmp_path: Path, check: Callable[..., float]) -> None:
    said = {"cfg": "stylegan3-t", "batch": 8, "gamma": 2.0, "mirror": True, "data": "x.zip", "grid": "2x2", "seed": 1,
            "metrics": "none", "desc": "a", "preset": "demo", "kimg": 1}  # fmt: skip

    def read() -> None:
        values, _ = read_options(tmp_path / "a.json")
        resolve(options_of(values), facts(path=str(values.get("data", "x"))))

    assert check(written(tmp_path / "a.json", read), said) > 0.5


TOML = [
    "a = " + "[" * 5000, "[" * 5000, "a" * 2_000_000, "a = 1" + "0" * 5000, "batch = 1979-05-27", "\x00", "batch = {}",
    "[a]\n[a]", "batch = nan", "a = 'x", "batch = 1e400", "preset = []", "preset = {a = 1}", "'' = 1",
    "grid = [1, [2]]", "a." * 3000 + "a = 1", "x = [\n" * 900, '"\\ud800" = 1', "batch = 0x" + "f" * 100,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(TOML)))
def test_toml(number: int, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML[number])
    with pytest.raises(DataError, match=r"--config=.*a\.toml: "):
        read_options(tmp_path / "a.toml")


def test_best_values(folder: Path, check: Callable[..., float]) -> None:
    evaluation = object.__new__(Evaluation)
    evaluation._run_dir = folder
    best = {"fid50k_full": {"result": "fid50k_full", "value": 3.0, "snapshot": "network-snapshot-000001.pkl"}}

    def read() -> None:
        evaluation.forget_after(500)
        assert all(isinstance(name, str) for name in evaluation.best_snapshots())

    assert check(written(folder / run_folder.BEST, read), best) > 0.5


def test_lines_of_metrics(folder: Path, check: Callable[..., float]) -> None:
    line = {"results": {"fid50k_full": 3.0}, "metric": "fid50k_full", "snapshot_pkl": "network-snapshot-000001.pkl",
            "total_time": 1.0, "recipe": {"network_sha256": "0"}}  # fmt: skip

    def read() -> None:
        evaluation = object.__new__(Evaluation)
        evaluation._run_dir = folder
        assert isinstance(_curves(folder, "fid50k_full"), dict)
        evaluation.forget_after(0)

    check(written(folder / "metric-fid50k_full.jsonl", read), line)


def test_labels(check: Callable[..., float]) -> None:
    def read(document: Any) -> None:
        try:
            manifest = parse_shallow(as_json(document))
        except ValueError:
            raise DataError("x") from None
        if isinstance(manifest, dict):
            labels = labels_by_name(manifest, "dataset.json")
            if labels:
                label_array(labels, ["a.png"], "dataset.json")

    check(read, {"labels": [["a.png", 3], ["b.png", 4]], "sg3": {"classes": ["a"]}})
    check(read, {"labels": [["a.png", [0.5, 1.0]]]})


def test_tables_of_kernels(tmp_path: Path, check: Callable[..., float]) -> None:
    table = {"gpu": "A", "triton": "3", "classes": {"op": {"group": {"choice": {"warps": 4}}}}}

    def read() -> None:
        try:
            tuning.read(tmp_path / "tuning.json")
        except tuning.DamagedTableError as error:
            raise DataError(str(error)) from None

    check(written(tmp_path / "tuning.json", read), {"format": tuning.FORMAT, "tables": [table]})


@pytest.mark.parametrize("name", [run_folder.OPTIONS, run_folder.EXIT])
def test_deep_json(name: str, folder: Path) -> None:
    (folder / name).write_text('{"config": ' + "[" * 100_000)
    with pytest.raises(DataError, match=name):
        describe_run(folder)


# ---- states


def strange() -> list[Any]:
    """What a state that torch reads may hold."""
    return [
        None, True, -1, 2**62, 0.5, float("nan"), "a", [], {}, [1], {"a": 1}, {0: 1}, (), torch.zeros(0),
        torch.zeros(3, 3, 3), torch.zeros(1, dtype=torch.int64), torch.zeros(2).to_sparse(),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer, and the state that it had after a step."""
    from tests.helpers.image_files import encoded, pixels, write_zip

    data = write_zip(tmp_path_factory.mktemp("data") / "a.zip", {f"{i}.png": encoded(pixels(i, 16)) for i in range(12)})
    config = tiny_config(data, facts(path=str(data)))
    trainer = new_trainer(config)
    for optimizer in trainer.optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(True)
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return trainer, {"format": 2, **trainer.state_dict()}


@pytest.mark.parametrize("every", [pytest.param(5, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_states(every: int, state: Any) -> None:
    trainer, whole = state
    counters = {name: whole[name] for name in whole if not isinstance(whole[name], dict) or len(whole[name]) < 8}
    name, optimizer = next(iter(whole["optimizers"].items()))
    small = {"state": {n: optimizer["state"][n] for n in list(optimizer["state"])[:2]}, **{
        key: value for key, value in optimizer.items() if key != "state"}}
    others = {key: value for key, value in whole["optimizers"].items() if key != name}

    def read(part: Any) -> None:
        whole_again = {**whole, **part, "optimizers": {**others, name: part.get("optimizer", small)}}
        require_same_run(whole_again.get("config"), trainer.config, "x")
        check_state(whole_again, trainer.state_dict(), trainer.optimizers, "run")
        trainer.load_state_dict(whole_again)

    part = {**counters, "config": dict(list(whole["config"].items())[:6]) | whole["config"], "optimizer": small,
            "G": dict(list(whole["G"].items()))}  # fmt: skip
    part.pop("optimizers", None)
    refused = 0
    for what, mutated in islice(mutations(part, strange()), None, None, every):
        if not isinstance(mutated, dict):
            continue
        try:
            read(mutated)
        except DataError:
            refused += 1
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert refused > 300 / every


@pytest.mark.parametrize("averages", [None, {}, [], [{"w": torch.zeros(3)}] * 2, [{"w": torch.zeros(1)}], [{}], [3]])
def test_lists_within_states(averages: Any) -> None:
    """Those of --posthoc-ema. A tensor of one element would be copied into all of another without a word."""
    like = {"power_averages": [{"w": torch.zeros(3)}]}
    check_state({"power_averages": [{"w": torch.ones(3)}]}, like, {}, "run")
    with pytest.raises(DataError, match="run: is no training state of this run: power_averages"):
        check_state({"power_averages": averages}, like, {}, "run")


@pytest.mark.parametrize("content", [None, 3, [], {}, {"format": [], "config": {}}, torch.zeros(2)])
def test_files_that_are_no_states(content: Any, tmp_path: Path) -> None:
    path = save_state(tmp_path, {"nimg": 0, "config": {}})
    torch.save(content, path)
    run_folder.digest_path(path).write_text(f"{sg3.formats.digest.sha256_of(path)}  {path.name}\n")
    with pytest.raises(DataError, match=r"training-state-0000000000\.pt: (is no training state|state format)"):
        load_state(tmp_path, pytest.fail)


