"""Pickles that try to run code, exhaust memory or time, or crash the decoder; and a program that tries them.

`python hostile.py FOLDER` writes each case to a file, loads it under a memory limit, and prints one JSON line per
case. Code that got executed would leave the file FOLDER/sentinel.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

import sg3
from sg3.errors import DataError
from sg3.formats.official_write import _Pickler
from sg3.formats.safe_pickle import Call, Global
from sg3.formats.storage_stream import write_storage

HEAD = b"\x80\x04"
MEMORY = 512 * 2**20
RECORD = ("torch_utils.persistence", "_reconstruct_persistent_obj")
TENSOR = ("torch._utils", "_rebuild_tensor_v2")
STORAGE = ("torch.storage", "_load_from_bytes")


# ---- instructions by hand


def text(s: str) -> bytes:
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def data(b: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(b)) + b


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def stack_named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def pickled(body: bytes) -> bytes:
    return HEAD + body + b"."


# ---- whole files


def tree(value: Any) -> bytes:
    """A tree of plain data and calls, as sg3 writes it, but of any calls."""
    stream = io.BytesIO()
    _Pickler(stream).dump(value)
    return stream.getvalue()


def record(name: str, state: dict[str, Any], source: str = "", **other: Any) -> Call:
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": name, "state": state, **other}
    return Call(Global(*RECORD), (meta,))


def generator(kwargs: dict[str, Any], tensors: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A snapshot whose G_ema looks like StyleGAN2's generator."""
    b4 = record("SynthesisBlock", {"_modules": {}, "_parameters": tensors or {}, "_buffers": {}})
    synthesis = record("SynthesisNetwork", {"_modules": {"b4": b4}, "_parameters": {}, "_buffers": {}})
    state = {"_modules": {"synthesis": synthesis}, "_init_args": (), "_init_kwargs": kwargs, **more}
    return tree({"G_ema": record("Generator", state)})


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Call:
    storage = Call(Global(*STORAGE), (write_storage(torch.zeros(count)),))
    return Call(Global(*TENSOR), (storage, offset, size, stride, False, None))


def storage_claiming(count: int) -> bytes:
    """The stream of a 3-element storage whose header and length field claim `count` elements."""
    real = write_storage(torch.zeros(3))
    real = real.replace(b"K\x03N", b"\x8a\x08" + struct.pack("<q", count) + b"N")
    return real[:-20] + struct.pack("<q", count) + real[-12:]


