"""Passes on to `sinks.py` what a run writes into its folder: statistics, metrics, image grids.

It reads the files, so a sink that is added when a run continues gets all of it from the beginning, and one that was cut
off what it has not had. How far each has come is in the run's logged.json.
"""

from __future__ import annotations

import math
import threading
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sg3.atomic import write_json
from sg3.errors import Sg3Error
from sg3.metrics.results import by_meaning, read, unlike
from sg3.run_folder import LOGGED, STATS, fakes, kimg_of, metric_names, read_lines, read_object
from sg3.terminal import printable
from sg3.train.sinks import SINKS, Sink
from sg3.train.tick import Moment

T = TypeVar("T")
OPEN_SECONDS = 120.0  # for a sink to be there; services have shorter limits of their own, where they have some
GIVE_SECONDS = 15.0  # for it to take something: training waits, at the end of a tick
CLOSE_SECONDS = 15.0  # for a sink to send what is left: whoever has stopped the run waits for that
NOTHING = {"nimg": -1, "measured": -1, "pictured": -1}  # images at the last tick; kimg of the last metrics and grid


class Forwarding:
    """Feeds the sinks at the end of a tick, on rank 0. One that fails or hangs is left out from then on, with a
    warning."""

    what = "passing on statistics"

    def __init__(
        self, run_dir: Path, names: Sequence[str], config: Mapping[str, Any], nimg: int, warn: Callable[[str], object]
    ) -> None:
        """For a run that goes on after `nimg` images: what was passed on of later ones will come again."""
        self._run_dir = run_dir
        self._warn = warn
        self._sinks: dict[str, Sink] = {}
        self._had = _read_had(run_dir)
        for name in names:
            had = self._had.setdefault(name, {"id": uuid.uuid4().hex[:12], **NOTHING})
            most = {"nimg": nimg, "measured": nimg // 1000, "pictured": nimg // 1000}
            had.update({key: min(had[key], limit) for key, limit in most.items()})
            with self._surviving(name):
                self._sinks[name] = in_time(partial(SINKS[name][0], run_dir, config, had["id"], nimg), OPEN_SECONDS)

    def __enter__(self) -> Forwarding:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the sinks; one that takes long does so by itself, or not at all."""
        closing = [threading.Thread(target=self._close, args=(name,), daemon=True) for name in list(self._sinks)]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(CLOSE_SECONDS)

    def is_due(self, moment: Moment) -> bool:
        """At the end of a tick."""
        return moment.ends_tick and bool(self._sinks)

    def run(self, moment: Moment) -> None:
        """Pass on what is new."""
        self.pass_on()

    def pass_on(self) -> None:
        """Everything that a sink has not had yet, the oldest first."""
        ticks = _ticks(self._run_dir, min((self._had[name]["nimg"] for name in self._sinks), default=0))
        measured = _measured(self._run_dir)
        pictures = fakes(self._run_dir)
        for name in list(self._sinks):
            had = self._had[name]
            ends = [nimg for nimg, _ in ticks if nimg > had["nimg"]]

            def end_of(kimg: int, ends: list[int] = ends) -> int:
                """Of the tick after which there was a snapshot or a grid of that name, in images."""
                place = bisect_left(ends, kimg * 1000)
                return ends[place] if place < len(ends) else kimg * 1000

            new = [(nimg, "nimg", nimg, partial(_numbers, values)) for nimg, values in ticks if nimg > had["nimg"]]
            new += [(end_of(kimg), "measured", kimg, partial(_numbers, values))
                    for kimg, values in measured.items() if kimg > had["measured"]]  # fmt: skip
            new += [(end_of(kimg), "pictured", kimg, partial(_picture, path))
                    for kimg, path in pictures.items() if kimg > had["pictured"]]  # fmt: skip
            # Steps only go forward, so what comes late counts for the last tick.
            for at, kind, reached, give in sorted(new, key=itemgetter(0)):
                self._give(name, partial(give, max(at, had["nimg"])))
                had[kind] = reached
        with suppress(Sg3Error):  # a full disk ends the run where something is lost by it
            write_json(self._run_dir / LOGGED, self._had)

    def _give(self, name: str, give: Callable[[Sink], object]) -> None:
        if name in self._sinks:
            with self._surviving(name):
                in_time(partial(give, self._sinks[name]), GIVE_SECONDS)

    def _close(self, name: str) -> None:
        with suppress(Exception):
            self._sinks[name].close()

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """A plotting convenience must not end a training run."""
        try:
            yield
        except Exception as error:
            self._sinks.pop(name, None)
            cause = printable(f"{type(error).__name__}: {error}", limit=200)
            self._warn(f"warning: --log-to={name}: {cause}; it gets nothing more of this run, training goes on")


def in_time(work: Callable[[], T], seconds: float) -> T:
    """The result of `work`, or what it raises; TimeoutError if that takes longer, and then it goes on unheard."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    try:
        return done.result(seconds)
    except TimeoutError:
        if done.done():  # it is the work's own
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def _numbers(values: Mapping[str, float], nimg: int, sink: Sink) -> None:
    if values:
        sink.numbers(values, nimg)


def _picture(path: Path, nimg: int, sink: Sink) -> None:
    sink.picture("fakes", path, nimg)


def _read_had(run_dir: Path) -> dict[str, dict[str, Any]]:
    """What logged.json says of each sink, as far as it makes sense."""
    try:
        content = read_object(run_dir / LOGGED)
    except (OSError, Sg3Error):
        return {}
    return {
        name: {"id": had["id"], **{key: had[key] for key in NOTHING}}
        for name, had in content.items()
        if name in SINKS and isinstance(had, dict) and isinstance(had.get("id"), str) and had["id"].isalnum()
        and all(type(had.get(key)) is int for key in NOTHING)
    }  # fmt: skip


def _ticks(run_dir: Path, after: int) -> list[tuple[int, dict[str, float]]]:
    """Of the lines of stats.jsonl beyond so many images: images and means, the oldest first."""
    ticks = []
    for line in read_lines(run_dir / STATS, newest_first=True):
        means = {name: entry["mean"] for name, entry in line.items() if isinstance(entry, dict) and "mean" in entry}
        values = {name: float(mean) for name, mean in means.items() if _is_number(mean)}
        nimg = round(values.get("Progress/kimg", -1.0) * 1000)
        if nimg <= after:
            break
        ticks.append((nimg, values))
    return ticks[::-1]


def _measured(run_dir: Path) -> dict[int, dict[str, float]]:
    """By kimg of snapshots: all results of metrics, named Metrics/NAME. What cannot be compared with a metric's first
    lines, such as images over another background, has a name of its own that says so: sinks keep what they once had."""
    found: dict[int, dict[str, float]] = {}
    for metric in metric_names(run_dir):
        lines = list(read(run_dir, metric))
        kind_of, kinds = by_meaning(lines)
        for line, kind in zip(lines, kind_of, strict=True):
            kimg, words = kimg_of(line.get("snapshot_pkl")), unlike(kinds[kind], kinds[0])
            if kimg is not None:
                values = {f"Metrics/{name}{f' ({words})' if words else ''}": float(value)
                          for name, value in line["results"].items() if _is_number(value)}  # fmt: skip
                found.setdefault(kimg, {}).update(values)
    return dict(sorted(found.items()))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
