"""Pickles that try to run code, exhaust memory or time, or crash the decoder; and a program that tries them.

`python -m tests.helpers.hostile FOLDER` writes each case to a file, loads it under a memory limit, and prints one JSON
line per case. Code that got executed would leave the file FOLDER/sentinel.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import time
import zipfile
from pathlib import Path

import torch

import sg3
from sg3.errors import DataError
from sg3.formats.safe_pickle import Call, Global
from sg3.formats.storage_stream import write_storage
from tests.helpers.hostile_parts import (
    HEAD,
    STORAGE,
    TENSOR,
    call,
    data,
    evil_storage,
    evil_zip,
    generator,
    hidden,
    named,
    pairs,
    pickled,
    record,
    safetensors,
    shared_arguments,
    shared_modules,
    sizes,
    stack_named,
    storage_claiming,
    tensor,
    text,
    tree,
    zipped_tensor,
)

MEMORY = 512 * 2**20
COMMANDS = (  # they run their argument, or nearly; lists of forbidden names tend to miss some
    "asyncio.create_subprocess_shell", "bdb.Bdb.run", "builtins.map", "builtins.open", "builtins.type",
    "cProfile.run", "code.interact", "collections._sys.modules", "copyreg.__newobj__", "doctest.debug_script",
    "io.open", "linecache.os", "logging.config._resolve", "multiprocessing.util.spawnv_passfds",
    "numpy.f2py.crackfortran.getlincoef", "numpy.os.system", "numpy.testing._private.utils.runstring", "os.execv",
    "os.path.os.system", "os.popen", "pdb.run", "pickle.loads", "pickle.Unpickler", "pkgutil.resolve_name",
    "platform.os.system", "pydoc.locate", "pydoc.pipepager", "shutil.rmtree", "socket.create_connection",
    "sqlite3.connect", "sys.setprofile", "timeit.timeit", "torch.os.system", "torch.serialization._load",
    "torch.utils.collect_env.run", "torch.utils.data.dataset.os.system", "trace.Trace.run", "typing.ForwardRef",
    "urllib.request.urlopen", "webbrowser.open", "weakref.finalize", "zipimport.zipimporter",
)  # fmt: skip


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
        **{name: pickled(call(named(*name.rsplit(".", 1)), shell, shell)) for name in COMMANDS},
        **{f"{name} by stack": pickled(call(stack_named(*name.split(".", 1)), shell, shell)) for name in COMMANDS},
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
        "stack name of a numpy scalar": pickled(
            call(named("numpy._core.multiarray", "scalar"), call(named("numpy", "dtype"), text("U2")),
                 data("os".encode("utf-32-le")))
            + text("system") + b"\x93(" + shell + b"tR"
        ),
        "stack name of bytes": pickled(data(b"os") + data(b"system") + b"\x93(" + shell + b"tR"),
        "name in a loop of the memo": pickled(b"]\x94h\x00h\x00\x93(" + shell + b"tR"),
        "memo slot overwritten between": pickled(
            text("collections") + b"q\x01" + text("OrderedDict") + b"q\x0200"
            + text("os") + b"q\x01" + text("system") + b"q\x0200h\x01h\x02\x93(" + shell + b"tR"
        ),
        "frame that ends in a name": HEAD + b"\x95" + struct.pack("<Q", 5) + system + b".",
        "frame in a frame": HEAD + b"\x95" + struct.pack("<Q", 40) + b"\x95" + struct.pack("<Q", 9) + system + b".",
        "code behind the frame": HEAD + b"\x95" + struct.pack("<Q", 1) + b"N0" + system + b".",
        "second pickle behind the first": pickled(b"}") + pickled(system),
        "protocol 5 with protocol 0 names": b"\x80\x05" + system + b"\x80\x00" + system + b".",
        "extension 1": pickled(b"\x82\x01(" + shell + b"tR"),
        "extension 2": pickled(b"\x83\x01\x00(" + shell + b"tR"),
        "extension 4": pickled(b"\x84\x01\x00\x00\x00(" + shell + b"tR"),
        "persistent id": pickled(b"Pos.system\n"),
        "persistent id from stack": pickled(shell + b"Q"),
        "INST": pickled(b"(" + shell + b"ios\nsystem\n"),
        "OBJ": pickled(b"(" + named("os", "system") + shell + b"o"),
        "INST of a method": pickled(b"(" + shell + b"iposix\nsystem\n"),
        "NEWOBJ of Popen": pickled(named("subprocess", "Popen") + shell + b"\x85\x81"),
        "NEWOBJ_EX of Popen": pickled(named("subprocess", "Popen") + shell + b"\x85}" + text("shell") + b"\x88s\x92"),
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
        "BUILD of a dictionary's class": pickled(
            named("dnnlib.util", "EasyDict") + b")\x81}" + text("__class__") + named("os", "system") + b"sb"
        ),
        "BUILD of slots": pickled(
            call(named("torch", "Size")) + b"N}" + text("function") + named("os", "system") + b"s\x86b(" + shell + b"tR"
        ),
        "call of a call": pickled(
            call(call(named("torch._utils", "_rebuild_parameter"), named("os", "system")), shell)
        ),
        "set of code": pickled(call(named("builtins", "set"), b"](" + system + b"e")),
        "TensorFlow network": pickled(
            named("dnnlib.tflib.network", "Network") + b")\x81}(" + text("version") + b"K\x05" + text("static_kwargs")
            + b"}" + text("build_module_src") + python + text("variables") + b"]ub" + b"0" + system
        ),
        "TensorFlow network's source": pickled(
            (named("dnnlib.tflib.network", "Network") + b")\x81}(" + text("version") + b"K\x05" + text("static_kwargs")
             + b"}" + text("build_module_src") + python + text("build_func_name") + text("G") + text("variables") + b"]"
             + text("components") + b"}" + text("name") + text("G") + b"ub") * 3 + b"\x87"
        ),
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
        # other instructions for the decoder than for the scan
        "command hidden by a frame": pickled(hidden(system)),
        "key hidden by a frame": pickled(hidden(b"0}" + pairs(60) + b"Ns")),
        "memo slot hidden by a frame": pickled(hidden(b"r\xff\xff\xff\x7f")),
        "torch.save file with a hidden key": evil_zip(hidden(b"0}" + pairs(60) + b"Ns")),
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
        # other kinds of files
        "torch.save file": evil_zip(system),
        "torch.save file with code in a storage": evil_zip(
            zipped_tensor(2, b"K\x02\x85", b"K\x01\x85"), pickled(system)
        ),
        "torch.save file, storage of 2^60": evil_zip(
            zipped_tensor(2**60, b"K\x02\x85", b"K\x01\x85"), bytes(8)
        ),
        "torch.save file, stride 0": evil_zip(
            zipped_tensor(2, b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"), bytes(8)
        ),
        "torch.save file, compressed 256 MB": evil_zip(
            zipped_tensor(2**26, b"J\x00\x00\x00\x04\x85", b"K\x01\x85"), bytes(2**28), zipfile.ZIP_DEFLATED
        ),
        "torch.save file, entry outside": evil_zip(
            zipped_tensor(2, b"K\x02\x85", b"K\x01\x85", "../../../etc/passwd"), bytes(8)
        ),
        "torch.save file without a pickle": evil_zip(b"")[:40] + evil_zip(b"")[-22:],
        "old torch.save file": evil_storage(system),
        "safetensors, header of 2^60": safetensors(b"{}", length=2**60),
        "safetensors, deep header": safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "safetensors, many names": safetensors(
            b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(50_000)) + b"}"
        ),
        "safetensors, name twice": safetensors(b'{"a":1,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "safetensors, beyond the end": safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'),
        "safetensors, 2^62 elements": safetensors(
            b'{"a":{"dtype":"F32","shape":[2147483648,2147483648],"data_offsets":[0,8]}}'
        ),
        "safetensors, code in the settings": safetensors(
            json.dumps({"__metadata__": {"sg3": f"__import__('os').system('touch {sentinel}')"}}).encode(), b""
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
        "huge channels": generator(sizes(channel_base=2**24, channel_max=2**24)),
        "huge latent": generator(sizes(z_dim=2**24, w_dim=2**24)),
        "huge image": generator(sizes(img_resolution=2**14)),
        "larger image": generator(sizes(img_resolution=2**40)),
        "endless mapping": generator(sizes(mapping_kwargs={"num_layers": 10**9})),
        "not a number of channels": generator(sizes(channel_base=float("nan"))),
        "huge exponent": generator(sizes(num_fp16_res=2**23)),
        "many arguments": generator({f"a{i}": i for i in range(5000)}),
        "arguments shared 2^60 times": shared_arguments(60),
        "string as keyword dictionary": generator(sizes(mapping_kwargs="abc")),
        "list as synthesis dictionary": generator(sizes(synthesis_kwargs=[["a", 1]])),
        "modules shared 3^15 times": shared_modules(15),
    }  # fmt: skip


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
