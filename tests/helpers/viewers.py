"""Viewers to test: networks in a folder, and a server of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette", reason="starlette is not installed (sg3[viewer])")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (sg3[viewer])")
pytest.importorskip("websockets", reason="websockets is not installed (sg3[viewer])")

import uvicorn

from sg3.viewer.catalogue import Catalogue
from sg3.viewer.guard import Tokens
from sg3.viewer.server import application, configuration, listen
from sg3.viewer.viewer import Viewer
from tests.helpers.for_tools import saved, tiny2, tiny3

FULL, LOOK = "full-token", "look-token"


def networks(folder: Path) -> list[Path]:
    """StyleGAN3 first, then StyleGAN2 with noise, then with three classes; all of 16 pixels."""
    return [
        saved(tiny3(), folder / "moves.pkl"), saved(tiny2(), folder / "noisy.pkl"),
        saved(tiny2(c_dim=3), folder / "classes.pkl"),
    ]  # fmt: skip


def viewer_of(*paths: Path, folders: tuple[Path, ...] = (), read_only: bool = False) -> Viewer:
    tokens = Tokens(None if read_only else FULL, LOOK)
    return Viewer(Catalogue(list(paths), list(folders)), torch.device("cpu"), tokens)


@dataclass
class Served:
    """A server on this machine."""

    viewer: Viewer
    port: int

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


@contextmanager
def served(viewer: Viewer) -> Iterator[Served]:
    """The viewer behind a real uvicorn, as `sg3 view` has it."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(configuration(application(viewer)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield Served(viewer, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(10)
        viewer.close()


def pixels_of(data: bytes) -> np.ndarray:
    """[H, W] or [H, W, C]"""
    return np.asarray(Image.open(BytesIO(data)))
