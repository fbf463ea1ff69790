"""Sources of images, latents and weights of detectors that ask for more time or memory than their size lets expect."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import sg3
from tests.helpers import costly_networks as networks
from tests.helpers import hostile_parts as h
from tests.helpers import tiny_networks

Prepare = Callable[[Path], list[str]]  # writes into a folder, and returns the words of a command


def cases() -> dict[str, Prepare]:
    return {**cifar(), **idx(), **manifests(), **images(), **zips(), **latents(), **detectors()}


def dataset(source: Path, *more: str) -> list[str]:
    return ["dataset", f"--source={source}", f"--dest={source.parent / 'out.zip'}", "--force", *more]


# ---- CIFAR-10


def tar(content: bytes, name: str = "cifar-10-batches-py/data_batch_1", size: int | None = None, kind: bytes = b"0",
        ) -> bytes:  # fmt: skip
    header = tarfile.TarInfo(name)
    header.size = len(content) if size is None else size
    header.type = kind
    padding = bytes(-len(content) % 512)
    return header.tobuf(tarfile.GNU_FORMAT) + content + padding


def gz(content: bytes, header: bytes = b"\x1f\x8b\x08\x00" + bytes(6)) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = packer.compress(content) + packer.flush()
    return header + body + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def endless(start: bytes, megabytes: int) -> bytes:
    """A .gz file that goes on with zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    crc, parts, zeros = zlib.crc32(start), [packer.compress(start)], bytes(2**20)
    for _ in range(megabytes):
        parts.append(packer.compress(zeros))
        crc = zlib.crc32(zeros, crc)
    parts.append(packer.flush())
    size = len(start) + megabytes * 2**20
    return b"\x1f\x8b\x08\x00" + bytes(6) + b"".join(parts) + struct.pack("<II", crc, size & 0xFFFFFFFF)


def pair_key(levels: int) -> bytes:
    return b"\x80\x02}" + h.pairs(levels).replace(b"\x94", b"") + b"Ns."


def cifar() -> dict[str, Prepare]:
    def made(content: bytes) -> Prepare:
        def prepare(folder: Path) -> list[str]:
            path = folder / "cifar-10-python.tar.gz"
            path.write_bytes(content)
            return dataset(path)

        return prepare

    def later(make: Callable[[], bytes]) -> Prepare:
        return lambda folder: made(make())(folder)

    long_name = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 10_000_000 + b"\0"
    batch = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}, 2)
    good = b"".join(tar(batch, f"cifar-10-batches-py/data_batch_{i}") for i in range(1, 6))
    return {
        "CIFAR, a key of pairs": made(gz(tar(h.pickled(b"}" + h.pairs(50) + b"Ns")))),
        "CIFAR, a label of pairs": made(gz(tar(h.pickled(b"}" + h.text("labels") + h.pairs(50) + b"s")))),
        "CIFAR, data of pairs": made(gz(tar(h.pickled(b"}" + h.text("data") + h.pairs(20) + b"s")))),
        "CIFAR, names of classes of pairs": made(gz(good + tar(
            h.pickled(b"}" + h.text("label_names") + h.pairs(22) + b"s"), "cifar-10-batches-py/batches.meta"))),
        "CIFAR, 2 GB of bytes": made(gz(tar(b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"."))),
        "CIFAR, 4 GB of text": made(gz(tar(b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"."))),
        "CIFAR, a far memo slot": made(gz(tar(b"\x80\x02Nr\xff\xff\xff\x7f."))),
        "CIFAR, long integers as keys": later(lambda: gz(tar(b"\x80\x02}(" + b"".join(
            b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(40_000)) + b"u."))),
        "CIFAR, as many instructions as fit": later(lambda: gz(tar(b"\x80\x02](" + b"\x8f" * 240_000 + b"e."))),
        "CIFAR, deep": later(lambda: gz(tar(b"\x80\x02)" + b"\x85" * 240_000 + b"."))),
        "CIFAR, endless": later(lambda: endless(good, 2000)),
        "CIFAR, endless before": later(lambda: endless(tar(b"", size=2**33 - 1, name="x"), 2000)),
        "CIFAR, a long name of gzip's": made(gz(good, long_name)),
        "CIFAR, a long name of tar's": later(lambda: endless(tar(b"", "././@LongLink", 2**31, b"L"), 1500)),
        "CIFAR, a long header of pax": later(lambda: endless(tar(b"", "x", 2**31, b"x"), 1500)),
        "CIFAR, a large batch": later(lambda: endless(tar(b"", size=2**31), 1500)),
        "CIFAR, a size that is no number": made(gz(tar(b"x").replace(b"00000000001", b"zzzzzzzzzzz"))),
        "CIFAR, a size of base 256": made(gz(tar(b"x").replace(b"00000000001\0", b"\x80" + b"\xff" * 11))),
        "CIFAR, many members": later(lambda: gz(b"".join(tar(b"", f"f{i}") for i in range(20_000)))),
        "CIFAR, many members of gzip": later(lambda: gzip.compress(b"") * 500_000),
        "CIFAR, a link": made(gz(tar(b"", kind=b"2"))),
        "CIFAR, cut short": made(gz(good)[:-200]),
        "CIFAR, damaged": made(gz(good).replace(b"\x00\x00", b"\xff\x00", 1)),
        "CIFAR, empty": made(b""),
        "CIFAR, as it should be": made(gz(good + bytes(1024))),
    }  # fmt: skip


