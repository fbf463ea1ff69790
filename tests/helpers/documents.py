"""The commands of the documents that sg3 started from, turned into ours, and stand-ins for what they name."""

from __future__ import annotations

import http.client
import re
import shlex
import socket
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

import sg3
from sg3.formats import web_request
from sg3.models import stylegan2, stylegan3
from tests.helpers import other_names
from tests.helpers.image_files import pixels, write_dataset
from tests.helpers.webserver import Handler, Server

COMMANDS = Path(__file__).parent.parent / "cli" / "documents.txt"
SCRIPTS = {  # their programs, and our commands
    "train.py": "train", "gen_images.py": "generate", "gen_video.py": "video", "calc_metrics.py": "metrics",
    "avg_spectra.py": "spectra", "dataset_tool.py": "dataset", "visualizer.py": "view",
}  # fmt: skip
MMAGIC = ("apps/interpolate_sample.py", "tools/utils/equivariance_viz.py")  # see docs/mmagic.md
SIZE = 32  # of the stand-ins
LABELS = 3


@dataclass(frozen=True)
class Command:
    """A line of a document: its program and the words after that."""

    document: str
    script: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([self.script, *self.words[:4]])


def commands() -> list[Command]:
    """All of them, in their order."""
    found, document = [], ""
    for line in COMMANDS.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("=="):
            document = line.removeprefix("==").strip()
        elif line.strip() and not line.startswith("#"):
            python, script, *words = shlex.split(line)
            assert python == "python"
            found.append(Command(document, script, tuple(words)))
    return found


def ours(command: Command, place: Path) -> list[str]:
    """The same command of sg3. Two things are put in their place: the network that a line leaves open, and /tmp."""
    words = [SCRIPTS[command.script], *command.words]
    words = [word.replace("PATH_TO_NETWORK_PKL", str(place / "network.pkl")) for word in words]
    return [re.sub(r"=/tmp/", f"={place}/", word) for word in words]


# ---- what the commands name ------------------------------------------------------------------------------------------


def generator(name: str) -> torch.nn.Module:
    """A tiny network of the kind that a file's name says."""
    torch.manual_seed(len(name))
    if name.startswith("stylegan2"):
        return stylegan2.Generator(8, 0, 8, SIZE, 3, channel_base=256, channel_max=8)
    rotation = {"conv_kernel": 1, "use_radial_filters": True} if "-r-" in name else {}
    return stylegan3.Generator(
        8, 0, 8, SIZE, 3, channel_base=256, channel_max=8, num_layers=4, margin_size=4, **rotation
    )


def write_standins(words: list[str], place: Path) -> None:
    """Data sets, folders of images and networks under the names that a command reads from."""
    for word in words:
        option, _, value = word.partition("=")
        path = Path(value).expanduser()
        if "://" in value or path.exists():
            continue
        if option in ("--data", "--source") and path.suffix == ".zip":
            path.parent.mkdir(parents=True, exist_ok=True)
            write_dataset(path, size=SIZE, labels=LABELS)
        elif option == "--source":
            for number, folder in enumerate(("a", "b")):
                (path / folder).mkdir(parents=True, exist_ok=True)
                for index in range(4):
                    Image.fromarray(pixels(4 * number + index, SIZE)).save(path / folder / f"{index}.png")
        elif option == "--network":
            path.parent.mkdir(parents=True, exist_ok=True)
            data = write_dataset(place / "trained-on.zip", size=SIZE)
            facts = {"path": str(data), "use_labels": False, "xflip": False, "resolution": SIZE, "max_size": None}
            sg3.save(sg3.Snapshot(G_ema=generator("stylegan3-r-"), training_set_kwargs=facts), path)


class Answering:
    """A server on this machine that answers https addresses, of NVIDIA's networks and of mmagic's, with tiny ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = Server()
        self._server.steps = [self._answer]
        self.asked: list[str] = []
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on every https address leads here."""
        address = ("127.0.0.1", self._server.server_port)

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = socket.create_connection(address)

        def https_open(handler: urllib.request.HTTPSHandler, request: urllib.request.Request) -> object:
            self.asked.append(request.full_url)
            return handler.do_open(Connection, request)

        monkeypatch.setattr(web_request._Secure, "https_open", https_open)
        monkeypatch.delenv("https_proxy", raising=False)
        monkeypatch.delenv("HTTPS_PROXY", raising=False)

    def _answer(self, handler: Handler) -> None:
        name = handler.path.rpartition("/")[2]
        path = self._folder / name
        if "_cvt_" in name:
            kind = "stylegan3-r-" if "_r_" in name else "stylegan3-t-"
            state = other_names.mmagic_stylegan3(generator(kind))
            torch.save({"state_dict": {f"generator_ema.{key}": value for key, value in state.items()}}, path)
        else:
            sg3.save(sg3.Snapshot(G_ema=generator(name)), path)
        handler.answer(200, path.read_bytes())
