"""The wheel with each extra alone, in an environment of its own: what the extra is for works, and without it the
message says how to install it.

Slow, and pip downloads about a gigabyte: `pytest -m slow tests/test_each_extra.py`, `-k wandb` for one of them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.helpers.commands import Result
from tests.helpers.environments import CONSTRAINTS, PROJECT, Environment, build_wheel, environment
from tests.helpers.for_tools import saved, tiny3
from tests.helpers.hub import running_hub
from tests.helpers.image_files import write_dataset

TINY = ("--cfg=stylegan2", "--cbase=128", "--cmax=8", "--latent=8", "--map-depth=1", "--mbstd-group=2", "--aug=noaug",
        "--batch=50", "--kimg=1", "--tick=1", "--snap=1", "--grid=2x2", "--workers=0", "--metrics=none",
        "--device=cpu", "--outdir=runs", "--data=discs.zip")  # fmt: skip
MAKE_LMDB = """
import io, lmdb
from PIL import Image
with lmdb.open("images_lmdb", map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
    for i in range(4):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (60 * i, 0, 0)).save(buffer, "PNG")
        transaction.put(b"%d" % i, buffer.getvalue())
"""


def well(result: Result) -> Result:
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    return result


def with_cpu(there: Environment) -> None:
    report = json.loads(well(there.sg3("doctor", "--json")).out)
    assert report["implementations"]["cpu"]["filtered_lrelu"]["impl"] == "numba"
    well(there.sg3("generate", "--network=net.safetensors", "--seeds=0", "--outdir=out"))
    assert Image.open(there.work / "out" / "seed0000.png").size == (16, 16)


def with_video(there: Environment) -> None:
    well(there.sg3("video", "--network=net.safetensors", "--seeds=0,1", "--w-frames=4", "--output=walk.mp4"))
    assert (there.work / "walk.mp4").read_bytes()[4:8] == b"ftyp"


def with_plot(there: Environment) -> None:
    well(there.sg3("spectra", "calc", "--source=discs.zip", "--dest=s.npz", "--mean=200", "--std=70"))
    well(there.sg3("spectra", "heatmap", "s.npz", "--save=s.png"))
    assert Image.open(there.work / "s.png").width > 100


def with_tb(there: Environment) -> None:
    well(there.sg3("train", *TINY, "--log-to=tensorboard"))
    assert [path for path in there.work.glob("runs/*/events.out.*") if path.stat().st_size > 1000]


def with_wandb(there: Environment) -> None:
    result = well(there.sg3("train", *TINY, "--log-to=wandb", WANDB_MODE="offline"))
    assert "warning: --log-to" not in result.err
    assert [path for path in there.work.glob("runs/*/wandb/offline-run-*/*.wandb") if path.stat().st_size > 1000]


def with_trackio(there: Environment) -> None:
    result = well(there.sg3("train", *TINY, "--log-to=trackio", TRACKIO_DIR=str(there.work / "trackio")))
    assert "warning: --log-to" not in result.err
    assert [path for path in there.work.rglob("trackio/**/*") if path.is_file() and path.stat().st_size > 1000]


def with_hub(there: Environment) -> None:
    with running_hub() as server:
        settings = {"HF_ENDPOINT": server.url, "HF_TOKEN": "secret", "HF_HUB_DISABLE_XET": "1"}
        pushed = there.sg3("push", "net.safetensors", "me/discs", "--licence=cc-by-4.0", **settings)
        assert well(pushed).out == f"{server.url}/me/discs\n"
        well(there.sg3("pull", "me/discs", "--output=back.safetensors", **settings))
    well(there.sg3("generate", "--network=back.safetensors", "--seeds=0", "--outdir=out"))


def with_onnx(there: Environment) -> None:
    result = well(there.sg3("export", "--network=net.safetensors", "--output=net.onnx", "--verify"))
    assert "differs from PyTorch by at most" in result.err
    assert (there.work / "net.onnx").stat().st_size > 10_000


def with_viewer(there: Environment) -> None:
    words = [there.python, there.folder / "bin" / "sg3", "view", "--network=net.safetensors", "--port=0", "--open=0"]
    process = subprocess.Popen([str(word) for word in words], cwd=there.work, env=there.variables(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        assert process.stdout is not None
        address, _, token = process.stdout.readline().strip().partition("/#token=")
        with urllib.request.urlopen(f"{address}/api/image.png?seed=2&token={token}", timeout=60) as answer:
            assert answer.read().startswith(b"\x89PNG")
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def with_fast(there: Environment) -> None:
    program = "from sg3.data import decode; assert decode.pyspng_load is not None"
    well(there.run("-c", program))
    well(there.sg3("dataset", "--source=discs.zip", "--dest=small.zip", "--resolution=8x8"))
    well(there.sg3("train", *TINY))


def with_lmdb(there: Environment) -> None:
    well(there.run("-c", MAKE_LMDB))
    well(there.sg3("dataset", "--source=images_lmdb", "--dest=images.zip"))
    assert (there.work / "images.zip").stat().st_size > 500


def with_cc(there: Environment) -> None:
    """With no compiler but the one from PyPI in reach, whose first call takes long: it builds what it links with."""
    (there.work / "a.c").write_text("int a(void) { return 1; }\n")
    well(there.run("-m", "ziglang", "cc", "-shared", "-fPIC", "a.c", "-o", "a.so"))
    report = json.loads(well(there.sg3("doctor", "--json", PATH=str(there.folder / "bin"))).out)
    assert "ziglang" in " ".join(report["triton"]["compiler"]["command"])
    assert report["triton"]["stub"]["works"], report["triton"]["stub"]


def with_projected(there: Environment) -> None:
    words = ("--network=net.safetensors", "--data=discs.zip", "--metrics=fd_efflite24", "--json", "--device=cpu")
    assert "fd_efflite24" in json.loads(well(there.sg3("metrics", *words)).out.splitlines()[0])["results"]


def with_demo(there: Environment) -> None:
    """README's command for a while, then Ctrl-C."""
    words = re.search(r"sg3 (train --preset=demo --outdir=\S+)", (ROOT / "README.md").read_text())
    assert words is not None
    command = [str(there.python), str(there.folder / "bin" / "sg3"), *words[1].split()]
    process = subprocess.Popen(command, cwd=there.work, env=there.variables(), text=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)  # fmt: skip
    try:
        until = time.monotonic() + 300
        while not list(there.work.glob("runs/*/fakes000000.png")) and time.monotonic() < until:
            assert process.poll() is None, process.communicate()
            time.sleep(1)
        time.sleep(20)
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    (run,) = there.work.glob("runs/0*")
    assert list(run.glob("training-state-*.pt"))
    assert list(run.glob("network-snapshot-*.pkl"))


