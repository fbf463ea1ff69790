"""`sg3 push`, `sg3 pull` and hf:// against a stand-in for the Hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import sg3
from sg3.errors import MissingInputError, UsageError
from sg3.formats.hub import Address
from sg3.terminal import printable
from tests.helpers.commands import Result
from tests.helpers.hub import Hub, running_hub

pytest.importorskip("huggingface_hub")
Run = Callable[..., Result]


@pytest.fixture
def hub():
    with running_hub() as server:
        yield server


@pytest.fixture
def hub_run(hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """sg3 in this process, with the stand-in as the Hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "secret")
    return run


@pytest.fixture(scope="module")
def network() -> sg3.Snapshot:
    from sg3.models import stylegan2

    G = stylegan2.Generator(8, 0, 8, 16, 3, channel_base=128, channel_max=8, mapping_kwargs={"num_layers": 1})
    facts = {"path": "/home/somebody/secret place/cats.zip", "resolution": 16}
    return sg3.Snapshot(G=G, G_ema=G, training_set_kwargs=facts)


@pytest.fixture
def run_dir(network: sg3.Snapshot, tmp_path: Path) -> Path:
    folder = tmp_path / "00000-stylegan2-cats"
    folder.mkdir()
    data = {"path": "/home/somebody/secret place/cats.zip", "name": "cats", "size": 12}
    config = {"cfg": "stylegan2", "gamma": 0.5, "device": "cuda:3", "detector_dir": "/home/x", "dataset": data}
    (folder / "training_options.json").write_text(json.dumps({"options": {}, "config": config}))
    sg3.save(network, folder / "network-snapshot-000004.pkl")
    recipe = {"num_gen": 1000, "num_real": 12, "seed": 0, "detector": "inception", "detector_sha256": "ab" * 32,
              "dataset": {"name": "cats", "sha256": "cd" * 32, "channels": 4}, "mirrored": True, "ddof": 0,
              "background": "#ffffff", "bars": "cut off, 16x9 left", "layer_noise": None, "notes": ["singular"],
              "device": "cuda:3", "versions": {"sg3": "0.1.0"}}  # fmt: skip
    line = {"results": {"fid1k_full": 12.5}, "snapshot_pkl": "network-snapshot-000004.pkl", "recipe": recipe}
    (folder / "metric-fid1k_full.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_a_run_goes_there_and_comes_back(hub, hub_run, run_dir, network, tmp_path, monkeypatch) -> None:
    pushed = hub_run("push", run_dir, "me/cats", "--licence=cc-by-4.0")
    assert pushed.code == 0, pushed.err
    assert pushed.out == f"{hub.url}/me/cats\n"
    files = hub.repos["me/cats"].commits[-1]
    assert set(files) >= {"network.safetensors", "README.md", "samples.png", "config.json"}
    everything = b"".join(files.values())
    for secret in (b"somebody", b"secret place", b"cuda:3", b"/home", str(tmp_path).encode()):
        assert secret not in everything, secret
    card = files["README.md"].decode()
    assert card.startswith('---\nlicense: "cc-by-4.0"\nlibrary_name: sg3\n')
    for words in ("# cats", "A StyleGAN2 generator of 16 x 16 pictures", "| `gamma` | 0.5 |", "| name | cats |",
                  "| fid1k_full | 12.5 | 1000 | 12 | inception (abababababab) | 0 | data cdcdcdcd, mirrored True, "
                  "ddof 0, background #ffffff, bars cut off, 16x9 left |", "4 kimg were shown"):  # fmt: skip
        assert words in card, card
    from huggingface_hub import ModelCard

    (found,) = ModelCard(card).data.eval_results  # the metadata that the Hub shows
    assert (found.metric_type, found.metric_value, found.dataset_name) == ("fid1k_full", 12.5, "cats")
    (tmp_path / "samples.png").write_bytes(files["samples.png"])
    assert Image.open(tmp_path / "samples.png").size == (6 * 16, 3 * 16)

    pulled = hub_run("pull", "me/cats", f"--output={tmp_path / 'copy.safetensors'}")
    assert (pulled.code, pulled.out) == (0, f"{tmp_path / 'copy.safetensors'}\n"), pulled.err
    copy = sg3.load(tmp_path / "copy.safetensors")
    assert copy.G is None
    assert copy.licence == "cc-by-4.0"
    assert network.G_ema is not None
    assert copy.G_ema is not None
    for name, tensor in network.G_ema.state_dict().items():
        assert torch.equal(copy.G_ema.state_dict()[name], tensor), name
    again = hub_run("generate", "--network=hf://me/cats", "--seeds=0", f"--outdir={tmp_path / 'out'}", "--device=cpu")
    assert again.code == 0, again.err
    assert len([path for method, path, _ in hub.requests if method == "GET" and "resolve" in path]) == 1  # kept since
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    offline = hub_run("info", "hf://me/cats")
    assert offline.code == 0, offline.err
    assert "note: hf://me/cats: the Hub cannot be reached, an earlier download is used" in offline.err


def test_from_python(hub, hub_run, run_dir, monkeypatch) -> None:
    assert hub_run("push", run_dir, "me/cats", "--licence=mit", "--whole", "--private").code == 0
    snapshot = sg3.load("hf://me/cats")
    assert (snapshot.G.z_dim, snapshot.licence, snapshot.training_set_kwargs["path"]) == (8, "mit", "cats.zip")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    other = hub_run("pull", "me/cats")
    assert other.code == 66
    assert "is not there, or not for you" in other.error_line()


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["push", "RUN", "me/cats"], 2, "--licence: needed"),
        (["push", "RUN", "cats", "--licence=mit"], 2, "expected"),
        (["push", "RUN", "me/cats", "--licence=CC BY"], 2,
         'me/cats: the Hub refuses the model card: Invalid metadata in README.md. - "license" must be one of'),
        (["push", "no.pkl", "me/cats", "--licence=mit"], 66, "no.pkl: there is no such file"),
        (["push", "hf://me/cats", "me/cats"], 2, "hf://me/cats: is not on this machine; expected a file or"),
        (["push", "hf://me/cats", "RUN"], 2, "the network comes first, then where it goes: RUN, me/cats"),
        (["push", "me/cats", "RUN"], 2, "the network comes first, then where it goes: RUN, me/cats"),
        (["push", "me/cats", "no.pkl"], 2, "the network comes first, then where it goes: no.pkl, me/cats"),
        (["push", "stylegan3-r-afhqv2-512x512", "me/x"], 2, "is not on this machine"),
        (["push", "RUN", "hf://me/cats"], 2, "--licence: needed"),  # as me/cats
        (["push", "", "me/cats"], 2, "names nothing"),
        (["pull", "me/dogs"], 66, "hf://me/dogs: is not there, or not for you"),
        (["pull", "stylegan3-r-afhq"], 66, "did you mean stylegan3-r-afhqv2-512x512?"),
        (["info", "hf://me"], 2, "expected hf://OWNER/NAME"),
        (["info", "hf://me/../x"], 2, "expected hf://OWNER/NAME"),
        (["info", "hf://me/many"], 66, "which file? Name it, as in hf://OWNER/NAME/FILE; networks there: a.pkl, b.pth"),
        (["info", "hf://me/many/c.pkl"], 66, "there is no such file; there are a.pkl, b.pth, x.txt"),
        (["info", "hf://me/many@v2/a.pkl"], 66, "is not there, or not for you"),
        (["info", "hf://me/many/a.pkl"], 65, "a.pkl"),
    ],
)
def test_what_goes_wrong(hub: Hub, hub_run: Run, run_dir: Path, words, code, why) -> None:
    from tests.helpers.hub import Repository

    hub.repos["me/many"] = Repository([{"a.pkl": b"no network", "b.pth": b"x", "x.txt": b"x"}])
    result = hub_run(*[run_dir if word == "RUN" else word for word in words])
    assert result.code == code, result.err
    assert why.replace("RUN", printable(run_dir)) in result.error_line()
    assert set(hub.repos) == {"me/many"}, "nothing was made on the Hub"


