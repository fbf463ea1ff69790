"""What the server works with: networks, their thread, and pictures on request."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from sg3._version import __version__
from sg3.errors import DataError, MissingInputError, Sg3Error, StorageError, UsageError
from sg3.shortage import is_out_of_memory
from sg3.terminal import printable, say
from sg3.tools.files import Pixels
from sg3.viewer.catalogue import Catalogue, public
from sg3.viewer.engine import Busy, Engine, IsStale, Stale
from sg3.viewer.guard import Tokens
from sg3.viewer.library import Library, Unread
from sg3.viewer.pictures import Painter
from sg3.viewer.shelf import Shelf
from sg3.viewer.state import State
from sg3.viewer.views import view

Result = TypeVar("Result")
Check = Callable[[], None]

FINISHED_ANYWAY = 0.4  # seconds: a frame that takes less is not dropped for a newer one, or motion would never show
SMALL_FIRST = 0.1  # seconds: where a frame takes longer, a small one comes first
MOST_TIMES = 100
MOST_READINGS = 8  # for one picture: where many want many networks, they would only push out one another's
REQUESTS = 2  # of HTTP, for those who may everything and for those who look, that are at the networks together


class MemoryFull(Sg3Error):
    """The picture does not fit into memory."""


class Forbidden(Sg3Error):
    """The token is not for this."""


class TooLarge(UsageError):
    """The body is larger than this takes."""


@dataclass(frozen=True, eq=False)
class Visit:
    """A place in the queue for one request, of somebody who may do everything ('full') or only look. `gone` returns
    when whoever asks has gone away."""

    role: str
    gone: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Wanted:
    """A state that somebody wants to see, by a number of theirs."""

    number: int
    state: State
    moving: bool
    had_small: bool = False  # a small picture of it has been made, the whole one is to come


@dataclass(frozen=True)
class Frame:
    """A picture [H, W, C], and how many seconds the network took."""

    pixels: Pixels
    seconds: float
    is_small: bool = False  # a first impression, the whole picture is to come
    classes: int = 0  # of the network


class Viewer:
    """All that the clients share."""

    def __init__(self, catalogue: Catalogue, device: torch.device, tokens: Tokens) -> None:
        self.catalogue = catalogue
        self.tokens = tokens
        self.engine = Engine()
        self.shelf = Shelf()
        self._turns = {role: asyncio.Semaphore(REQUESTS) for role in ("full", "look")}
        self._library = Library(catalogue, device, self.shelf)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="sg3-reader")
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="sg3-aside")
        self._usual: OrderedDict[Hashable, float] = OrderedDict()  # seconds of the last whole frame of a kind

    async def frame(self, place: Hashable, state: State) -> Frame:
        """The picture of a state. Raises Sg3Error."""
        return (await self.newest(place, lambda: Wanted(0, state, False, had_small=True)))[1]

    async def newest(self, place: Hashable, wanted: Callable[[], Wanted]) -> tuple[Wanted, Frame]:
        """The picture of what is wanted at this place when its turn comes. Raises Stale if it was given up for what is
        wanted since, Sg3Error."""

        def paint(is_stale: IsStale) -> tuple[Wanted, Frame]:
            want = wanted()
            painter = self._library.painter(want.state.network)
            began = time.perf_counter()
            kind = want.state.network, want.state.compare, want.state.layer
            usual = self._usual.get(kind, 0.0)

            def check() -> None:
                if max(usual, time.perf_counter() - began) > FINISHED_ANYWAY and is_stale():
                    raise Stale

            is_plain = not want.state.layer and want.state.compare == "none"
            if is_plain and not want.had_small and usual > SMALL_FIRST \
                    and (small := painter.small(want.state, check)) is not None:  # fmt: skip
                return want, Frame(small, time.perf_counter() - began, is_small=True)
            pixels = view(want.state, self._library.painter, check)
            seconds = time.perf_counter() - began
            if is_plain and seconds > SMALL_FIRST:
                painter.learn(want.state)
            self._usual[kind] = max(seconds, 0.8 * usual)  # what is kept makes some frames quicker than others
            while len(self._usual) > MOST_TIMES:
                self._usual.popitem(last=False)
            return want, Frame(pixels, seconds, classes=painter.G.c_dim)

        return await self._on_thread(place, paint)

    async def with_network(self, place: Hashable, network: str, use: Callable[[Painter, Check], Result]) -> Result:
        """What `use` makes of a network, on the networks' thread; its check raises Stale when nobody wants it any more.
        Raises Sg3Error."""

        def work(is_stale: IsStale) -> Result:
            def check() -> None:
                if is_stale():
                    raise Stale

            return use(self._library.painter(network), check)

        return await self._on_thread(place, work)

    async def facts(self, network: str) -> dict[str, Any]:
        """What a page has to know of a network; it waits for no frame. Raises Sg3Error."""
        for _ in range(MOST_READINGS):
            painter = await asyncio.to_thread(self._library.known, network)
            if painter is not None:
                return painter.facts()
            await self._read(network)
        raise Unread(network)

    async def _on_thread(self, place: Hashable, use: Callable[[IsStale], Result]) -> Result:
        def work(is_stale: IsStale) -> Result:
            try:
                return use(is_stale)
            except Exception as error:
                full = self.memory_full(error)
                if full is None:
                    raise
            raise full  # out here, without the tensors of what has failed

        if not isinstance(place, Visit):
            return await self._with_reading(place, work)
        async with self._turns[place.role]:  # however many requests there are, the pages have their turns
            leaving = asyncio.create_task(self._leave(place))
            try:
                return await self._with_reading(place, work)
            finally:
                leaving.cancel()

    async def _leave(self, visit: Visit) -> None:
        """Give up what is made for somebody who goes away."""
        if visit.gone is not None:
            await visit.gone()
            self.engine.forget(visit)

    async def _with_reading(self, place: Hashable, work: Callable[[IsStale], Result]) -> Result:
        """Have it done; again, when networks that it needs have been read."""
        for _ in range(MOST_READINGS):
            try:
                return await asyncio.wrap_future(self.engine.submit(place, work))
            except Unread as unread:
                missing = unread
            await self._read(missing.name)
        raise missing

    async def _read(self, network: str) -> None:
        """Read a network, one after the other; who is gone before its turn wants nothing any more."""

        def read() -> None:
            if self._library.known(network) is not None:  # somebody else wanted it, too
                return
            try:
                opened = self._library.read(network)
                self.engine.submit(object(), lambda _: self._library.keep(opened)).result()
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failed = error
            raise self.engine.submit(object(), lambda _: self.memory_full(failed)).result() or failed

        await asyncio.get_running_loop().run_in_executor(self._reader, read)

    def memory_full(self, error: Exception) -> MemoryFull | None:
        """If this is what the error says: the error to tell. Frees what can be freed; on the networks' thread."""
        if not is_out_of_memory(error):
            return None
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of what has failed
        self._library.forget()
        return MemoryFull("out of memory: this does not fit; close other programs or use a smaller network")

    def aside(self, work: Callable[[], Result]) -> Future[Result]:
        """Have something done that needs no network, such as decoding an image, on a thread of its own."""
        return self._aside.submit(work)

    def painter(self, network: str) -> Painter:
        """A network, for work on the networks' thread. Raises Sg3Error."""
        return self._library.painter(network)

    def settings(self, state: State, classes: int) -> dict[str, object]:
        """What goes into the metadata of a picture: the names of `sg3 generate`, and what else is not the default. Of a
        network without `classes` none, whatever the state says."""
        if classes == 0 and state.compare == "none":  # the second network may have some
            state = replace(state, class_idx=None, class_b=None, class_mix=0.0)
        return {
            "seed": state.seed, **state.plain(), "network": Path(self.catalogue.find(state.network).name).name,
            "trunc": state.trunc, "class": state.class_idx, "noise_mode": state.noise_mode,
            "translate": list(state.translate), "rotate": state.rotate, "sg3": __version__,
        }  # fmt: skip

    def explain(self, error: Exception) -> tuple[int, str]:
        """Status and words for a client; what is a bug goes to the terminal."""
        if isinstance(error, Sg3Error) or hasattr(error, "exit_code"):
            statuses: list[tuple[type[Exception], int]] = [
                (Busy, 503), (MemoryFull, 507), (Forbidden, 403), (TooLarge, 413), (UsageError, 400),
                (DataError, 422), (MissingInputError, 404), (StorageError, 500),
            ]  # fmt: skip
            status = next((status for kind, status in statuses if isinstance(error, kind)), 500)
            return status, public(error, self.catalogue).removeprefix("--")
        if isinstance(error, Stale):
            return 409, "a newer request has taken the place of this one"
        say(f"viewer: {type(error).__name__}: {printable(error, 300)}")
        return 500, f"{type(error).__name__} inside the server (a bug in sg3; its terminal says more)"

    def close(self) -> bool:
        """End the networks' thread; whether it has ended."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._aside.shutdown(wait=False, cancel_futures=True)
        return self.engine.close()