# ---- IDX


def idx() -> dict[str, Prepare]:
    def made(make: Callable[[], bytes], *more: str, labels: Callable[[], bytes] | None = None) -> Prepare:
        def prepare(folder: Path) -> list[str]:
            path = folder / "train-images-idx3-ubyte.gz"
            path.write_bytes(make())
            if labels:
                (folder / "train-labels-idx1-ubyte.gz").write_bytes(labels())
            return dataset(path, *more, *([] if labels else ["--labels=none"]))

        return prepare

    def header(*sizes: int, dimensions: int = 3) -> bytes:
        return struct.pack(f">{1 + dimensions}I", 0x800 + dimensions, *sizes)

    return {
        "IDX of 1 GiB, ten of them": made(lambda: endless(header(2**20, 32, 32), 1024), "--max-images=10"),
        "IDX of 28 pixels, ten of them": made(lambda: endless(header(900_000, 28, 28), 700), "--max-images=10"),
        "IDX of large images": made(lambda: endless(header(100, 8192, 8192), 200), "--max-images=1"),
        "IDX of too large images": made(lambda: endless(header(2, 8193, 8193), 200)),
        "IDX of a billion": made(lambda: endless(header(2**30, 1, 1), 100)),
        "IDX of a million pixels": made(lambda: endless(header(1_000_000, 1, 1), 1), "--max-images=5"),
        "IDX of nothing": made(lambda: gz(header(0, 0, 0))),
        "IDX cut short": made(lambda: gz(header(10, 32, 32) + bytes(100))),
        "IDX with too few labels": made(lambda: gz(header(10, 32, 32) + bytes(10240)),
                                        labels=lambda: gz(header(9, dimensions=1) + bytes(9))),
        "IDX with endless labels": made(lambda: gz(header(10, 32, 32) + bytes(10240)),
                                        labels=lambda: endless(header(2**32 - 1, dimensions=1), 1000)),
        "IDX as it should be": made(lambda: gz(header(10, 32, 32) + bytes(10240)),
                                    labels=lambda: gz(header(10, dimensions=1) + bytes(10))),
    }  # fmt: skip


# ---- dataset.json


