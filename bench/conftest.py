"""`pytest bench`: the fixture that admits, times and records a case, and the options and hooks around it.

    pytest bench                      everything that fits the machine: the CPU suite in under 5 minutes
    pytest bench -k filtered_lrelu    a part; its results go to a file that git ignores
    SG3_BENCH_FULL=1 pytest bench     every layer, and torch.compile for every case; much longer
    SG3_BENCH_SECONDS=3               time to spend on each case and mode (0.2)
    SG3_BENCH_THREADS=1               threads on a CPU (2)
    SG3_BENCH_DEVICE=cpu              where there is a GPU, but the CPU is meant
    SG3_BENCH_BATCH=4                 images per batch on a GPU (8)
    SG3_BENCH_DEADLINE=120            begin no case after so many seconds
    SG3_BENCH_ORIGINAL=OP=MODULE,...  time these modules' ops as one more peer, 'original', if they can be imported
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import machine, memory, report, roofline
from bench.measure import Clock, admit, floors, release, statistics
from bench.workloads import Workload
from sg3.device import keep_freed_memory
from sg3.kernels.dispatch import IMPLEMENTATIONS

RESULTS = Path(__file__).resolve().parent / "results"
FULL = bool(os.environ.get("SG3_BENCH_FULL"))


@dataclass
class Session:
    """What all cases of a run share, and what they leave."""

    device: torch.device
    threads: int
    rates: roofline.Device
    clock: Clock
    facts: dict[str, Any]
    cases: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        """Whether no more cases should begin."""
        deadline = os.environ.get("SG3_BENCH_DEADLINE")
        return deadline is not None and time.monotonic() - self.began > float(deadline)

    def write(self, path: Path) -> dict[str, Any]:
        """Write the results so far; returns them."""
        result = {**self.facts, "cases": self.cases}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        return result


SESSION = pytest.StashKey[Session]()


def bench_device() -> torch.device:
    """Where to measure; the test files choose their shapes by it."""
    name = os.environ.get("SG3_BENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", metavar="FILE", help="where to write the results (bench/results/HARDWARE.json)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("the benchmarks need pytest-benchmark: pip install 'sg3[bench]'")
    # Its table would show the time of a whole turn of all peers; ours, by peer, is printed at the end.
    config.option.benchmark_quiet = True


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Session:
    """Set up the device, once."""
    device = bench_device()
    threads = int(os.environ.get("SG3_BENCH_THREADS") or min(2, os.cpu_count() or 1))
    if device.type == "cpu":
        torch.set_num_threads(threads)
        keep_freed_memory()  # as the commands do
    # The networks' float32 layers are exact float32 (no tf32), as in the original.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    rates = roofline.measure() if device.type == "cuda" else roofline.Device()
    words = " ".join(["pytest", *map(str, request.config.invocation_params.args)])
    words = re.sub(r" --results[= ]\S+", "", words)  # where a file went is nobody's business but its owner's
    facts = machine.facts(device, threads, words)
    if device.type == "cuda":
        facts["rates"] = {k: float(f"{v:.4g}") for k, v in vars(rates).items()}
    made = Session(device, threads, rates, Clock(device), facts)
    request.config.stash[SESSION] = made
    return made


@pytest.fixture
def paired(benchmark: Any, session: Session, request: pytest.FixtureRequest) -> Callable[..., None]:
    """paired(workload, compile, target, memory_of): check the peers, time them in turns, keep the result.

    `compile` names the implementations to time under torch.compile as well, `target` the goal that the case counts
    for (bench/report.py), `memory_of` the peers whose peak memory to measure on a CPU, where it takes a process each.
    """

    def run(
        workload: Workload, compile: tuple[str, ...] = (), target: str = "", memory_of: tuple[str, ...] = ()
    ) -> None:
        if session.is_over():
            pytest.skip("SG3_BENCH_DEADLINE is over")
        on_gpu = session.device.type == "cuda"
        kernels = "triton" if on_gpu else "numba"
        available = IMPLEMENTATIONS.get(workload.op, ("torch", kernels))  # of an op; networks are made of several
        names = ["ref", *(name for name in ("torch", kernels) if name in available)]
        names += [f"compile({name})" for name in compile]
        if os.environ.get("SG3_BENCH_ORIGINAL"):
            names.append("original")
        admitted, facts = admit(workload, names, session.device)
        if not on_gpu:
            facts["triton"] = {"skipped": "on a CPU Triton has only its interpreter"}
        samples: dict[str, list[float]] = {name: [] for name in admitted}

        def turn() -> None:
            for name, peer in admitted.items():
                samples[name].append(session.clock(peer.run))

        # pytest-benchmark repeats, selects and saves; the times that count are taken within the turn, because its own
        # way, one peer after the other, would compare the machine at different moments.
        turn()  # warms up
        seconds = sum(times[-1] for times in samples.values())
        budget = float(os.environ.get("SG3_BENCH_SECONDS") or 0.2)
        rounds = max(5 if seconds < 2 else 3, min(40, int(budget / seconds)))
        for times in samples.values():
            times.clear()
        benchmark.pedantic(turn, rounds=rounds)
        for name, numbers in statistics(samples).items():
            facts[name].update(numbers)
        if not on_gpu:
            for name in memory_of:
                facts[name]["peak_mb"] = round(memory.peak_mb(workload, name, session.threads), 1)
        case = {
            "op": workload.op, "case": workload.title, "mode": workload.mode, "rounds": rounds,
            "dtype": str(workload.dtype).removeprefix("torch."), **({"target": target} if target else {}),
            **(floors(workload, session.rates, facts) if on_gpu else {}), "peers": facts,
        }  # fmt: skip
        benchmark.group = workload.op
        benchmark.extra_info.update(case)
        session.cases.append(case)
        if request.config.option.results:  # whoever named a file may not wait for the end
            session.write(Path(request.config.option.results))
        admitted.clear()
        release(session.device)

    return run


def result_path(config: pytest.Config, facts: dict[str, Any]) -> Path:
    """--results, else by hardware; the results of a part of the suite do not replace those of all of it."""
    if config.option.results:
        return Path(config.option.results)
    part = config.option.keyword or any("::" in str(a) or str(a).endswith(".py") for a in config.args)
    kind = "-part" if part else "-full" if FULL else ""
    return RESULTS / f"{machine.slug(facts['hardware'])}{kind}.json"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the results and print them as `python -m bench.report` would."""
    made = config.stash.get(SESSION, None)
    if made is None or not made.cases:
        return
    path = result_path(config, made.facts)
    result = made.write(path)
    terminalreporter.section("benchmarks")
    terminalreporter.write_line(report.markdown(result))
    terminalreporter.write_line(f"Written to {path}; `python -m bench.report {path} --plot=bench.png` draws it.")
    busy = made.facts["load_before"] / (made.facts["cores"] or 1)
    if made.device.type == "cpu" and busy > 0.25:
        terminalreporter.write_line(
            f"warning: the machine was not idle (load {made.facts['load_before']} on {made.facts['cores']} cores): "
            "threads that wait for each other make these times up to several times too long, and ratios worthless"
        )