def with_notebook(there: Environment) -> None:
    """A kernel that runs a cell."""
    program = (
        "from ipykernel.kernelapp import IPKernelApp; from IPython.core.interactiveshell import InteractiveShell; "
        "import ipywidgets; done = InteractiveShell().run_cell('import sg3; sg3.generate(\"net.safetensors\", 0)'); "
        "assert done.success and done.result.shape == (1, 16, 16, 3)"
    )
    well(there.run("-c", program))


def with_test(there: Environment) -> None:
    collected = well(there.run("-m", "pytest", "--collect-only", "-p", "no:cacheprovider", ROOT, cwd=ROOT))
    assert "error" not in collected.out.splitlines()[-1]
    names = ("test_durations.py", "data/test_lmdb.py", "viewer/test_command.py", "cli/test_video.py")
    files = (f"tests/{name}" for name in names)
    well(there.run("-m", "pytest", "-p", "no:cacheprovider", "-n2", *files, cwd=ROOT))


def with_bench(there: Environment) -> None:
    well(there.run("-m", "pytest", "-p", "no:cacheprovider", "bench", "-k", "bias_act", cwd=ROOT,
                   SG3_BENCH_SECONDS="0.02", SG3_BENCH_DEADLINE="20"))  # fmt: skip
    assert "--network" in well(there.run("-m", "bench.static", "--help", cwd=ROOT)).out


