"""Networks on the Hugging Face Hub: hf://OWNER/NAME, hf://OWNER/NAME@REVISION, hf://OWNER/NAME/FILE.

The package huggingface-hub (the extra `hub`) knows the service, its cache and its tokens; here an address becomes a
file whose size and sum are checked, and what goes wrong one line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sg3 import limits
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.extras import install
from sg3.formats.digest import sha256_of
from sg3.terminal import printable, say

SCHEME = "hf://"
NETWORK = "network.safetensors"  # what `sg3 push` calls it
SUFFIXES = (".safetensors", ".pkl", ".pth", ".pt")
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(/(?P<file>[\w. /-]+))?")


@dataclass(frozen=True)
class Address:
    """Of a network on the Hub; without a file, the one that `sg3 push` writes, or the only one there is."""

    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, source: str) -> Address:
        """Raises UsageError for what is none."""
        found = _ADDRESS.fullmatch(source)
        if found is None or ".." in source:
            raise UsageError(f"{printable(source)}: expected hf://OWNER/NAME, hf://OWNER/NAME@REVISION or "
                             "hf://OWNER/NAME/FILE")
        return cls(found["repo"], found["revision"], found["file"])


def fetch_from_hub(source: str) -> Path:
    """The file behind an address; what has come before, at the same revision, is not downloaded again.

    Raises UsageError (no such address), MissingInputError (no package; no such repository, revision or file, or none
    for this user), DataError (another content than the Hub says), StorageError (no connection, no room).
    """
    address = Address.parse(source)
    with hub_errors(source):
        import huggingface_hub as hub

        try:
            info = hub.HfApi().model_info(address.repo, revision=address.revision, files_metadata=True, timeout=30)
        except Exception as error:
            if not _is_no_connection(error):
                raise
            return _kept(address, source, error)
        files = {entry.rfilename: entry for entry in info.siblings or ()}
        entry = files[_choose(list(files), address.file, source)]
        size = entry.size or 0
        if size > limits.DOWNLOAD:
            raise DataError(f"{source}: {entry.rfilename} has {size >> 20} MiB, more than sg3 downloads")
        with quiet_bars():
            path = Path(hub.hf_hub_download(address.repo, entry.rfilename, revision=address.revision))
        expected = entry.lfs.sha256 if entry.lfs is not None else None
        if path.stat().st_size != size or (expected is not None and sha256_of(path) != expected):
            raise DataError(f"{source}: what has come of {entry.rfilename} is not what the Hub has; remove {path}")
        return path


def _kept(address: Address, source: str, error: Exception) -> Path:
    """The copy of an earlier download, where the Hub cannot be reached."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(address.repo, address.file or NETWORK, revision=address.revision)
    if not isinstance(found, str):
        raise StorageError(f"{source}: the Hub cannot be reached: {printable(error, limit=200)}") from error
    say(f"note: {source}: the Hub cannot be reached, an earlier download is used")
    return Path(found)


def _choose(names: list[str], file: str | None, source: str) -> str:
    if file is not None:
        if file not in names:
            raise MissingInputError(f"{source}: there is no such file; there are {printable(', '.join(names))}")
        return file
    if NETWORK in names:
        return NETWORK
    networks = [name for name in names if name.endswith(SUFFIXES)]
    if len(networks) != 1:
        shown = printable(", ".join(networks), limit=300) or "none"
        raise MissingInputError(f"{source}: which file? Name it, as in hf://OWNER/NAME/FILE; networks there: {shown}")
    return networks[0]


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Inside, what goes wrong with the Hub becomes one of sg3's errors about `what`. Raises MissingInputError without
    the package."""
    try:
        import huggingface_hub.errors as kinds
    except ImportError:
        raise MissingInputError(f"{what}: needs huggingface-hub; {install('hub')}") from None
    try:
        yield
    except kinds.GatedRepoError:
        message = "asks for its conditions to be accepted on its page, and for `hf auth login`"
        raise MissingInputError(f"{what}: {message}") from None
    except (kinds.RepositoryNotFoundError, kinds.RevisionNotFoundError, kinds.EntryNotFoundError):
        raise MissingInputError(f"{what}: is not there, or not for you (`hf auth login`, or HF_TOKEN)") from None
    except kinds.HFValidationError as error:
        raise UsageError(f"{what}: {printable(error, limit=200)}") from None
    except kinds.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        if code in (401, 403):
            raise MissingInputError(f"{what}: is not allowed with this token (`hf auth login`, or HF_TOKEN)") from None
        raise StorageError(f"{what}: the Hub answers {code}: {printable(error, limit=200)}") from None
    except OSError as error:
        raise StorageError(f"{what}: {printable(f'{type(error).__name__}: {error}', limit=200)}") from error
    except Exception as error:
        if not _is_no_connection(error):
            raise
        raise StorageError(f"{what}: the Hub cannot be reached: {printable(error, limit=200)}") from error


def _is_no_connection(error: Exception) -> bool:
    """Whether it says that no answer came. The package's HTTP library changes with its version."""
    import huggingface_hub.errors as kinds

    if isinstance(error, kinds.HfHubHTTPError):  # an answer
        return False
    no_answer = (kinds.OfflineModeIsEnabled, kinds.HTTPError, ConnectionError, TimeoutError)  # type: ignore[attr-defined]
    return isinstance(error, no_answer)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Inside, the package draws its bars on a terminal only."""
    import huggingface_hub.utils as utils

    were_disabled = utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    if not sys.stderr.isatty():
        utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if not were_disabled:
            utils.enable_progress_bars()  # type: ignore[attr-defined]
