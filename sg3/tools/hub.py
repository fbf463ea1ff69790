"""`sg3 push`: a network with its card on the Hugging Face Hub. (`sg3.formats.hub` reads from there.)"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sg3.errors import DataError, UsageError
from sg3.formats import Snapshot, averaged_generator, load, save
from sg3.formats.hub import NETWORK, Address, hub_errors, quiet_bars
from sg3.models import Generator
from sg3.run_folder import is_run, newest_snapshot, read_options
from sg3.sampling import generate, seed_latents
from sg3.terminal import printable
from sg3.tools.files import save_png, sheet
from sg3.tools.model_card import SAMPLES, model_card

COLUMNS, ROWS = 6, 3
CONFIG = "config.json"


@dataclass(frozen=True)
class Pushed:
    """Where it is now: the page's address, and the commit."""

    url: str
    commit: str


def push(
    source: Path,
    repo: str,
    *,
    licence: str | None = None,
    private: bool = False,
    whole: bool = False,
    message: str = "Network by sg3",
    report: Callable[[str], object] = lambda _: None,
) -> Pushed:
    """Upload a network file, or the newest snapshot of a run folder, as hf://OWNER/NAME, which is made if need be.

    What goes there: the averaged generator (`whole`: all networks, so that others can go on training) as safetensors,
    its configuration, a card and a sheet of pictures. `licence` is that of the weights, by default the one the file
    says. Raises UsageError (no such name, no licence), DataError (no generator), and what `hub_errors` raises.
    """
    if Address.parse(f"hf://{repo}") != Address(repo):
        raise UsageError(f"{repo}: expected OWNER/NAME")
    run = source if is_run(source) else source.parent if is_run(source.parent) else None
    path = newest_snapshot(source) if source.is_dir() else source
    snapshot = load(path)
    G = averaged_generator(snapshot, path)
    licence = licence or snapshot.licence
    if licence is None:
        raise UsageError("--licence: needed, such as cc-by-4.0: the file does not say which one the weights are under")
    config = read_options(run).get("config") if run is not None else None
    if config is not None and not isinstance(config, dict):
        raise DataError(f"{run}: its configuration is damaged")
    with TemporaryDirectory() as name, hub_errors(repo):
        folder = Path(name)
        kept = snapshot if whole else Snapshot(G_ema=G)
        kept.licence, kept.training_set_kwargs = licence, _without_paths(snapshot.training_set_kwargs)
        save(kept, folder / NETWORK)
        report("drawing samples ...")
        save_samples(G, folder / SAMPLES)
        card = model_card(G, repo, licence, path, config, run)
        (folder / "README.md").write_text(card, encoding="utf-8")
        about = {"library": "sg3", "network": NETWORK, "licence": licence}
        (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        report("uploading ...")
        from huggingface_hub import HfApi

        api = HfApi()
        with quiet_bars():
            _check_card(card, repo)  # the Hub does so on upload, when the repository is there already
            url = api.create_repo(repo, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
        return Pushed(str(url), str(done.oid))


def _check_card(card: str, repo: str) -> None:
    """Raises UsageError for a model card that the Hub would refuse, and what `hub_errors` knows."""
    from huggingface_hub import ModelCard

    try:
        ModelCard(card).validate()
    except ValueError as error:  # which is how the package passes on what is wrong, as the Hub's answer in JSON
        words = " ".join(_said_of_card(str(error)).split())
        raise UsageError(f"{repo}: the Hub refuses the model card: {printable(words, limit=300)}; --licence "
                         "takes a licence as the Hub spells it, such as cc-by-4.0 or other") from None


def _said_of_card(answer: str) -> str:
    """The messages in the Hub's answer about a card; the answer itself if it is none."""
    try:
        errors = [f"- {said['message']}" for said in json.loads(answer)["errors"]]
    except (ValueError, TypeError, KeyError):
        return answer
    return " ".join(["Invalid metadata in README.md.", *errors])


def _without_paths(facts: dict[str, object] | None) -> dict[str, object] | None:
    """What a snapshot says of its training set, with the name of the file alone."""
    if facts is None:
        return None
    path = facts.get("path")
    return {**facts, "path": Path(path).name} if isinstance(path, str) else facts


def save_samples(G: Generator, path: Path) -> None:
    """A sheet of pictures of seeds from 0 on, classes in turn. Raises NumericalError for a network gone bad."""
    count = COLUMNS * ROWS
    labels = torch.zeros(count, G.c_dim)
    if G.c_dim:
        labels[torch.arange(count), torch.arange(count) % G.c_dim] = 1
    pictures = list(generate(G, seed_latents(range(count), G.z_dim), labels))
    rows = [pictures[start : start + COLUMNS] for start in range(0, count, COLUMNS)]
    save_png(path, sheet(rows), {"seeds": list(range(count))})