def with_docs(there: Environment) -> None:
    site = there.work / "site"
    well(there.run("-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", site, cwd=ROOT))
    assert "StyleGAN" in (site / "index.html").read_text()


def with_dev(there: Environment) -> None:
    well(there.run("-m", "ruff", "check", "--no-cache", ".", cwd=ROOT))
    well(there.run("-m", "mypy", "--cache-dir", there.work / "types", cwd=ROOT))
    well(there.run("-m", "build", "--wheel", "--outdir", there.work / "dist", ROOT))


EXTRAS: dict[str, Callable[[Environment], None]] = {function.__name__.removeprefix("with_"): function for function in (
    with_cpu, with_video, with_plot, with_tb, with_wandb, with_trackio, with_hub, with_onnx, with_viewer, with_fast,
    with_lmdb, with_cc, with_projected, with_demo, with_notebook, with_test, with_bench, with_docs, with_dev,
)}  # fmt: skip

# What a user of the wheel alone tries, and the exit code: 66, for what is missing is an input.
WITHOUT: dict[str, tuple[str, ...]] = {
    "video": ("video", "--network=net.safetensors", "--seeds=0,1", "--output=walk.mp4"),
    "plot": ("spectra", "heatmap", "s.npz", "--save=s.png"),
    "tb": ("train", *TINY, "--log-to=tensorboard"),
    "wandb": ("train", *TINY, "--log-to=wandb"),
    "trackio": ("train", *TINY, "--log-to=trackio"),
    "hub": ("push", "net.safetensors", "me/discs", "--licence=cc-by-4.0"),
    "onnx": ("export", "--network=net.safetensors", "--output=net.onnx", "--verify"),
    "viewer": ("view", "--network=net.safetensors", "--port=0", "--open=0"),
    "lmdb": ("dataset", "--source=images_lmdb", "--dest=images.zip"),
    "projected": ("metrics", "--network=net.safetensors", "--data=discs.zip", "--metrics=fd_efflite24"),
    "demo": ("train", "--preset=demo", "--outdir=runs"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What every installation has, once."""
    made = environment(tmp_path_factory.mktemp("requirements") / "env")
    made.install(*CONSTRAINTS, *PROJECT["dependencies"])
    return made


@pytest.fixture
def there(wheel: Path, requirements: Environment, tmp_path: Path, request: pytest.FixtureRequest) -> Environment:
    """An environment with the wheel and the extra of the test, and with a network and images to work on."""
    made = environment(tmp_path / "env", beside=requirements)
    extra = getattr(request, "param", None)
    made.install(*CONSTRAINTS, f"{wheel}[{extra}]" if extra else wheel)
    saved(tiny3(), made.work / "net.safetensors")
    write_dataset(made.work / "discs.zip")
    place = made.run("-c", "import sg3; print(sg3.__file__)").out.strip()
    assert place.startswith(str(made.folder)), place
    return made


def test_every_extra_has_its_command() -> None:
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"])
    # Those of developers have no command of sg3; without cpu, fast and cc, something else does the same.
    assert set(EXTRAS) - set(WITHOUT) == {"cpu", "fast", "cc", "notebook", "test", "bench", "docs", "dev"}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("there", "extra"), [(name, name) for name in EXTRAS], indirect=["there"])
def test_the_wheel_with_this_extra_alone(there: Environment, extra: str) -> None:
    EXTRAS[extra](there)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_wheel_with_no_extra(there: Environment) -> None:
    (there.work / "images_lmdb").mkdir()
    for name in ("data.mdb", "lock.mdb"):
        (there.work / "images_lmdb" / name).write_bytes(bytes(8192))
    well(there.sg3("generate", "--network=net.safetensors", "--seeds=0", "--outdir=out"))
    well(there.sg3("train", *TINY))
    for extra, words in WITHOUT.items():
        result = there.sg3(*words)
        assert result.code == 66, (extra, result.err)
        assert f"pip install 'sg3[{extra}]' (in a checkout: pip install -e '.[{extra}]')" in result.error_line()
    rows = json.loads(well(there.sg3("doctor", "--json", PATH=os.defpath)).out)["extras"]
    assert {name: row["version"] for name, row in rows.items()} == dict.fromkeys(rows)