def test_another_content_than_the_hub_says(hub: Hub, hub_run: Run, run_dir: Path) -> None:
    assert hub_run("push", run_dir, "me/cats", "--licence=mit").code == 0
    real = hub.repos["me/cats"].commits[-1]["network.safetensors"]
    hub.instead["network.safetensors"] = real[:-1] + bytes([real[-1] ^ 1])
    result = hub_run("info", "hf://me/cats")
    assert result.code == 65
    assert "is not what the Hub has" in result.error_line()


def test_a_hub_that_fails(hub, hub_run, run_dir, monkeypatch) -> None:
    hub.broken = True
    for words in (["info", "hf://me/cats"], ["push", run_dir, "me/cats", "--licence=mit"]):
        result = hub_run(*words)
        assert result.code == 74, result.err
        assert "the Hub answers 500" in result.error_line()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    nowhere = hub_run("info", "hf://me/cats")
    assert nowhere.code == 74
    assert "cannot be reached" in nowhere.error_line()


def test_numbers_of_the_card_are_numbers() -> None:
    from huggingface_hub import ModelCard

    from sg3.tools.model_card import _model_index

    values = [1e-05, 5e-324, 1e22, -0.25, 3.0]
    measured = [(f"fwd{i}k_full", value, {"dataset": {"name": ["a: b", "c"][i % 2]}}) for i, value in enumerate(values)]
    card = ModelCard("\n".join(["---", *_model_index("me/cats", measured, None), "---", ""]))
    found = {result.metric_type: (result.metric_value, result.dataset_name) for result in card.data.eval_results}
    assert found == {name: (value, recipe["dataset"]["name"]) for name, value, recipe in measured}


def test_addresses() -> None:
    assert Address.parse("hf://me/cats") == Address("me/cats")
    assert Address.parse("hf://me/cats@v1.0/nets/a b.pkl") == Address("me/cats", "v1.0", "nets/a b.pkl")
    for wrong in ("hf://", "hf://me", "hf://me/cats/", "hf://me/cats/../x", "hf://me/ca ts", "hf://me/cats/\x1b"):
        with pytest.raises(UsageError):
            Address.parse(wrong)


def test_without_the_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    with pytest.raises(MissingInputError, match=r"needs huggingface-hub; pip install 'sg3\[hub\]'"):
        sg3.load("hf://me/cats")


def test_a_stranger_s_script(hub, hub_run, discs, tmp_path) -> None:
    """Ten lines: train, measure, export, push, and take it from there."""
    run = sg3.fit(
        discs, outdir=tmp_path / "runs", cfg="stylegan2", kimg=1, batch=50, cbase=128, cmax=8, latent=8, map_depth=1,
        mbstd_group=2, aug="noaug", tick=1, snap=1, grid=(2, 2), workers=0, device="cpu",
    )  # fmt: skip
    values = sg3.evaluate(run, ["fwd12_full"], device="cpu")
    archive = sg3.export(run, tmp_path / "discs.pt2")
    page = sg3.push(run, "me/discs", licence="cc0-1.0")
    pictures = sg3.generate("hf://me/discs", range(4), device="cpu")
    assert archive.stat().st_size > 10_000
    assert page == f"{hub.url}/me/discs"
    assert (pictures == sg3.generate(run, range(4), device="cpu")).all()
    assert "fwd12_full" in hub.repos["me/discs"].commits[-1]["README.md"].decode()
    assert values["fwd12_full"] > 0
