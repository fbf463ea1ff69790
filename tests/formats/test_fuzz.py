"""Valid files of every kind, damaged in every way: nothing but sg3's own errors comes out, and nothing is executed.

`python -m tests.formats.test_fuzz FOLDER COUNT SEED [FILE...]` damages each FILE (without any: one file of each of
KINDS) in COUNT ways, loads the results under a memory limit, and prints one JSON line per file. Splices take pieces of
hostile files, which would leave FOLDER/sentinel if they were executed.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import pickletools
import re
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import Sg3Error
from sg3.formats.mmagic import LEAVES
from sg3.formats.stylegan2_names import generator_weights
from sg3.formats.torch_file import LEGACY_TORCH
from sg3.models import stylegan2
from tests.helpers import gan_files, hostile
from tests.helpers import tiny_networks as tiny

ROOT = Path(__file__).parents[2]
MEMORY = 512 * 2**20
SECONDS = 2.0
Rng = np.random.Generator


def saved(snapshot: sg3.Snapshot, folder: Path, suffix: str = ".pkl") -> bytes:
    path = folder / f"valid{suffix}"
    sg3.save(snapshot, path)
    return path.read_bytes()


def of_all_values(network: torch.nn.Module) -> sg3.Snapshot:
    """A snapshot whose tensors, arguments and settings are of all sorts."""
    settings = {"class_name": "a.B", "path": "a.zip", "max_size": None, "xflip": True, "resolution": 16, "x": [1.5, -2]}
    return sg3.Snapshot(G_ema=network, training_set_kwargs=settings)


def unconditional() -> torch.nn.Module:
    return stylegan2.Generator(
        z_dim=6, c_dim=0, w_dim=6, img_resolution=8, img_channels=3, mapping_kwargs={"num_layers": 1},
        channel_base=64, channel_max=6,
    )  # fmt: skip


def torch_saved(content: object, new: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


def mmagic() -> dict[str, Any]:
    """A checkpoint with the weights and some of what training leaves beside them."""
    network = unconditional()
    state, names = network.state_dict(), generator_weights(LEAVES, 8, [0], first=0)
    weights = {f"generator_ema.{weight.theirs}": weight.write(state[weight.ours]) for weight in names}
    return {"meta": {"epoch": 1, "cfg": "a = 1"}, "state_dict": weights, "optimizer": {"state": {0: torch.zeros(2)}}}


def r3gan_snapshot() -> sg3.Snapshot:
    """With the state of an optimizer."""
    G, D = gan_files.r3gan_pair()
    return sg3.Snapshot(G=G, D=D, optimizers={"D": gan_files.adam_state(D)}, progress={"cur_nimg": 64})


def their_pickle() -> bytes:
    G, D = gan_files.r3gan_pair()
    state = gan_files.adam_state(D)
    return gan_files.pickled_by_their_code({"G": G, "D": D, "cur_nimg": 64, "D_opt_state": state})


KINDS: dict[str, Callable[[Path], bytes]] = {
    "StyleGAN2 .pkl": lambda folder: saved(of_all_values(tiny.stylegan2_generator()), folder),
    "StyleGAN3 .pkl": lambda folder: saved(of_all_values(tiny.stylegan3_generator(radial=True)), folder),
    "discriminator .pkl": lambda folder: saved(sg3.Snapshot(D=tiny.discriminator()), folder),
    ".safetensors": lambda folder: saved(of_all_values(tiny.stylegan3_generator()), folder, ".safetensors"),
    "R3GAN .safetensors": lambda folder: saved(r3gan_snapshot(), folder, ".safetensors"),
    "R3GAN's own .pkl": lambda _: their_pickle(),
    "FastGAN's own .pkl": lambda _: gan_files.pickled_by_their_code({"G_ema": gan_files.fastgan_generator()}),
    "rosinality .pt": lambda folder: saved(sg3.Snapshot(G_ema=unconditional()), folder, ".pt"),
    "mmagic .pth": lambda _: torch_saved(mmagic()),
    "old mmagic .pth": lambda _: torch_saved(mmagic(), new=False),
}


# ---- damage to bytes


def at(content: Sequence[Any], rng: Rng) -> int:
    return int(rng.integers(len(content) + 1))


def flip(content: bytes, _other: bytes, rng: Rng) -> bytes:
    result = bytearray(content)
    for i in rng.integers(len(content), size=rng.integers(1, 5)):
        result[i] ^= 1 << int(rng.integers(8))
    return bytes(result)


def flip_at_the_ends(content: bytes, _other: bytes, rng: Rng) -> bytes:
    """Where headers and tables of contents are."""
    result = bytearray(content)
    for i in rng.integers(-200, 200, size=rng.integers(1, 4)):
        result[i % len(result)] = int(rng.integers(256))
    return bytes(result)


def insert(content: bytes, _other: bytes, rng: Rng) -> bytes:
    i = at(content, rng)
    return content[:i] + rng.bytes(int(rng.integers(1, 20))) + content[i:]


def delete(content: bytes, _other: bytes, rng: Rng) -> bytes:
    i, length = at(content, rng), 2 ** int(rng.integers(10))
    return content[:i] + content[i + length :]


def swap(content: bytes, _other: bytes, rng: Rng) -> bytes:
    """Two blocks change places."""
    a, b, c, d = sorted(at(content, rng) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def truncate(content: bytes, _other: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(len(content)))]


def exaggerate(content: bytes, _other: bytes, rng: Rng) -> bytes:
    """Four or eight bytes become an extreme number: a length, an offset, a count."""
    i = at(content, rng)
    form, values = (("<i", (0, -1, 2**31 - 1, 2**24)), ("<q", (2**40, 2**62, -1, 2**63 - 1)))[int(rng.integers(2))]
    number = struct.pack(form, values[int(rng.integers(4))])
    return content[:i] + number + content[i + len(number) :]


def splice(content: bytes, other: bytes, rng: Rng) -> bytes:
    """The beginning of one file and the end of another."""
    return content[: at(content, rng)] + other[at(other, rng) :]


def graft(content: bytes, other: bytes, rng: Rng) -> bytes:
    """A piece of another file inside."""
    i, j = at(content, rng), at(other, rng)
    return content[:i] + other[j : j + 2 ** int(rng.integers(12))] + content[i:]


# ---- damage to the structure


@dataclass
class Structure:
    """The units that a file consists of.

    Pickles and torch.save files: instructions. Safetensors files: tokens of the header. Everything around is made
    to fit (frames, checksums, lengths), so the damage arrives behind the outer checks.
    """

    units: list[bytes]
    together: Callable[[list[bytes]], bytes]  # makes a file of such units again
    extremes: list[bytes]  # values that nobody expects
    values: bytes  # what units that are values begin with

    def places(self) -> list[int]:
        """Where the values are, and once more where those are that constructors get."""
        places = [i for i, unit in enumerate(self.units) if unit[:1] in self.values]
        names = [i for i, unit in enumerate(self.units) if b"kwargs" in unit or b"args" in unit or b"config" in unit]
        near = [place for place in places if any(0 < place - name < 60 for name in names)]
        return places + near * (len(places) // max(len(near), 1))


EXTREMES = (None, True, -1, 0, 1, 3, 2**31 - 1, 10**9, 0.5, float("nan"), 1e300, "", "a", [], {}, (), [None], {"a": 1})


def taken_apart(content: bytes) -> Structure:
    if content[8:9] == b"{":
        (length,) = struct.unpack("<Q", content[:8])
        header, rest = content[8 : 8 + length], content[8 + length :]

        def with_header(units: list[bytes]) -> bytes:
            header = b"".join(units)
            return struct.pack("<Q", len(header)) + header + rest

        tokens = re.findall(rb'"(?:\\.|[^"\\])*"|[-\w.]+|.', header)
        return Structure(tokens, with_header, [json.dumps(v).encode() for v in EXTREMES], b'"-0123456789tfn')

    rest = b""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        inner = next(name for name in entries if name.endswith("data.pkl"))
        units, _ = instructions(entries[inner])

        def together(units: list[bytes]) -> bytes:
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                for name, data in entries.items():
                    archive.writestr(name, b"".join(units) if name == inner else data)
            return stream.getvalue()
    else:
        units, rest = instructions(content)

        def together(units: list[bytes]) -> bytes:
            return b"".join(units) + rest

    extremes = [pickletools.optimize(pickle.dumps(value, 3))[2:-1] for value in EXTREMES]
    return Structure(units, together, extremes, b"N\x88\x89KMJ\x8aGX\x8c]})h")


def instructions(content: bytes) -> tuple[list[bytes], bytes]:
    """Of the pickles in a file, without frames, which would only betray the damage; and what follows the last one."""
    stream = io.BytesIO(content)
    units = []
    for _ in range(5 if content.startswith(LEGACY_TORCH) else 1):
        found = [(instruction.name, position) for instruction, _, position in pickletools.genops(stream)]
        ends = [position for _, position in found[1:]] + [stream.tell()]
        units += [content[start:end] for (name, start), end in zip(found, ends, strict=True) if name != "FRAME"]
    return units, stream.read()


def restructured(own: Structure, places: list[int], other: Structure, rng: Rng) -> bytes:
    """One to three units removed, repeated, exchanged, replaced by others of the same or another file."""
    units, others = list(own.units), other.units
    for _ in range(rng.integers(1, 3)):
        i, j = int(rng.integers(len(units))), int(rng.integers(len(units)))
        k = int(rng.integers(len(others)))
        place = min(places[int(rng.integers(len(places)))], len(units) - 1)
        match rng.integers(10):
            case 0:
                del units[i : i + int(rng.integers(1, 4))]
                units = units or [b"."]
            case 1:
                units.insert(i, units[i])
            case 2:
                units[i], units[j] = units[j], units[i]
            case 3:
                units[i] = others[k]
            case 4:
                units[i:i] = others[k : k + int(rng.integers(1, 30))]
            case 5:  # another instruction with this one's argument
                units[i] = units[j][:1] + units[i][1:]
            case 6:  # of the same sort, so that the structure remains and a value changes
                alike = [unit for unit in (*units, *others) if unit[:1] == units[i][:1]]
                units[i] = alike[int(rng.integers(len(alike)))]
            case 7 if len(others) < 1000:  # a whole file in place of a value
                units[place : place + 1] = others[1:-1]
            case _:
                units[place] = own.extremes[int(rng.integers(len(own.extremes)))]
    return own.together(units)


BYTES = (flip, flip_at_the_ends, insert, delete, swap, truncate, exaggerate, splice, graft)


class Damage:
    """Makes the damaged files of one valid one; file `number` is always the same for the same seed."""

    def __init__(self, content: bytes, others: list[bytes], seed: int) -> None:
        self._content = content
        self._others = others
        self._seed = seed
        self._structure = taken_apart(content)
        self._places = self._structure.places()
        self._other_structures = []
        for other in others:
            with contextlib.suppress(Exception):  # hostile files need not be whole
                self._other_structures.append(taken_apart(other))

    def file(self, number: int) -> tuple[str, bytes]:
        """What was done, and the result."""
        rng = np.random.default_rng([self._seed, number])
        if number % 2:
            other = self._other_structures[int(rng.integers(len(self._other_structures)))]
            return "restructured", restructured(self._structure, self._places, other, rng)
        act = BYTES[number // 2 % len(BYTES)]
        return act.__name__, act(self._content, self._others[int(rng.integers(len(self._others)))], rng)


# ---- the program


def main(folder: Path, count: int, seed: int, files: list[Path]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    valid = {path.name: path.read_bytes() for path in files}
    valid = valid or {kind: make(folder) for kind, make in KINDS.items()}
    sentinel = folder / "sentinel"
    spare = [content for content in hostile.cases(sentinel).values() if 10 < len(content) < 4096]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for kind, content in valid.items():
        damage = Damage(content, [other for other in valid.values() if other is not content] + spare, seed)
        report: dict[str, Any] = {"kind": kind, "loaded": 0, "refused": 0, "slowest": 0.0, "wrong": []}
        assert not attempt(content, folder / "valid"), f"{kind} is not valid"
        for number in range(count):
            act, damaged = damage.file(number)
            start = time.process_time()
            message = attempt(damaged, folder / "damaged")
            seconds = time.process_time() - start
            report["slowest"] = max(report["slowest"], seconds)
            report["refused" if message else "loaded"] += 1
            wrong = message.startswith("wrong: ") or seconds > SECONDS or "more memory" in message
            if wrong or sentinel.exists():
                report["wrong"].append([number, act, message, seconds, sentinel.exists()])
                sentinel.unlink(missing_ok=True)
        print(json.dumps(report), flush=True)


def attempt(content: bytes, path: Path) -> str:
    """The message for which sg3 does not load the file; empty if it does."""
    path.write_bytes(content)
    try:
        sg3.load(path)
    except Sg3Error as error:
        message = str(error)
        well_said = message.isprintable() and message.startswith(f"{path}: ")
        return message if well_said else f"wrong: {message!r}"
    except BaseException as error:
        return f"wrong: {type(error).__name__}: {error}"
    return ""


# ---- the tests


def try_damage(folder: Path, count: int, seed: int, files: Sequence[Path] = ()) -> None:
    command = [sys.executable, "-m", "tests.formats.test_fuzz", folder, count, seed, *files]
    process = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert process.returncode == 0, process.stderr[-2000:]
    reports = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(reports) == len(files or KINDS)
    for report in reports:
        print(report)
        assert not report["wrong"], report
        assert report["loaded"] > 0, report  # such as with a changed weight
        assert report["refused"] > count / 4, report


def test_damaged_files(tmp_path: Path) -> None:
    """1,000 files in all."""
    try_damage(tmp_path, count=-(-900 // len(KINDS)), seed=0)


GOLDEN = "sg3t-64", "sg3r-64", "sg2-32-cond", "ada-sg2-32", "tf-sg2-16"


def test_damaged_files_of_the_original(tmp_path: Path, golden: Path) -> None:
    try_damage(tmp_path, count=12, seed=0, files=[golden / f"{name}.pkl" for name in GOLDEN])


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    """10,000 files in all."""
    try_damage(tmp_path, count=-(-10_000 // len(KINDS)), seed=1)


@pytest.mark.slow
def test_many_damaged_files_of_the_original(tmp_path: Path, golden: Path) -> None:
    try_damage(tmp_path, count=400, seed=1, files=[golden / f"{name}.pkl" for name in GOLDEN])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
