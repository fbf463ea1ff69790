"""Generators for programs without sg3: ONNX files, and archives of torch.export.

A network is traced with PyTorch's own forms of our ops, of which those that PyTorch cannot see through are then
replaced by their plain formulas (`PLAIN`). What comes out consists of standard operators, takes any number of pictures
at a time, and has truncation and, for StyleGAN3, the transform of the picture as inputs.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from sg3.atomic import write_atomic
from sg3.errors import MissingInputError, NumericalError, UsageError
from sg3.extras import install
from sg3.kernels.dispatch import asking_for
from sg3.kernels.filtered_lrelu.op import filtered_lrelu_ref
from sg3.kernels.upfirdn2d.op import upfirdn2d_ref
from sg3.models import Generator, StyleGenerator, stylegan3

Part = Literal["whole", "mapping", "synthesis"]
PARTS: tuple[Part, ...] = ("whole", "mapping", "synthesis")
OPSET = 18
MOST_BYTES = 2**31 - 2**24  # of weights in an ONNX file, which ends at 2 GiB
MOST_PICTURES = 1024  # at a time, which a dynamic size must end with
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-2}  # of pictures in -1..1, against PyTorch


class Exported(nn.Module):
    """A part of a generator, with its settings as inputs. `inputs` has an example of each by name."""

    def __init__(self, G: Generator, part: Part, half: bool) -> None:
        super().__init__()
        self.G = G
        self.part = part
        self.half_precision = half
        self.has_w = isinstance(G, StyleGenerator)
        self.moves = isinstance(G, stylegan3.Generator) and part != "mapping"
        if not self.has_w and part != "whole":
            raise UsageError(f"--part={part}: only StyleGAN generators have parts, this network is exported whole")

    def inputs(self, count: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
        """Values that fit, other ones for another seed."""
        random = torch.Generator().manual_seed(seed)
        G, found = self.G, {}
        if self.part == "synthesis":
            assert isinstance(G, StyleGenerator)
            with torch.no_grad():
                z = torch.randn(count, G.z_dim, generator=random)
                found["ws"] = G.mapping(z, self._labels(count)).float()
        else:
            found["z"] = torch.randn(count, G.z_dim, generator=random)
            if G.c_dim:
                found["c"] = self._labels(count)
            if self.has_w:
                found["truncation"] = torch.tensor(1 - 0.3 * (seed % 2))
        if self.moves:
            angle = torch.tensor(0.2 * seed)
            c, s = angle.cos(), angle.sin()
            zero, one = torch.zeros(()), torch.ones(())
            found["transform"] = torch.stack([c, s, 0.1 * angle, -s, c, zero, zero, zero, one]).reshape(3, 3)
        return found

    def _labels(self, count: int) -> torch.Tensor:
        labels = torch.zeros(count, self.G.c_dim)
        if self.G.c_dim:
            labels[torch.arange(count), torch.arange(count) % self.G.c_dim] = 1
        return labels

    @property
    def output(self) -> str:
        """What the result is called."""
        return "ws" if self.part == "mapping" else "image"

    def forward(
        self,
        z: torch.Tensor | None = None,
        c: torch.Tensor | None = None,
        truncation: torch.Tensor | None = None,
        ws: torch.Tensor | None = None,
        transform: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim], truncation [], ws [N, num_ws, w_dim], transform [3, 3] -> ws or image
        [N, C, H, W], about -1..1; float32 in and out."""
        G = self.G
        if not isinstance(G, StyleGenerator):
            assert z is not None
            return G(z, c, noise_mode="const").float()
        if self.part != "synthesis":
            assert z is not None
            assert truncation is not None
            ws = G.mapping(z, c)
            average = G.mapping.w_avg.to(ws)
            ws = average + truncation.to(ws) * (ws - average)
            if self.part == "mapping":
                return ws.float()
        assert ws is not None
        if not self.moves:
            return G.synthesis(ws, noise_mode="const").float()
        assert transform is not None
        image: torch.Tensor = functional_call(G.synthesis, {"input.transform": transform}, (ws,))
        return image.float()


