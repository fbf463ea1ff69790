"""The first pass of preparing a dataset: look at every image, and name all those that cannot be used."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

from sg3 import limits
from sg3.data.dataset_json import Label
from sg3.data.decode import MODE_WORDS, Header, count_pixels, probe
from sg3.data.sources import Payload, Source
from sg3.data.transforms import ImagePlan, is_trainable_size, nearest_side, nearest_size, why_not
from sg3.errors import DataError
from sg3.resources import usable_cpus

Progress = Callable[[str, int, int], None]  # (what is being done, images done, images in all)
ReadResult = Payload | DataError

_T = TypeVar("_T")
_R = TypeVar("_R")


class Found(NamedTuple):
    """An image that can be read."""

    key: str
    header: Header


class Offender(NamedTuple):
    """An image that cannot be used, and why (naming it); its header if it does not fit, but could be made to."""

    key: str
    message: str
    header: Header | None = None


class UnusableImages(DataError):
    """Images that cannot be used: how many, the first, and what would help. `messages` has one line for each."""

    def __init__(self, source: Source, usable: list[Found], offenders: list[Offender], plan: ImagePlan) -> None:
        self.messages = [offender.message for offender in offenders]
        advice = [f"{words} would make {count} of them usable" for words, count in
                  _remedies(source, usable, offenders, plan)]  # fmt: skip
        if usable:
            advice.append("--on-error=skip leaves them out")
        super().__init__(f"{source.name}: {len(offenders)} of {len(usable) + len(offenders)} images cannot be used, "
                         f"first {'; '.join([self.messages[0], *advice])}")


def scan(
    source: Source, keys: list[str], plan: ImagePlan, labels: dict[str, Label] | None, unlike: str, progress: Progress
) -> tuple[list[Found], list[Offender]]:
    """Sort the images into usable and not, each in the order of `keys`. `unlike` is a name that has a label and is no
    image's, if there is one: an image without a label may have another name there. Raises StorageError only."""
    found: list[Found] = []
    offenders: list[Offender] = []
    for count, result in enumerate(_examine_all(source, keys), start=1):
        if isinstance(result, Offender):
            offenders.append(result)
        elif labels is not None and result.key not in labels:
            theirs = f" for {result.key!r}, where the labels have names like {unlike!r}" if unlike else ""
            offenders.append(Offender(result.key, f"{source.where(result.key)}: no label{theirs}"))
        else:
            found.append(result)
        progress("scanning", count, len(keys))
    odd = _odd_ones_out(source, found, plan)
    odd_keys = {offender.key for offender in odd}
    usable = [one for one in found if one.key not in odd_keys]
    order = {key: index for index, key in enumerate(keys)}
    return usable, sorted(offenders + odd, key=lambda offender: order[offender.key])


def read_all(source: Source, keys: Iterable[str]) -> Iterator[tuple[str, ReadResult]]:
    """(key, image) in order, or the error in the image's place."""
    for key in keys:
        try:
            yield key, source.read(key)
        except DataError as error:
            yield key, error


def ordered_map(
    function: Callable[[_T], _R], items: Iterable[_T], pixels: Callable[[_T], int] = lambda _: 0
) -> Iterator[_R]:
    """`map` on a few threads (Pillow works outside the interpreter lock), with only a few items in flight: together
    they have no more than limits.PIXELS_IN_FLIGHT pixels, or else there is one alone."""
    workers = min(4, usable_cpus())
    pending: deque[tuple[Future[_R], int]] = deque()
    in_flight = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                size = pixels(item)
                while pending and (len(pending) >= 2 * workers or in_flight + size > limits.PIXELS_IN_FLIGHT):
                    future, done = pending.popleft()
                    yield future.result()
                    in_flight -= done
                pending.append((pool.submit(function, item), size))
                in_flight += size
            while pending:
                yield pending.popleft()[0].result()
        finally:
            for future, _ in pending:
                future.cancel()


