"""What a metric's name means: `fid50k_full` -> 50,000 generated images against all real ones, Inception features.

The original's names keep the original's definitions. In any of them the number can be another one: `fid5k_full` for a
quick look, `kid500_full`, `eqr1k`. A `k` means thousands.

    fidN_full kidN_full prNk3_full dcNk5_full   against all real images, not mirrored
    fidN kidN prNk3 dcNk5                       against the first N of those that training saw, mirrored ones too
    fd_effliteN_full, fd_effliteN               Frechet distance of EfficientNet-Lite0 features; without N: 5k, full
    fidN_full_per_class                         FID of each class, N generated images of it, and their mean
    isN                                         Inception score
    pplN_wend pplN_wfull pplN_zend pplN_zfull   path length; ppl2_wend and ppl_wend are of 50,000
    eqtN_int eqtN_frac eqrN                     equivariance
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sg3.errors import UsageError

STANDARD = (
    "fid50k_full", "kid50k_full", "pr50k3_full", "ppl2_wend", "eqt50k_int", "eqt50k_frac", "eqr50k",
    "fid50k", "kid50k", "pr50k3", "is50k",
    "ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend",
    "fid5k_full", "fid5k_full_per_class", "fd_efflite", "dc10k5_full",
)  # fmt: skip

DETECTORS = {"fid": "inception", "kid": "inception", "is": "inception", "pr": "vgg16", "dc": "vgg16", "ppl": "vgg16",
             "fd_efflite": "efflite"}  # fmt: skip
MOST_REAL = {"kid": 1_000_000, "pr": 200_000, "dc": 200_000}  # of a *_full metric; no limit for the others

_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        r"(?P<family>fid)(?P<count>\d+k?)(?P<full>_full)(?P<per_class>_per_class)",
        r"(?P<family>fid|kid)(?P<count>\d+k?)(?P<full>_full)?",
        r"(?P<family>pr|dc)(?P<count>\d+k|\d+(?=_))_?(?P<k>\d+)(?P<full>_full)?",
        r"(?P<family>fd_efflite)(?P<count>\d+k?)(?P<full>_full)?",
        r"(?P<family>fd_efflite)",
        r"(?P<family>is)(?P<count>\d+k?)",
        r"(?P<family>ppl)(?P<count>\d+k?)?_(?P<space>[zw])(?P<sampling>full|end)",
        r"(?P<family>eqt)(?P<count>\d+k?)_(?P<operator>int|frac)",
        r"(?P<family>eqr)(?P<count>\d+k?)",
    )
]


@dataclass(frozen=True)
class Metric:
    """A metric, parsed. `family` is fid, kid, pr, dc, fd_efflite, is, ppl, eqt or eqr."""

    name: str
    family: str
    num_gen: int  # generated images; pairs of them for ppl; of each class if per_class
    full: bool = False  # against all real images, not mirrored
    k: int = 0  # neighbours that make a ball's radius, for pr and dc
    space: str = ""  # z or w, for ppl
    sampling: str = ""  # end or full, for ppl
    operator: str = ""  # int, frac or rotate, for eqt and eqr
    per_class: bool = False

    @property
    def detector(self) -> str | None:
        """Name of the network whose features it compares."""
        return DETECTORS.get(self.family)

    @property
    def needs_real(self) -> bool:
        """Whether it compares with real images."""
        return self.family in ("fid", "kid", "pr", "dc", "fd_efflite")

    @property
    def max_real(self) -> int | None:
        """How many real images it takes at most, the first ones; None for all."""
        return MOST_REAL.get(self.family) if self.full else self.num_gen


def parse(name: str) -> Metric:
    """The metric of this name. Raises UsageError with the names to choose from."""
    for pattern in _PATTERNS:
        found = pattern.fullmatch(name)
        if found is None:
            continue
        parts = found.groupdict()
        family, count, k = parts["family"], parts.get("count"), int(parts.get("k") or 0)
        if family == "ppl" and count in (None, "2"):  # the 2 is the metric's version
            count = "50k"
        bare = family == "fd_efflite" and count is None
        metric = Metric(
            name=name, family=family, num_gen=_number(count or "5k"), full=bool(parts.get("full")) or bare, k=k,
            space=parts.get("space") or "", sampling=parts.get("sampling") or "",
            operator=parts.get("operator") or ("rotate" if family == "eqr" else ""),
            per_class=bool(parts.get("per_class")),
        )  # fmt: skip
        smallest = {"pr": k + 1, "dc": k + 1, "is": 10, "kid": 2}.get(family, 1)
        if metric.num_gen < smallest or (family in ("pr", "dc") and k < 1):
            raise UsageError(f"metric {name}: needs at least {max(smallest, 2)} images and 1 neighbour")
        return metric
    raise UsageError(
        f"metric {name!r}: unknown; choose from {' '.join(STANDARD)}, or one of them with another number of images, "
        "like fid1k_full"
    )


def _number(count: str) -> int:
    return int(count[:-1]) * 1000 if count.endswith("k") else int(count)