def _filtered_lrelu(
    x: torch.Tensor, fu: Any, fd: Any, b: Any, up: int, down: int, padding: Any, gain: float, slope: float, clamp: Any,
    flip_filter: bool, with_signs: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    y = filtered_lrelu_ref(x, fu, fd, b, up, down, tuple(padding), gain, slope, clamp, flip_filter)
    return y, x.new_empty(0, dtype=torch.uint8)


def _upfirdn2d(
    x: torch.Tensor, f: Any, up: Any, down: Any, padding: Any, flip_filter: bool, gain: float, channels_last: bool
) -> torch.Tensor:
    return upfirdn2d_ref(x, f, tuple(up), tuple(down), tuple(padding), flip_filter, gain)


# Registered ops of `SG3_IMPL=torch` -> the same in plain PyTorch.
PLAIN: dict[str, Callable[..., Any]] = {"filtered_lrelu_torch": _filtered_lrelu, "upfirdn2d_torch": _upfirdn2d}


def trace(G: Generator, part: Part = "whole", half: bool = False) -> tuple[Exported, torch.export.ExportedProgram]:
    """A copy of the generator on the CPU, and its program, of plain operators only. Raises UsageError for a part that
    it does not have."""
    module = Exported(copy.deepcopy(G).cpu().eval().requires_grad_(False).float(), part, half)
    if half:
        module.G.half()
    inputs = module.inputs()
    n = torch.export.Dim("n", min=1, max=MOST_PICTURES)
    shapes = {name: {0: n} if name in ("z", "c", "ws") else {} for name in inputs}
    # Without kernels of Triton or Numba, and without what PyTorch warns of in its own code.
    with asking_for("torch"), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
        program = torch.export.export(module, (), inputs, dynamic_shapes=shapes, strict=False)
        table = torch.export.default_decompositions()
        table.update({getattr(torch.ops.sg3, name).default: plain for name, plain in PLAIN.items()})
        program = program.run_decompositions(table)
    left = {str(node.target) for node in program.graph.nodes if "sg3" in str(node.target)}
    assert not left, left
    return module, program


def write_archive(program: torch.export.ExportedProgram, path: Path) -> None:
    """An archive that `torch.export.load` reads, without sg3. Raises StorageError."""
    write_atomic(path, lambda file: torch.export.save(program, file))


def require_packages(path: Path, verify: bool) -> None:
    """Raises MissingInputError without what writes such a file, or runs it to `verify` it."""
    names = ("onnx", "onnxscript", *(["onnxruntime"] if verify else [])) if path.suffix == ".onnx" else ()
    if missing := [name for name in names if find_spec(name) is None]:
        raise MissingInputError(f"{path}: needs {', '.join(missing)}; {install('onnx')}")


def write_onnx(module: Exported, program: torch.export.ExportedProgram, path: Path) -> None:
    """An ONNX file with its weights in it, of opset 18. Raises UsageError for more than the 2 GiB that such a file can
    have, StorageError."""
    if (size := sum(t.numel() * t.element_size() for t in module.state_dict().values())) > MOST_BYTES:
        raise UsageError(f"{path}: {size >> 20} MiB of weights do not fit into an ONNX file; --half, or a .pt2 archive")
    with _quiet_exporter():
        made = torch.onnx.export(
            program, opset_version=OPSET, dynamo=True, external_data=False, verbose=False, output_names=[module.output],
        )  # fmt: skip
    assert made is not None
    write_atomic(path, lambda file: file.write(made.model_proto.SerializeToString()))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Inside, PyTorch does not tell what its exporter is about, on stdout, and what optional packages it misses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class Agreement:
    """The largest difference of an exported network's results from PyTorch's, and how large one may be."""

    difference: float
    most: float


def verify(module: Exported, path: Path) -> Agreement:
    """Run an exported file, by onnxruntime or as an archive of torch.export, for several sizes of a batch and other
    settings than it was traced with. Raises NumericalError for other results."""
    run = _onnx_runner(module, path) if path.suffix == ".onnx" else torch.export.load(path).module()
    worst, largest = 0.0, 0.0
    for count in (1, 3):
        inputs = module.inputs(count, seed=count)
        with torch.no_grad():
            expected, found = module(**inputs), run(**inputs)
        if found.shape != expected.shape or not bool(found.isfinite().all()):
            raise NumericalError(f"{path}: gives {list(found.shape)}, expected {list(expected.shape)} finite numbers")
        worst = max(worst, float((found - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    most = TOLERANCE[torch.float16 if module.half_precision else torch.float32] * max(largest, 1.0)
    if worst > most:
        raise NumericalError(f"{path}: differs from PyTorch by {worst:.2g}, expected at most {most:.2g}")
    return Agreement(worst, most)


def _onnx_runner(module: Exported, path: Path) -> Callable[..., torch.Tensor]:
    import onnxruntime  # type: ignore[import-not-found]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(**inputs: torch.Tensor) -> torch.Tensor:
        (result,) = session.run([module.output], {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(result)

    return run
