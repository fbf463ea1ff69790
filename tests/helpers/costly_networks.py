"""Files that should be networks, and that ask for more time or memory than their size lets expect."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import torch

import sg3
from sg3 import limits
from sg3.formats.storage_stream import write_storage
from tests.helpers import hostile_parts as h
from tests.helpers import other_names, tiny_networks

Make = Callable[[], bytes]


def cases() -> dict[str, Make]:
    """Name -> what makes the file. Names begin with the kind; what follows a `!` is what the message has to say."""
    return {**shared(), **names(), **arrays(), **headers(), **tables(), **at_the_limit(), **others()}


# ---- sharing that describes exponentially much


def nest(levels: int, form: str = "tuple") -> bytes:
    """Two references to two references to ..., and the topmost is left on the stack."""
    if form == "tuple":
        return h.pairs(levels)
    if form == "list":
        inner = b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x940" for i in range(levels))
        return b"]\x940" + inner + b"h" + bytes([levels])
    a, b = h.text("a"), h.text("b")
    inner = b"".join(b"}(" + a + b"h" + bytes([i]) + b + b"h" + bytes([i]) + b"u\x940" for i in range(levels))
    return b"}\x940" + inner + b"h" + bytes([levels])


def record_with(field: bytes, value: bytes, state: bytes = b"}") -> bytes:
    """A module's record by hand; `field` is one of its entries or of its state's."""
    meta = {b"type": h.text("class"), b"version": b"K\x06", b"class_name": h.text("G"), b"state": state, field: value}
    entries = b"".join(h.text(name.decode()) + entry for name, entry in meta.items())
    return h.call(h.named(*h.RECORD), b"}(" + entries + b"u")


def shared() -> dict[str, Make]:
    places: dict[str, Callable[[bytes], bytes]] = {
        "module_src": lambda value: b"}" + h.text("G_ema") + record_with(b"module_src", value) + b"s",
        "class_name": lambda value: b"}" + h.text("G_ema") + record_with(b"class_name", value) + b"s",
        "type": lambda value: b"}" + h.text("G_ema") + record_with(b"type", value) + b"s",
        "version": lambda value: b"}" + h.text("G_ema") + record_with(b"version", value) + b"s",
        "state": lambda value: b"}" + h.text("G_ema") + record_with(b"state", value) + b"s",
        "_init_kwargs": lambda value: b"}" + h.text("G_ema") + record_with(
            b"state", b"}(" + h.text("_modules") + b"}" + h.text("synthesis") + record_with(
                b"state", b"}" + h.text("_modules") + b"}" + h.text("b4") + record_with(b"x", b"N") + b"ss"
            ) + b"s" + h.text("_init_kwargs") + value + b"u") + b"s",
        "G_ema": lambda value: b"}" + h.text("G_ema") + value + b"s",
        **{name: lambda value, name=name: b"}(" + h.text("G") + record_with(b"x", b"N") + h.text(name) + value + b"u"
           for name in ("training_set_kwargs", "G_opt_state", "progress")},
        "a call's argument": lambda value: h.call(h.named("torch", "Size"), value),
        "a call's state": lambda value: h.call(h.named("torch", "Size")) + value + b"b",
        "a tensor's size": lambda value: h.call(h.named(*h.TENSOR), b"N", b"K\x00", value, b")", b"\x89", b"N"),
        "the root": lambda value: value,
        "TensorFlow's state": lambda value: h.named("dnnlib.tflib.network", "Network") + b")\x81" + value + b"b",
    }  # fmt: skip
    found: dict[str, Make] = {}
    for place, put in places.items():
        for levels in (20, 44, 90):
            found[f"shared {levels} times in {place}"] = lambda put=put, n=levels: h.pickled(put(nest(n)))
    for form in ("list", "dict"):
        for levels in (44, 90):
            found[f"shared {form} {levels} times in module_src"] = (
                lambda n=levels, form=form: h.pickled(places["module_src"](nest(n, form)))
            )
    for levels in (30, 44):
        found[f"shared {levels} times in a torch.save file"] = lambda n=levels: h.evil_zip(
            nest(n) + b"0}(" + h.text("g_ema") + b"h" + bytes([n]) + h.text("latent_avg") + b"h" + bytes([n]) + b"u"
        )
        found[f"shared {levels} times in the keys of an old torch.save file"] = lambda n=levels: old(b"}", nest(n))
        found[f"shared {levels} times in a list of such keys"] = lambda n=levels: old(
            b"}" + h.text("g_ema") + b"}s", nest(n) + b"0]h" + bytes([n]) + b"a"
        )
        found[f"shared {levels} times in its magic number"] = lambda n=levels: (
            h.pickled(nest(n)) + h.pickled(b"N") * 4
        )
        found[f"shared {levels} times in a persistent id"] = lambda n=levels: h.evil_zip(
            nest(n) + b"0}" + h.text("g_ema") + b"h" + bytes([n]) + b"\x85Qs"
        )
    return found


def old(content: bytes, keys: bytes) -> bytes:
    """A file of torch.save before 1.6: magic number, version, machine, content, keys."""
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}" + h.text("little_endian") + b"\x88s."
    return head + b"\x80\x02" + content + b"." + b"\x80\x02" + keys + b"."


# ---- long names, and many of them


def long_paths(levels: int, wide: int, length: int) -> bytes:
    """Dictionaries in dictionaries under names of this length, shared from level to level, and `wide` entries."""
    body = b"}(" + b"".join(h.text(f"{i}") + b"N" for i in range(wide)) + b"u\x94"
    name = h.text("n" * length)
    other = h.text("m" * length)
    for level in range(levels):
        body += b"0}(" + name + b"h" + bytes([level]) + other + b"h" + bytes([level]) + b"u\x94"
    return body


def modules_with_long_names(levels: int, length: int) -> bytes:
    body = h.record_by_hand(b"}" + h.text("_modules") + b"}s") + b"q\x000"
    for level in range(levels):
        child = b"h" + bytes([level])
        children = b"}(" + h.text("a" * length) + child + h.text("b" * length) + child + b"u"
        body += h.record_by_hand(b"}" + h.text("_modules") + children + b"s") + b"q" + bytes([level + 1]) + b"0"
    return h.pickled(body + b"}" + h.text("G_ema") + b"h" + bytes([levels]) + b"s")


def names() -> dict[str, Make]:
    found: dict[str, Make] = {
        f"names of {length} characters, {wide} below {levels}": lambda a=levels, b=wide, c=length: h.pickled(
            long_paths(a, b, c) + b"0}" + h.text("G_ema") + record_with(b"state", b"h" + bytes([a])) + b"s"
        )
        for levels, wide, length in ((10, 300, 1000), (14, 20, 1000), (1, 10, 1001), (1, 10, 10**6), (90, 1, 1000))
    }
    for levels, length in ((12, 1000), (16, 1000), (5, 2000)):
        found[f"modules named with {length} characters, {levels} levels"] = (
            lambda a=levels, b=length: modules_with_long_names(a, b)
        )
    found["TensorFlow components with long names"] = lambda: tensorflow(10**4, components=99)
    found["a TensorFlow variable's long name"] = lambda: tensorflow(10**6, components=3)
    found["a million small texts"] = lambda: h.pickled(b"](" + h.text("a") * 10**6 + b"e")
    found["a line without an end"] = lambda: h.pickled(b"c" + b"a" * 10**8)
    found["classes of layers"] = lambda: h.pickled(
        b"](" + b"".join(h.named("torch.nn.modules.conv", f"C{i}") for i in range(100_000)) + b"e"
    )
    return found


def tensorflow(length: int, components: int) -> bytes:
    network = h.named("dnnlib.tflib.network", "Network") + b")\x81"

    def state(variables: bytes, inner: bytes) -> bytes:
        return (b"}(" + h.text("version") + b"K\x05" + h.text("static_kwargs") + b"}" + h.text("variables")
                + variables + h.text("components") + inner + b"ub")  # fmt: skip

    variable = h.text("v" * length) + b"G" + bytes(8) + b"\x86\x940"
    leaf = network + state(b"](" + b"h\x00" * 100 + b"e", b"}") + b"\x940"
    inner = b"}(" + b"".join(h.text(f"{i}" + "c" * 900) + b"h\x01" for i in range(components)) + b"u"
    whole = network + state(b"]", inner) + b"\x940"
    return h.pickled(variable + leaf + whole + b"h\x02h\x02h\x02\x87")


# ---- one array under many names


def numpy_array(count: int, dtype: str = "f4") -> bytes:
    raw = bytes(count * int(dtype[1]))
    kind = h.call(h.named("numpy", "dtype"), h.text(dtype), b"\x89", b"\x88") + b"(K\x03" + h.text("<") + b"NNN"
    kind += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(J" + struct.pack("<i", count) + b"t"
    made = h.call(h.named("numpy._core.multiarray", "_reconstruct"), h.named("numpy", "ndarray"), b"K\x00\x85",
                  h.data(b"b"))  # fmt: skip
    return made + b"(K\x01" + shape + kind + b"\x89" + h.data(raw) + b"tb"


def tensorflow_array(count: int, uses: int, dtype: str = "f4") -> bytes:
    network = h.named("dnnlib.tflib.network", "Network") + b")\x81"
    variables = b"](" + b"".join(h.text(f"4x4/v{i}") + b"h\x00\x86" for i in range(uses)) + b"e"
    state = (b"}(" + h.text("version") + b"K\x05" + h.text("static_kwargs") + b"}" + h.text("variables") + variables
             + b"ub")  # fmt: skip
    return h.pickled(numpy_array(count, dtype) + b"\x940" + (network + state) * 3 + b"\x87")


def official_tensor(count: int, uses: int) -> bytes:
    """Not contiguous, so that copies are real."""
    storage = h.call(h.named(*h.STORAGE), h.data(write_storage(torch.zeros(count))))
    half = b"J" + struct.pack("<i", count // 2)
    view = b"K\x00" + half + b"K\x02\x86" + b"K\x01" + half + b"\x86" + b"\x89N"
    tensor = h.call(h.named(*h.TENSOR), storage, view)
    parameters = b"}(" + b"".join(h.text(f"p{i}") + b"h\x00" for i in range(uses)) + b"u"
    b4 = b"}" + h.text("b4") + record_with(b"state", b"}" + h.text("_parameters") + parameters + b"s") + b"s"
    synthesis = record_with(b"state", b"}" + h.text("_modules") + b4 + b"s")
    state = b"}(" + h.text("_modules") + b"}" + h.text("synthesis") + synthesis + b"s" + h.text("_init_kwargs") + b"}u"
    return h.pickled(tensor + b"\x940}" + h.text("G_ema") + record_with(b"state", state) + b"s")


def torch_tensor(count: int, uses: int, names: str = "convs.{}.conv.weight") -> bytes:
    base = torch.zeros(count)
    view = base.view(2, -1).t()
    stream = io.BytesIO()
    torch.save({"g_ema": {names.format(i): view for i in range(uses)} | {"input.input": base[:4]}}, stream)
    return stream.getvalue()


def arrays() -> dict[str, Make]:
    return {
        **{f"one array of {count} in TensorFlow, {uses} names": lambda a=count, b=uses: tensorflow_array(a, b)
           for count, uses in ((2**20, 1000), (2**22, 200), (2**10, 10_000))},
        "whole numbers in TensorFlow": lambda: tensorflow_array(2**27, 1, "u1"),
        **{f"one tensor of {count}, {uses} names": lambda a=count, b=uses: official_tensor(a, b)
           for count, uses in ((2**20, 1000), (2**22, 100))},
        **{f"one tensor of {count} in a torch.save file, {uses} names": lambda a=count, b=uses: torch_tensor(a, b)
           for count, uses in ((2**20, 1000), (2**22, 200), (2**22, 30))},
        "a tensor of bytes": lambda: torch_saved({"g_ema": {"input.input": torch.zeros(2**27, dtype=torch.uint8)}}),
    }  # fmt: skip


# ---- headers of safetensors files


def headers() -> dict[str, Make]:
    def many(count: int, name: str) -> bytes:
        entries = (f'"{name}{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(count))
        meta = json.dumps({"sg3": json.dumps({"version": 1, "networks": {}})})
        return h.safetensors((f'{{"__metadata__":{meta},' + ",".join(entries) + "}").encode(), b"")

    def config(text: str) -> bytes:
        return h.safetensors(json.dumps({"__metadata__": {"sg3": text}}).encode(), b"")

    return {
        "40,000 names in a header": lambda: many(40_000, "G_ema."),
        "30,000 names in a header": lambda: many(30_000, "G."),
        "long names in a header": lambda: many(20, "G_ema." + "a" * 100_000),
        "a header of 16 MB": lambda: many(200_000, "G_ema.aaaaaaaaaaaaaaaaaaaaaaaa"),
        "a deep configuration": lambda: config("[" * 500_000),
        "a wide configuration": lambda: config("[" + "[]," * 400_000 + "[]]"),
        "a configuration of long numbers": lambda: config("[" + "1" * 1_000_000 + "]"),
        "a configuration of one text": lambda: config('{"version": "' + "a" * 1_500_000 + '"}'),
        "a licence of 1 MB": lambda: config(json.dumps({"version": 1, "licence": "x" * 10**6, "networks": {}})),
        "deep arguments": lambda: config(
            '{"version": 1, "networks": {"G_ema": {"family": "stylegan3-generator", "arguments": {"z_dim": '
            + "[" * 900 + "]" * 900 + "}}}}"
        ),
    }  # fmt: skip


# ---- tables of zip files


def zip_table(count: int, name: Callable[[int], str], first: dict[str, bytes] | None = None) -> bytes:
    """A zip file with so many entries more, all of them at the same place."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for entry, data in (first or {}).items():
            archive.writestr(entry, data)
        archive.writestr(name(0), b"")
        offset = archive.infolist()[-1].header_offset
        start = archive.start_dir
    head = stream.getvalue()[:start]
    table = stream.getvalue()[start:]
    table = bytearray(table[: table.rindex(b"PK\x05\x06")])
    for i in range(1, count):
        encoded = name(i).encode()
        table += struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0x800, 0, 0, 33, 0, 0, 0, len(encoded), 0, 0, 0, 0, 0,
                             offset) + encoded  # fmt: skip
    entries = count + len(first or {})
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, len(table), len(head))
    end += struct.pack("<4sIQI", b"PK\6\7", 0, len(head) + len(table), 1)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return head + bytes(table) + end


