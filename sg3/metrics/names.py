"""What a metric's name means: `fid50k_full` -> 50,000 generated images against all real ones, Inception features.

The original's names keep the original's definitions. In any of them the number can be another one: `fid5k_full` for a
quick look, `kid500_full`, `eqr1k`. A `k` means thousands.

    fidN_full kidN_full prNk3_full dcNk5_full   against all real images, not mirrored
    fidN kidN prNk3 dcNk5                       against the first N of those that training saw, mirrored ones too
    mindN_full mindN                            Monge distance of Inception features
    fd_NAME_N_full, kd_NAME_N_full, mind_NAME_N_full, dc_NAME_N_k_full
                                                the same of any detector's features: inception vgg16 efflite lite1
                                                dinov2 (ViT-L/14) dinov2b (ViT-B/14);
                                                fd_NAME, kd_NAME, mind_NAME: 5k, full
    fd_effliteN_full, fd_effliteN               an older spelling of fd_efflite_N_full, fd_efflite_N
    fwdN_full fwdN                              Frechet distance of wavelet packets, without a network
    authN ctN auth_NAME_N ct_NAME_N             authenticity and ratio test, C_T: copies of training images
    fidN_full_per_class                         FID of each class, N generated images of it, and their mean;
                                                fd_NAME_N_full_per_class of another detector's features
    dcNk5_full_per_class                        density and coverage of each class; dc_NAME_N_k_full_per_class
    isN                                         Inception score
    pplN_wend pplN_wfull pplN_zend pplN_zfull   path length; ppl2_wend and ppl_wend are of 50,000
    eqtN_int eqtN_frac eqrN                     equivariance
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches

from sg3 import limits
from sg3.errors import UsageError
from sg3.metrics.density_coverage import DensityCoverage
from sg3.metrics.detector_files import SOURCES
from sg3.metrics.equivariance_psnr import Equivariance
from sg3.metrics.fid import FrechetDistance
from sg3.metrics.fwd import WaveletDistance
from sg3.metrics.inception_score import InceptionScore
from sg3.metrics.kid import KernelDistance
from sg3.metrics.memorization import Authenticity, CopyingTest
from sg3.metrics.metric import Metric
from sg3.metrics.mind import MongeDistance
from sg3.metrics.path_length import PathLength
from sg3.metrics.per_class import DensityCoveragePerClass, FrechetDistancePerClass, PerClass
from sg3.metrics.precision_recall import NeighbourMetric, PrecisionRecall
from sg3.terminal import printable

STANDARD = (
    "fid50k_full", "kid50k_full", "pr50k3_full", "ppl2_wend", "eqt50k_int", "eqt50k_frac", "eqr50k",
    "fid50k", "kid50k", "pr50k3", "is50k",
    "ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend",
    "fid5k_full", "fid5k_full_per_class", "fd_efflite", "dc10k5_full", "fwd5k_full",
    "mind5k_full", "fd_lite1", "kd_lite1", "mind_lite1", "dc_lite1_10k5_full", "fd_dinov2",
)  # fmt: skip

_COUNT = r"(\d{1,9}k?)"  # what N stands for
_DETECTOR = rf"({'|'.join(SOURCES)})(?:_N(_full)?)?"  # without N: 5,000 images against all real ones
_OF_TRAINING = rf"({'|'.join(SOURCES)})(?:_N)?"
_NEIGHBOURS = r"(\d{1,9}k|\d{1,9}(?=_))_?(\d{1,9})"  # 50k3: 50,000 images, 3 neighbours
_WITH_NEIGHBOURS = _NEIGHBOURS + r"(_full)?"
# Pattern of a name, with N for a number -> the metric, from the name and what the pattern's groups found in it (None
# where they are optional and found nothing).
_RULES: tuple[tuple[str, Callable[..., Metric]], ...] = (
    (r"fidN_full_per_class", lambda name, n: FrechetDistancePerClass(name, _number(n))),
    (rf"fd_({'|'.join(SOURCES)})_N_full_per_class", lambda name, of, n: FrechetDistancePerClass(name, _number(n), of)),
    (rf"dc{_NEIGHBOURS}_full_per_class", lambda name, n, k: DensityCoveragePerClass(name, _number(n), int(k))),
    (rf"dc_({'|'.join(SOURCES)})_{_NEIGHBOURS}_full_per_class",
     lambda name, of, n, k: DensityCoveragePerClass(name, _number(n), int(k), of)),
    (r"fidN(_full)?", lambda name, n, full: FrechetDistance(name, _number(n), bool(full))),
    (r"kidN(_full)?", lambda name, n, full: KernelDistance(name, _number(n), bool(full))),
    (r"pr" + _WITH_NEIGHBOURS, lambda name, n, k, full: PrecisionRecall(name, _number(n), bool(full), int(k))),
    (r"dc" + _WITH_NEIGHBOURS, lambda name, n, k, full: DensityCoverage(name, _number(n), bool(full), int(k))),
    (rf"dc_({'|'.join(SOURCES)})_" + _WITH_NEIGHBOURS,
     lambda name, of, n, k, full: DensityCoverage(name, _number(n), bool(full), int(k), of)),
    (r"mindN(_full)?", lambda name, n, full: MongeDistance(name, _number(n), bool(full))),
    (r"fd_(efflite)N(_full)?", lambda name, of, n, full: FrechetDistance(name, _number(n), bool(full), of)),
    (r"fd_" + _DETECTOR, lambda name, of, n, full: FrechetDistance(name, *_images(n, full), of)),
    (r"kd_" + _DETECTOR, lambda name, of, n, full: KernelDistance(name, *_images(n, full), of)),
    (r"mind_" + _DETECTOR, lambda name, of, n, full: MongeDistance(name, *_images(n, full), of)),
    (r"fwdN(_full)?", lambda name, n, full: WaveletDistance(name, _number(n), bool(full))),
    (r"authN", lambda name, n: Authenticity(name, _number(n), True)),
    (r"auth_" + _OF_TRAINING, lambda name, of, n: Authenticity(name, _images(n, None)[0], True, of)),
    (r"ctN", lambda name, n: CopyingTest(name, _number(n), True)),
    (r"ct_" + _OF_TRAINING, lambda name, of, n: CopyingTest(name, _images(n, None)[0], True, of)),
    (r"isN", lambda name, n: InceptionScore(name, _number(n))),
    (r"ppl2?_([zw])(full|end)", lambda name, space, sampling: PathLength(name, 50_000, space, sampling)),  # version 2
    (r"pplN_([zw])(full|end)", lambda name, n, space, sampling: PathLength(name, _number(n), space, sampling)),
    (r"eqtN_(int|frac)", lambda name, n, operator: Equivariance(name, _number(n), operator)),
    (r"eqrN", lambda name, n: Equivariance(name, _number(n), "rotate")),
)


def parse(name: str) -> Metric:
    """The metric of this name. Raises UsageError with the names to choose from."""
    for pattern, make in _RULES:
        if found := re.fullmatch(pattern.replace("N", _COUNT), name):
            metric = make(name, *found.groups())
            one = metric.of_class if isinstance(metric, PerClass) else metric
            if isinstance(one, NeighbourMetric) and not 1 <= one.k <= limits.NEIGHBOURS:
                raise UsageError(f"metric {name}: needs at least 1 neighbour, and takes {limits.NEIGHBOURS}")
            if metric.num_gen < metric.least_gen:
                raise UsageError(f"metric {name}: needs at least {metric.least_gen} generated images")
            if metric.num_gen > limits.MEASURED:
                raise UsageError(f"metric {name}: takes at most {limits.MEASURED} generated images")
            return metric
    close = get_close_matches(name[:100], STANDARD, n=1, cutoff=0.75)
    raise UsageError(
        f"metric {printable(repr(name))}: unknown; choose from {' '.join(STANDARD)}, or one of them with another "
        f"number of images, like fid1k_full{f'; did you mean {close[0]}?' if close else ''}"
    )


def _images(n: str | None, full: str | None) -> tuple[int, bool]:
    """How many generated images, and whether against all real ones."""
    return (5000, True) if n is None else (_number(n), bool(full))


def _number(count: str) -> int:
    return int(count[:-1]) * 1000 if count.endswith("k") else int(count)