def _examine_all(source: Source, keys: list[str]) -> Iterator[Found | Offender]:
    if source.uniform is not None:
        return (Found(key, source.uniform) for key in keys)
    return ordered_map(lambda item: _examine(source, *item), read_all(source, keys), _pixels)


def _pixels(item: tuple[str, ReadResult]) -> int:
    _, payload = item
    return count_pixels(payload) if isinstance(payload, bytes) else 0


def _examine(source: Source, key: str, payload: ReadResult) -> Found | Offender:
    if isinstance(payload, DataError):
        return Offender(key, str(payload))
    assert isinstance(payload, bytes), "arrays come with a uniform header"
    try:
        return Found(key, probe(payload, source.where(key)))
    except DataError as error:
        return Offender(key, str(error))


def _remedies(
    source: Source, usable: list[Found], offenders: list[Offender], plan: ImagePlan
) -> Iterator[tuple[str, int]]:
    """Options that help, and how many images more could be used with them."""
    odd = [Found(offender.key, offender.header) for offender in offenders if offender.header is not None]
    if not odd:
        return
    found = usable + odd
    convert, converted = "--convert=rgb (or gray, rgba)", replace(plan, convert="rgb")
    resize, resized = "", plan
    if plan.resolution is None:
        side = nearest_side(statistics.median_low(min(header.width, header.height) for _, header in found))
        resize, resized = f"--resolution={side}x{side}", replace(plan, resolution=(side, side))
        if plan.crop is None and any(header.width != header.height for _, header in odd):
            resize, resized = f"--transform=center-crop {resize}", replace(resized, crop="center-crop")
            yield from _rectangle(source, found, odd, plan)

    def helped(other: ImagePlan) -> int:
        return len(odd) - len(_odd_ones_out(source, found, other))

    alone = {convert: helped(converted), resize: helped(resized)}
    yield from ((words, count) for words, count in alone.items() if count > 0)
    if (count := helped(replace(resized, convert="rgb"))) > max(*alone.values(), 0):
        yield f"{resize} {convert}", count


def _rectangle(source: Source, found: list[Found], odd: list[Found], plan: ImagePlan) -> Iterator[tuple[str, int]]:
    """The size that StyleGAN2 and 3 take instead of the images', if most of these are of one size and not square."""
    (usual, count), *_ = Counter((header.width, header.height) for _, header in found).most_common(1)
    size = nearest_size(usual)
    if 2 * count <= len(found) or usual[0] == usual[1] or size[0] == size[1]:
        return
    other = replace(plan, resolution=size, crop="center-crop")
    if (helped := len(odd) - len(_odd_ones_out(source, found, other))) > 0:
        yield f"--transform=center-crop --resolution={size[0]}x{size[1]} (for StyleGAN2 and 3)", helped


def _odd_ones_out(source: Source, found: list[Found], plan: ImagePlan) -> list[Offender]:
    """Images whose result would be of a size that no network has, or not like most others."""
    if not found:
        return []
    offenders: list[Offender] = []
    fitting: list[tuple[Found, str, str]] = []  # with size and mode, those that could be a dataset on their own
    for one in found:
        key, header = one
        width, height = plan.output_size(header.width, header.height)
        size = f"{width}x{height}"
        if not is_trainable_size((width, height)):
            offenders.append(Offender(key, f"{source.where(key)}: {size}, {why_not((width, height))}", header))
        else:
            fitting.append((one, size, MODE_WORDS[plan.output_mode(header.mode)]))
    if not fitting:
        return offenders
    (usual_size, usual_mode), _ = Counter((size, mode) for _, size, mode in fitting).most_common(1)[0]
    for (key, header), size, mode in fitting:
        if size != usual_size:
            offenders.append(Offender(key, f"{source.where(key)}: {size}, most are {usual_size}", header))
        elif mode != usual_mode:
            offenders.append(Offender(key, f"{source.where(key)}: {mode}, most are {usual_mode}", header))
    return offenders