def tables() -> dict[str, Make]:
    weights = {"a/data.pkl": b"\x80\x02}."}
    script = {"a/data.pkl": b"\x80\x02}.", "a/constants.pkl": b"\x80\x02)."}
    return {
        **{f"a torch.save file of {count} entries": lambda n=count: zip_table(n, lambda i: f"a/data/{i}", weights)
           for count in (1_000_000, 200_000, 49_000)},
        "a TorchScript file of a million entries": lambda: zip_table(10**6, lambda i: f"a/data/{i}", script),
        "a torch.save file of long names": lambda: zip_table(1000, lambda i: f"a/{i}" + "x" * 60_000, weights),
        "a zip file that claims a table of 4 GB": lambda: h.evil_zip(b"}").replace(
            b"PK\x05\x06\x00\x00\x00\x00\x03\x00\x03\x00", b"PK\x05\x06\x00\x00\x00\x00\x03\x00\x03\x00\xff\xff\xff\xfe"
        ),
    }


# ---- as large as is let through


def at_the_limit() -> dict[str, Make]:
    most = limits.PICKLE_INSTRUCTIONS - 10
    return {
        "as many numbers as fit": lambda: h.pickled(b"](" + b"K\x01" * most + b"e"),
        "as many texts as fit": lambda: h.pickled(b"](" + h.text("abc") * most + b"e"),
        "as many tuples as fit": lambda: h.pickled(b"](" + b"N\x85" * (most // 2) + b"e"),
        "as many dictionaries as fit": lambda: h.pickled(b"](" + b"}" * most + b"e"),
        "as many sets as fit": lambda: h.pickled(b"](" + b"\x8f" * most + b"e"),
        "as many calls as fit": lambda: h.pickled(
            h.named("torch", "Size") + b"\x940](" + b"h\x00)R" * (most // 3) + b"e"
        ),
        "as many names as fit": lambda: h.pickled(b"](" + h.named("torch", "Size") * most + b"e"),
        "as many entries as fit": lambda: h.pickled(
            b"}(" + b"".join(h.text(f"{i}") + b"N" for i in range(most // 2)) + b"u"
        ),
        "as many memo slots as fit": lambda: h.pickled(b"](" + b"N\x94" * (most // 2) + b"e"),
        "as many storages as fit": lambda: h.evil_zip(
            b"](" + (b"(" + h.text("storage") + h.named("torch", "FloatStorage") + h.text("0") + h.text("cpu")
                     + b"K\x02tQ") * (most // 8) + b"e"
        ),
        "as much text as fits": lambda: h.pickled(b"](" + h.text("a" * 2**24) * 4 + b"e"),
        "as many references as fit": lambda: h.pickled(
            b"](" + b"N" * 600 + b"e\x940](" + b"h\x00" * 600 + b"e\x940}" + h.text("G_ema") + b"h\x01s"
        ),
    }  # fmt: skip


# ---- the rest


def torch_saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def rosinality(**changes: Any) -> bytes:
    """A generator of rosinality's without a mean of w, some of its tensors replaced."""
    state = other_names.rosinality_generator(other_names.generator())
    state.update(changes)
    return torch_saved({"g_ema": state})


def wide_mapping(width: int, layers: int) -> bytes:
    network = other_names.stylegan2.Generator(
        z_dim=width, c_dim=0, w_dim=width, img_resolution=8, img_channels=1, mapping_kwargs={"num_layers": layers},
        channel_base=8, channel_max=1, num_fp16_res=0, conv_clamp=None,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    content = torch.load(io.BytesIO(saved(network, ".pt")))
    content.pop("latent_avg")
    return torch_saved(content)


def others() -> dict[str, Make]:
    kernel = "convs.0.conv.blur.kernel"
    return {
        "a mapping network of 4096": lambda: wide_mapping(4096, 1),
        "a mapping network of 1024, 8 layers": lambda: wide_mapping(1024, 8),
        "a blur kernel of a million": lambda: rosinality(**{kernel: torch.ones(10**6)}),
        "a blur kernel of 4000 x 4000": lambda: rosinality(**{kernel: torch.ones(4000, 4000)}),
        "a blur kernel of 1 x 10^7": lambda: rosinality(**{kernel: torch.ones(1, 10**7)}),
        "a blur kernel of 65 x 65": lambda: rosinality(**{kernel: torch.ones(65, 65)}),
        "a blur kernel of one number": lambda: rosinality(**{kernel: torch.tensor(1.0)}),
        "a blur kernel of nothing": lambda: rosinality(**{kernel: torch.zeros(0, 0)}),
        "a blur kernel of NaN": lambda: rosinality(**{kernel: torch.full((4, 4), nan)}),
        "a blur kernel of zeros": lambda: rosinality(**{kernel: torch.zeros(4, 4)}),
        "a name of mmagic's StyleGAN3 with a wide margin": lambda: torch_saved({"state_dict": {
            f"generator_ema.synthesis.L{i}_{65552 if i == 0 else 16}_4.weight": torch.ones(4, 4, 3, 3)
            for i in range(4)
        }}),
        "networks as they should be": lambda: saved(tiny_networks.generator3()),
    }  # fmt: skip


def saved(generator: torch.nn.Module, suffix: str = ".pkl") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        sg3.save(sg3.Snapshot(G_ema=generator), path)
        return path.read_bytes()