def evil_zip(command: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(command))
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def evil_storage(command: bytes) -> bytes:
    """A storage stream whose fourth pickle, the storage's description, runs a command."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(parts) + pickled(command) + pickle.dumps(["0"], 2) + struct.pack("<q", 0)


def pairs(levels: int) -> bytes:
    """A tuple of two references to a tuple of two references to ..., levels deep."""
    steps = (b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x940" for i in range(levels))
    return b")\x940" + b"".join(steps) + b"h" + bytes([levels])


def record_by_hand(state: bytes) -> bytes:
    meta = (text("type") + text("class") + text("version") + b"K\x06"
            + text("class_name") + text("Generator") + text("state") + state)  # fmt: skip
    return call(named(*RECORD), b"}(" + meta + b"u")


def shared_modules(levels: int) -> bytes:
    """A generator whose modules each have the next one three times: 3^levels modules by path."""
    body = record_by_hand(b"}" + text("_modules") + b"}s") + b"q\x000"
    for level in range(levels):
        child = b"h" + bytes([level])
        children = b"}(" + text("a") + child + text("b4") + child + text("synthesis") + child + b"u"
        body += record_by_hand(b"}" + text("_modules") + children + b"s") + b"q" + bytes([level + 1]) + b"0"
    return pickled(body + b"}" + text("G_ema") + b"h" + bytes([levels]) + b"s")


def shared_arguments(levels: int) -> bytes:
    """A generator with 2^levels constructor arguments."""
    b4 = b"}" + text("b4") + record_by_hand(b"}") + b"s"
    synthesis = record_by_hand(b"}" + text("_modules") + b4 + b"s")
    state = b"}(" + text("_modules") + b"}" + text("synthesis") + synthesis + b"s"
    state += text("_init_kwargs") + b"}" + text("z_dim") + b"h" + bytes([levels]) + b"su"
    return pickled(pairs(levels) + b"0}" + text("G_ema") + record_by_hand(state) + b"s")


def cases(sentinel: Path) -> dict[str, bytes]:
    """Name -> file content."""
    shell = text(f"touch {sentinel}")
    python = text(f"open({str(sentinel)!r}, 'w')")
    system = call(named("os", "system"), shell)
    return {
        "os.system": pickled(system),
        "os.system, protocol 0": f"cos\nsystem\n(S'touch {sentinel}'\ntR.".encode(),
        "os.system, protocol 2": b"\x80\x02" + system + b".",
        "posix.system by stack": pickled(call(stack_named("posix", "system"), shell)),
        "nt.system": pickled(call(named("nt", "system"), shell)),
        "eval": pickled(call(named("builtins", "eval"), python)),
        "exec": pickled(call(named("builtins", "exec"), python)),
        "exec, python 2 name": b"\x80\x02" + call(named("__builtin__", "exec"), python) + b".",
        "compile": pickled(call(named("builtins", "compile"), python, text("x"), text("exec"))),
        "__import__": pickled(call(named("builtins", "__import__"), text("antigravity"))),
        "importlib": pickled(call(named("importlib", "import_module"), text("this"))),
        "getattr": pickled(
            call(call(named("builtins", "getattr"), named("os", "path"), text("system")), shell)
        ),
        "attrgetter": pickled(
            call(call(named("operator", "attrgetter"), text("system")), named("sys", "modules"))
        ),
        "methodcaller": pickled(call(named("operator", "methodcaller"), text("system"), shell)),
        "functools.partial": pickled(call(call(named("functools", "partial"), named("os", "system"), shell))),
        "functools.reduce": pickled(call(named("functools", "reduce"), named("os", "system"), shell)),
        "subprocess": pickled(call(named("subprocess", "check_output"), shell)),
        "runpy": pickled(call(named("runpy", "run_path"), shell)),
        "pty.spawn": pickled(call(named("pty", "spawn"), shell)),
        "marshal": pickled(call(named("marshal", "loads"), data(b"c"))),
        "types.FunctionType": pickled(call(named("types", "FunctionType"))),
        "copyreg": pickled(call(named("copyreg", "_reconstructor"))),
        "ctypes": pickled(call(named("ctypes", "CDLL"), text("libc.so.6"))),
        "code": pickled(call(named("code", "InteractiveInterpreter"))),
        "pickle in pickle": pickled(call(named("_pickle", "loads"), data(pickled(system)))),
        "torch.load": pickled(call(named("torch", "load"), text("x"))),
        "torch.hub": pickled(call(named("torch.hub", "load"), text("x"))),
        "numpy.load": pickled(call(named("numpy", "load"), text("x"))),
        "original's source utility": pickled(call(named("dnnlib.util", "get_obj_by_name"), text("os.system"))),
        "our own loader": pickled(call(named("sg3", "load"), text("x"))),
        # names that resemble allowed ones
        "dotted name": pickled(call(named("torch._utils", "_rebuild_tensor_v2.__globals__.get"), text("os"))),
        "dotted stack name": pickled(call(stack_named("torch.serialization", "os.system"), shell)),
        "dotted class": pickled(stack_named("collections", "OrderedDict.__init__.__objclass__")),
        "empty name": pickled(named("", "")),
        "name with escape codes": pickled(named("os\x1b[2J", "system\r")),
        # names by detours
        "name from memo": pickled(text("os") + b"\x94" + text("system") + b"\x940h\x01h\x01\x93" + b"0" + system),
        "memo slot overwritten": pickled(
            stack_named("collections", "OrderedDict") + b"q\x010"
            + named("os", "system") + b"q\x010h\x01(" + shell + b"tR"
        ),
        "memo slot never written": pickled(b"h\x07(" + shell + b"tR"),
        "stack name of a call's result": pickled(
            call(named("collections", "OrderedDict")) + text("system") + b"\x93(" + shell + b"tR"
        ),
        "extension 1": pickled(b"\x82\x01(" + shell + b"tR"),
        "extension 2": pickled(b"\x83\x01\x00(" + shell + b"tR"),
        "extension 4": pickled(b"\x84\x01\x00\x00\x00(" + shell + b"tR"),
        "persistent id": pickled(b"Pos.system\n"),
        "persistent id from stack": pickled(shell + b"Q"),
        "INST": pickled(b"(" + shell + b"ios\nsystem\n"),
        "OBJ": pickled(b"(" + named("os", "system") + shell + b"o"),
        "NEWOBJ of a function": pickled(named("torch._utils", "_rebuild_parameter") + b")\x81"),
        "NEWOBJ_EX": pickled(named("collections", "OrderedDict") + b")}\x92"),
        "DUP": pickled(b"]2a"),
        "out-of-band buffer": pickled(b"\x97"),
        # changing what is allowed
        "BUILD on a function": pickled(
            named("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__defaults__") + b")s\x86b"
        ),
        "BUILD on a class": pickled(named("collections", "OrderedDict") + b"N}" + text("__init__") + b"Ns\x86b"),
        "BUILD with attributes": pickled(b"]}" + text("__class__") + b"Nsb"),
        "dictionary from pairs": pickled(call(named("collections", "OrderedDict"), b"]" + pairs(60) + b"a")),
        "item of a class": pickled(named("collections", "OrderedDict") + text("a") + b"Ns"),
        "append to a call": pickled(call(named("torch", "Size")) + b"Na"),
        "add to a tensor": pickled(call(named(*TENSOR)) + b"(" + text("a") + b"\x90"),
        # lengths that claim more than there is
        "4 GB of bytes": pickled(b"B\xff\xff\xff\xff"),
        "2^60 bytes": pickled(b"\x8e" + struct.pack("<Q", 2**60)),
        "2^60 bytes, mutable": pickled(b"\x96" + struct.pack("<Q", 2**60)),
        "3 GB, mutable": pickled(b"\x96" + struct.pack("<Q", 3 * 2**30)),
        "4 GB of text": pickled(b"X\xff\xff\xff\xff"),
        "2^62 of text": pickled(b"\x8d" + struct.pack("<Q", 2**62)),
        "2 GB integer": pickled(b"\x8b\xff\xff\xff\x7f"),
        "integer of negative length": pickled(b"\x8b\xff\xff\xff\xff"),
        "integer of many digits": pickled(b"L" + b"9" * 1_000_000 + b"L\n"),
        "2^62 frame": pickled(b"\x95" + struct.pack("<Q", 2**62)),
        "memo slot 2^32": pickled(b"Nr\xff\xff\xff\xff"),
        "memo slot in text": pickled(b"Np99999999999999999999\n"),
        # size and depth
        "deep lists": pickled(b"]" * 150_000 + b"a" * 149_999),
        "deep tuples": pickled(b")" + b"\x85" * 300_000),
        "deep dictionaries": pickled((b"}" + text("a")) * 100_000 + b"N" + b"s" * 100_000),
        "deep calls": pickled(named("torch", "Size") * 60_000 + b")R" + b"\x85R" * 59_999),
        "deep marks": pickled(b"(" * 390_000),
        "list in itself": pickled(b"]\x94h\x00a"),
        "call of itself": pickled(b"]\x94" + call(named("torch", "Size"), b"h\x00") + b"a"),
        "deep key": pickled(b"})" + b"\x85" * 300_000 + b"Ns"),
        "exponential key": pickled(b"}" + pairs(60) + b"Ns"),
        "exponential set member": pickled(b"\x8f(" + pairs(60) + b"\x90"),
        "exponential list": pickled(
            b"]\x940" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x940" for i in range(60)) + b"h\x3c"
        ),
        "colliding keys": pickled(
            b"}("
            + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(90_000))
            + b"u"
        ),
        "a million sets": pickled(b"(" + b"\x8f" * 1_000_000 + b"l"),
        "ten million instructions": pickled(b"N0" * 5_000_000 + b"N"),
        "long text": pickled(text("a" * 2**25)),
        "pops below the mark": pickled(b"N(00"),
        "pops from nothing": pickled(b"000"),
        "empty": pickled(b""),
        # tensors
        "nested pickle": pickled(call(named(*STORAGE), data(pickled(system)))),
        "nested zip": pickled(call(named(*STORAGE), data(evil_zip(system)))),
        "nested storage": pickled(call(named(*STORAGE), data(evil_storage(system)))),
        "nested in nested": pickled(call(named(*STORAGE), data(pickled(call(named(*STORAGE), data(pickled(system))))))),
        "storage of a number": pickled(call(named(*STORAGE), b"K\x07")),
        "storage of 2^60": pickled(call(named(*STORAGE), data(storage_claiming(2**60)))),
        "storage of -1": pickled(call(named(*STORAGE), data(storage_claiming(-1)))),
        "tensor beyond its storage": generator({}, {"const": tensor(10, (1000,), (1,))}),
        "tensor of stride 0": generator({}, {"const": tensor(10, (2**40,), (0,))}),
        "tensor at a negative offset": generator({}, {"const": tensor(10, (3,), (1,), -1)}),
        "tensor of overflowing shape": generator({}, {"const": tensor(10, (2**62, 4), (4, 1))}),
        "one megabyte, 50,000 tensors": pickled(
            data(write_storage(torch.zeros(2**18))) + b"\x940](" + (named(*STORAGE) + b"h\x00\x85R") * 50_000 + b"e"
        ),
        # numpy
        "array of objects": pickled(
            call(named("numpy", "dtype"), text("O8"), b"\x89", b"\x88")
            + b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x940"
            + call(named("numpy._core.multiarray", "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85", data(b"b"))
            + b"(K\x01K\x01\x85h\x00\x89" + data(b"A" * 8) + b"tb"
        ),
        "array of a huge type": pickled(call(named("numpy", "dtype"), text("V2000000000"), b"\x89", b"\x88")),
        "array of a huge shape": pickled(
            call(named("numpy._core.multiarray", "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85", data(b"b"))
            + b"(K\x01(\x8a\x05\x00\x00\x00\x00\x40\x8a\x05\x00\x00\x00\x00\x40t"
            + call(named("numpy", "dtype"), text("f8"), b"\x89", b"\x88") + b"\x89" + data(b"") + b"tb"
        ),
        # records
        "source in a record": tree({"G_ema": record("Generator", {}, f"open({str(sentinel)!r}, 'w')")}),
        "source and hook": generator({}, _forward_hooks={"0": Call(Global("os", "system"), (f"touch {sentinel}",))}),
        "unknown persistence version": tree({"G": record("G", {}, version=7)}),
        "record of a module": tree({"G": record("G", {}, type="module")}),
        "huge channels": generator(_sizes(channel_base=2**24, channel_max=2**24)),
        "huge latent": generator(_sizes(z_dim=2**24, w_dim=2**24)),
        "huge image": generator(_sizes(img_resolution=2**14)),
        "larger image": generator(_sizes(img_resolution=2**40)),
        "endless mapping": generator(_sizes(mapping_kwargs={"num_layers": 10**9})),
        "not a number of channels": generator(_sizes(channel_base=float("nan"))),
        "huge exponent": generator(_sizes(num_fp16_res=2**23)),
        "many arguments": generator({f"a{i}": i for i in range(5000)}),
        "arguments shared 2^60 times": shared_arguments(60),
        "string as keyword dictionary": generator(_sizes(mapping_kwargs="abc")),
        "list as synthesis dictionary": generator(_sizes(synthesis_kwargs=[["a", 1]])),
        "modules shared 3^15 times": shared_modules(15),
    }  # fmt: skip


def _sizes(**kwargs: Any) -> dict[str, Any]:
    return {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 8, "img_channels": 3, **kwargs}


def main(folder: Path) -> None:
    sentinel = folder / "sentinel"
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for name, content in cases(sentinel).items():
        path = folder / "case.pkl"
        path.write_bytes(content)
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        start = time.process_time()
        try:
            sg3.load(path)
            outcome, message = "loaded", ""
        except DataError as error:
            outcome, message = "DataError", str(error).removeprefix(f"{path}: ")
        except BaseException as error:
            outcome, message = type(error).__name__, str(error)
        seconds = time.process_time() - start
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        result = {"name": name, "outcome": outcome, "message": message, "seconds": seconds}
        print(json.dumps({**result, "executed": sentinel.exists()}), flush=True)
        sentinel.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
