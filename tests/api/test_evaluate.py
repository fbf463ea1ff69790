"""`sg3.evaluate` with another network to compare with, and with files of detectors."""

from __future__ import annotations

from pathlib import Path

import pytest

import sg3
from sg3.errors import UsageError
from sg3.metrics import network_files
from tests.helpers import tiny_networks
from tests.helpers.image_files import write_dataset
from tests.helpers.pixel_detectors import pixel_detectors


def test_against_another_network(tmp_path: Path) -> None:
    """The same numbers for networks in memory and in files: the difference of both values, within its interval."""
    one, other = tiny_networks.generator3(1), tiny_networks.generator3(2)
    told: list[dict] = []
    found = sg3.evaluate(one, "eqt20_int", against=other, device="cpu", on_result=told.append)
    alone = {G: sg3.evaluate(G, "eqt20_int", device="cpu")["eqt20_int"] for G in (one, other)}
    assert found == {"eqt20_int": alone[one], "eqt20_int_difference": pytest.approx(alone[one] - alone[other])}
    (line,) = told  # of the network, not of the other
    known = line["difference"]["eqt20_int"]
    assert known["value"] == found["eqt20_int_difference"]
    assert known["low"] < known["value"] < known["high"]
    for name, G in (("one", one), ("other", other)):
        sg3.save(sg3.Snapshot(G_ema=G), tmp_path / f"{name}.pkl")
    paths = tmp_path / "one.pkl", tmp_path / "other.pkl"
    assert sg3.evaluate(paths[0], "eqt20_int", against=paths[1], device="cpu") == found


@pytest.mark.parametrize("in_memory", [True, False])
def test_files_of_detectors(in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of those that a metric wants; they are what it is measured by."""
    asked: list[tuple[str, str]] = []

    def open_detector(name: str, _device: object, source: str) -> object:
        asked.append((name, source))
        return pixel_detectors()[name]

    monkeypatch.setattr(network_files, "open_detector", open_detector)
    data = write_dataset(tmp_path / "data.zip", size=16)
    network = tiny_networks.generator3()
    if not in_memory:
        sg3.save(sg3.Snapshot(G_ema=network), tmp_path / "net.pkl")
    told: list[dict] = []
    found = sg3.evaluate(
        network if in_memory else tmp_path / "net.pkl", "fid20_full", data=data, device="cpu", on_result=told.append,
        detector={"inception": tmp_path / "a.pth", "vgg16": "https://mirror/b.pt"}, workers=0, cache=False,
    )  # fmt: skip
    assert asked == [("inception", str(tmp_path / "a.pth"))]
    assert told[0]["recipe"]["detector_sha256"] == "inception-12"
    assert found["fid20_full"] > 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"detector": "inception=a.pth"}, r"detector='inception=a.pth': expected files by name, such as \{'dinov2'"),
        ({"detector": {"dino": "a.pth"}}, "detector: dino: unknown, choose from inception, vgg16"),
        ({"detector": {"vgg16": 3}}, r"detector\['vgg16'\]=3: expected a file or an address"),
        ({"against": 3}, "network: got int, expected a run"),
        ({"against": "", "detector": {}}, "network: got '', expected a run"),
        ({"graphs": 1}, "graphs=1: expected True or False"),
        ({"metrics": "auth_lite1", "sheet": "a.png", "against": "b.pkl"}, "sheet: shows one network"),
    ],
)
def test_what_goes_wrong(said: dict, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        sg3.evaluate(tiny_networks.generator3(), **{"metrics": "eqt4_int", "device": "cpu", **said})