def png(width: int = 8, height: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG", compress_level=9)
    return file.getvalue()


def manifests() -> dict[str, Prepare]:
    def made(text: Callable[[], str | bytes], *command: str) -> Prepare:
        def prepare(folder: Path) -> list[str]:
            path = folder / "images.zip"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a.png", png())
                archive.writestr("dataset.json", text())
            return ["info", str(path)] if command == ("info",) else dataset(path, *command)

        return prepare

    texts: dict[str, Callable[[], str | bytes]] = {
        "lists": lambda: '{"labels": [' + "[]," * 20_000_000 + "[]]}",
        "some lists": lambda: '{"labels": [' + "[]," * 3_000_000 + "[]]}",
        "dictionaries": lambda: '{"labels": [' + "{}," * 15_000_000 + "{}]}",
        "400 MB": lambda: '{"labels": null, "x": "' + "a" * 400_000_000 + '"}',
        "one text": lambda: '{"labels": null, "x": "' + "a" * 60_000_000 + '"}',
        "one text with an emoji": lambda: '{"labels": null, "x": "\U0001f600' + "a" * 60_000_000 + '"}',
        "numbers": lambda: '{"labels": null, "x": [' + "1," * 10_000_000 + "1]}",
        "a long number": lambda: '{"labels": ' + "1" * 5_000_000 + "}",
        "depth": lambda: "[" * 20_000_000,
        "keys": lambda: "{" + ",".join(f'"{i}":{i}' for i in range(2_000_000)) + "}",
        "label vectors": lambda: json.dumps({"labels": [["a.png", [0.5] * 3_000_000]]}),
        "a large class": lambda: '{"labels": [["a.png", 999999]]}',
        "a class too large": lambda: '{"labels": [["a.png", 1000000]]}',
        "an infinite label": lambda: '{"labels": [["a.png", [1e999]]]}',
        "zeros": lambda: bytes(60_000_000),
    }
    return {
        f"dataset.json of {name}, {words or 'used'}": made(text, *([words] if words else []))
        for name, text in texts.items()
        for words in ("", "--labels=none", "info")
    }


# ---- images


def jpeg(side: int, scans: int, quality: int = 60) -> bytes:
    """A progressive JPEG with so many scans more."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((side, side)).save(file, "JPEG", progressive=True, quality=quality)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * scans + b"\xff\xd9"


def images() -> dict[str, Prepare]:
    def made(files: Callable[[], dict[str, bytes]], *more: str) -> Prepare:
        def prepare(folder: Path) -> list[str]:
            source = folder / "images"
            source.mkdir()
            for name, content in files().items():
                (source / name).write_bytes(content)
            return dataset(source, *more)

        return prepare

    def encoded(form: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
        file = io.BytesIO()
        Image.new(mode, size).save(file, form, **options)
        return file.getvalue()

    def turned() -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6
        return exif.tobytes()

    def bomb(width: int, height: int) -> bytes:
        """A PNG whose header claims more pixels than follow."""
        content = bytearray(png())
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
        return bytes(content)

    small = "--resolution=8x8"
    return {
        **{f"a JPEG of {side} pixels and {scans} more scans": made(lambda a=side, b=scans: {"a.jpg": jpeg(a, b)}, small)
           for side, scans in ((64, 100), (64, 2000), (1024, 2000), (2048, 180), (4096, 60), (4096, 2000))},
        "a PNG of 64 million pixels": made(lambda: {"a.png": png(8192, 8192)}, small),
        "twelve PNGs of 16 million": made(lambda: {f"{i}.png": png(4096, 4096) for i in range(2)}, small),
        "a PNG of 64 million with alpha": made(
            lambda: {"a.png": encoded("PNG", (8192, 8192), "RGBA")}, small, "--convert=rgb", "--transform=center-crop"),
        "a gray PNG of 64 million in 16 bits": made(
            lambda: {"a.png": encoded("PNG", (8192, 8192), "I;16")}, small, "--convert=rgb"),
        "a palette PNG of 64 million": made(
            lambda: {"a.png": encoded("PNG", (8192, 8192), "P")}, small, "--convert=gray"),
        "a turned JPEG of 64 million": made(
            lambda: {"a.jpg": encoded("JPEG", (8192, 8192), exif=turned())}, small, "--convert=rgba"),
        "a PNG of 67 million and one": made(lambda: {"a.png": png(8193, 8192)}, small),
        "a PNG that claims 2^31 x 2^31": made(lambda: {"a.png": bomb(2**31 - 1, 2**31 - 1)}),
        "a PNG that claims 8192 x 8192": made(lambda: {"a.png": bomb(8192, 8192)}),
        "a wide PNG": made(lambda: {"a.png": png(2**26, 1)}),
        "a WebP of 32 million": made(lambda: {"a.webp": encoded("WEBP", (8192, 4096), quality=1, method=0)}, small),
        "a WebP of 64 million": made(lambda: {"a.webp": encoded("WEBP", (8192, 8192), quality=1, method=0)}, small),
        "a BMP of 16 million": made(lambda: {"a.bmp": encoded("BMP", (4096, 4096))}, small),
        "a PNG with much text": made(lambda: {"a.png": png()[:33] + b"".join(
            struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
            for body in [b"k\0\0" + zlib.compress(bytes(2**24))] * 20) + png()[33:]}),
        "a name that is not UTF-8": made(lambda: {"a\udcff.png": png(), "b.png": png(16, 16)}),
    }  # fmt: skip


def zips() -> dict[str, Prepare]:
    def made(make: Callable[[], bytes], *command: str) -> Prepare:
        def prepare(folder: Path) -> list[str]:
            path = folder / "images.zip"
            path.write_bytes(make())
            return ["info", str(path)] if command == ("info",) else dataset(path)

        return prepare

    def flags(bits: int) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.png", png())
        content = bytearray(file.getvalue())
        content[6:8] = struct.pack("<H", bits)
        where = content.rindex(b"PK\x01\x02")
        content[where + 8 : where + 10] = struct.pack("<H", bits)
        return bytes(content)

    tables = {
        "a million entries": lambda: networks.zip_table(10**6, lambda i: f"{i}.png", {"a.png": png()}),
        "200,000 entries": lambda: networks.zip_table(200_000, lambda i: f"{i}.png", {"a.png": png()}),
        "long names": lambda: networks.zip_table(1000, lambda i: f"{i}" + "a" * 65_000, {"a.png": png()}),
        "no entries": lambda: b"PK\x05\x06" + bytes(18),
        "a table of 4 GB": lambda: b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + b"\xff\xff\xff\xfe" + bytes(6),
        **{f"flags {bits:#x}": lambda bits=bits: flags(bits) for bits in (1, 0x20, 0x40, 0x2000, 0xFFFF)},
    }
    return {
        f"a zip of {name}, {words or 'used'}": made(make, *([words] if words else []))
        for name, make in tables.items()
        for words in ("", "info")
    }


# ---- latents


def latents() -> dict[str, Prepare]:
    def made(name: str, write: Callable[[Path], object]) -> Prepare:
        def prepare(folder: Path) -> list[str]:
            sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), folder / "net.pkl")
            write(folder / name)
            return ["video", f"--network={folder / 'net.pkl'}", f"--latents={folder / name}", "--no-loop",
                    f"--output={folder / 'frames'}", "--fps=1", "--device=cpu"]  # fmt: skip

        return prepare

    def deflated(path: Path, count: int) -> None:
        stored = io.BytesIO(networks.torch_saved({"w": torch.zeros(count // 7, 7)}))
        with zipfile.ZipFile(stored) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))

    def claims(count: int) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, 7)})
        return file.getvalue() + bytes(28)

    w = {"w": np.zeros((2**24, 7), np.float16)}
    return {
        "latents of float16, compressed": made("a.npz", lambda path: np.savez_compressed(path, **w)),
        "latents of float16": made("a.npz", lambda path: np.savez(path, w=np.zeros((2**22, 7), np.float16))),
        "latents of a large .npy": made("a.npy", lambda path: np.save(path, np.zeros((2**23, 7), np.float16))),
        "latents of an .npy that claims": made("a.npy", lambda path: path.write_bytes(claims(2**40))),
        "latents of an .npz that claims": made("a.npz", lambda path: npz(path, {"w.npy": claims(2**40)})),
        "latents of stride 0": made("a.pt", lambda path: torch.save({"w": torch.zeros(1, 7).expand(2**26, 7)}, path)),
        "latents of stride 0, some": made("a.pt", lambda path: torch.save(torch.zeros(1, 7).expand(2**17, 7), path)),
        "latents of a deflated .pt": made("a.pt", lambda path: deflated(path, 2**28)),
        "latents of many arrays": made("a.npz", lambda path: path.write_bytes(
            networks.zip_table(10**6, lambda i: f"{i}.npy"))),
        "latents of shared pairs": made("a.pt", lambda path: path.write_bytes(h.evil_zip(h.pairs(50)))),
        "latents of a deep header": made("a.npy", lambda path: path.write_bytes(
            b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000)),
        "a spectrum that claims": lambda folder: spectrum(folder, {"spectrum.npy": claims(2**40)}),
        "a spectrum of 4 GB": lambda folder: spectrum(folder, {"spectrum.npy": claims(2**30) + bytes(2**28)}),
    }  # fmt: skip


def npz(path: Path, arrays: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)


def spectrum(folder: Path, arrays: dict[str, bytes]) -> list[str]:
    npz(folder / "a.npz", arrays)
    return ["spectra", "heatmap", str(folder / "a.npz"), f"--save={folder / 'a.png'}"]


# ---- detectors


def detectors() -> dict[str, Prepare]:
    def made(make: Callable[[], bytes]) -> Prepare:
        def prepare(folder: Path) -> list[str]:
            (folder / "vgg16.pth").write_bytes(make())
            return ["detector", str(folder / "vgg16.pth")]

        return prepare

    def script(body: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + body + b".")
            archive.writestr("a/constants.pkl", b"\x80\x02).")
        return file.getvalue()

    def objects(levels: int, length: int) -> bytes:
        body = h.named("__torch__", "M") + b")\x81}b\x94"
        for level in range(levels):
            child = b"h" + bytes([level])
            body += b"0" + h.named("__torch__", "M") + b")\x81}(" + h.text("a" * length) + child
            body += h.text("b" * length) + child + b"ub\x94"
        return body

    return {
        **{f"TorchScript, pairs {levels} deep": made(lambda n=levels: script(h.pairs(n))) for levels in (20, 60)},
        **{f"TorchScript, {levels} modules of names {length} long": made(
            lambda a=levels, b=length: script(objects(a, b)))
           for levels, length in ((40, 5), (12, 1000), (16, 1000), (4, 1001))},
        "TorchScript of a million entries": made(
            lambda: networks.zip_table(10**6, lambda i: f"a/data/{i}", {"a/data.pkl": b"", "a/constants.pkl": b""})),
        "a state dict under many names": made(lambda: networks.torch_saved(
            {f"w{i}": base for base in [torch.zeros(2**20)] for i in range(1000)})),
        "a state dict of stride 0": made(lambda: networks.torch_saved({"w": torch.zeros(1).expand(2**30)})),
        "a pickle of shared records": made(lambda: networks.modules_with_long_names(16, 1000)),
        "an old state dict with keys of pairs": made(lambda: networks.old(b"}", h.pairs(50))),
        "a bomb in a state dict": made(lambda: h.evil_zip(
            h.zipped_tensor(2**26, b"J\x00\x00\x00\x04\x85", b"K\x01\x85"), bytes(2**28), zipfile.ZIP_DEFLATED)),
    }  # fmt: skip
