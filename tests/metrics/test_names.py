"""What the names of metrics mean."""

from __future__ import annotations

import pickle

import pytest

import sg3.cli.metrics
import sg3.metrics
from sg3.errors import UsageError
from sg3.metrics.density_coverage import DensityCoverage
from sg3.metrics.detector_files import SOURCES
from sg3.metrics.equivariance_psnr import Equivariance
from sg3.metrics.features import FeatureMetric
from sg3.metrics.fid import FrechetDistance
from sg3.metrics.fwd import WaveletDistance
from sg3.metrics.inception_score import InceptionScore
from sg3.metrics.kid import KernelDistance
from sg3.metrics.metric import Metric
from sg3.metrics.mind import MongeDistance
from sg3.metrics.names import parse
from sg3.metrics.path_length import PathLength
from sg3.metrics.per_class import DensityCoveragePerClass, FrechetDistancePerClass
from sg3.metrics.precision_recall import PrecisionRecall
from sg3.metrics.real_images import RealSelection

NO_REAL = "none"


@pytest.mark.parametrize(
    ("name", "kind", "num_gen", "full", "max_real"),
    [
        ("fid50k_full", FrechetDistance, 50000, True, None),
        ("fid1k_full", FrechetDistance, 1000, True, None),
        ("fid50k", FrechetDistance, 50000, False, 50000),
        ("kid50k_full", KernelDistance, 50000, True, 1000000),
        ("kid50k", KernelDistance, 50000, False, 50000),
        ("pr50k3_full", PrecisionRecall, 50000, True, 200000),
        ("pr50k3", PrecisionRecall, 50000, False, 50000),
        ("pr64_3_full", PrecisionRecall, 64, True, 200000),
        ("dc10k5_full", DensityCoverage, 10000, True, 200000),
        ("fwd5k_full", WaveletDistance, 5000, True, None),
        ("fwd300", WaveletDistance, 300, False, 300),
        ("fd_dinov2", FrechetDistance, 5000, True, None),
        ("kd_dinov2_50k_full", KernelDistance, 50000, True, 1000000),
        ("fd_dinov2b_9", FrechetDistance, 9, False, 9),
        ("is50k", InceptionScore, 50000, False, NO_REAL),
        ("fd_efflite", FrechetDistance, 5000, True, None),
        ("fd_efflite50k_full", FrechetDistance, 50000, True, None),
        ("fd_efflite1k", FrechetDistance, 1000, False, 1000),
        ("fd_efflite_1k", FrechetDistance, 1000, False, 1000),
        ("fd_lite1", FrechetDistance, 5000, True, None),
        ("fd_lite1_50k_full", FrechetDistance, 50000, True, None),
        ("kd_vgg16_300", KernelDistance, 300, False, 300),
        ("mind5k_full", MongeDistance, 5000, True, 1000000),
        ("mind_lite1_400", MongeDistance, 400, False, 400),
        ("dc_lite1_10k5_full", DensityCoverage, 10000, True, 200000),
        ("ppl2_wend", PathLength, 50000, False, NO_REAL),
        ("ppl_zfull", PathLength, 50000, False, NO_REAL),
        ("ppl1k_wfull", PathLength, 1000, False, NO_REAL),
        ("eqt50k_int", Equivariance, 50000, False, NO_REAL),
        ("eqt50k_frac", Equivariance, 50000, False, NO_REAL),
        ("eqr50k", Equivariance, 50000, False, NO_REAL),
        ("fid5k_full_per_class", FrechetDistancePerClass, 5000, True, None),
        ("fd_lite1_500_full_per_class", FrechetDistancePerClass, 500, True, None),
        ("dc1k5_full_per_class", DensityCoveragePerClass, 1000, True, None),
        ("dc_lite1_500_3_full_per_class", DensityCoveragePerClass, 500, True, None),
    ],
)
def test_mean(name: str, kind: type[Metric], num_gen: int, full: bool, max_real: int | str | None) -> None:
    metric = parse(name)
    assert type(metric) is kind
    assert (metric.name, metric.num_gen) == (name, num_gen)
    assert (metric.real is None) == (max_real == NO_REAL)
    if metric.real is not None:
        assert (metric.real.mirrored, metric.real.most) == (not full, max_real)
    assert pickle.loads(pickle.dumps(metric)) == metric  # on its way to other processes


def test_details() -> None:
    assert parse("pr50k3_full").k == 3
    assert parse("dc10k5").k == 5
    assert (parse("dc1k5_full_per_class").k, parse("dc_lite1_500_3_full_per_class").k) == (5, 3)
    assert parse("dc10k5").real == RealSelection(mirrored=True, most=10000, least=6)
    assert (parse("ppl2_wend").space, parse("ppl2_wend").sampling) == ("w", "end")
    assert (parse("ppl_zfull").space, parse("ppl_zfull").sampling) == ("z", "full")
    assert [parse(n).operator for n in ("eqt50k_int", "eqt50k_frac", "eqr50k")] == ["int", "frac", "rotate"]
    assert [parse(n).detector for n in ("fid5k", "pr5k3", "ppl_wend", "fd_efflite", "eqr5k")] == [
        "inception", "vgg16", "vgg16", "efflite", None]  # fmt: skip
    names = ("fd_lite1_5k", "kd_vgg16", "mind5k", "mind_efflite_9", "dc10k5", "dc_lite1_10k5", "fd_efflite15k", "is50k")
    assert [parse(name).detector for name in names] == [
        "lite1", "vgg16", "inception", "efflite", "vgg16", "lite1", "efflite", "inception"]  # fmt: skip
    assert [parse(name).detector for name in ("fd_dinov2", "fd_dinov2b", "mind_dinov2b_9")] == [
        "dinov2", "dinov2b", "dinov2b"]  # fmt: skip
    assert set(sg3.cli.metrics.DETECTORS) == set(SOURCES)
    assert parse("dc_lite1_64_3_full").k == 3
    assert parse("fd_efflite15k").num_gen == 15000  # not 5,000 of Lite1
    better = {name: parse(name).less_is_better for name in sg3.metrics.STANDARD}
    assert [name for name, less in better.items() if not less] == [
        "pr50k3_full", "eqt50k_int", "eqt50k_frac", "eqr50k", "pr50k3", "is50k", "dc10k5_full",
        "dc_lite1_10k5_full"]  # fmt: skip


def test_every_standard_name_is_known() -> None:
    for name in sg3.metrics.STANDARD:
        assert parse(name).name == name


def test_what_compares_features_names_its_detector() -> None:
    for name in sg3.metrics.STANDARD:
        assert not isinstance(parse(name), FeatureMetric) or parse(name).source is not None
        assert not isinstance(parse(name), FeatureMetric) or parse(name).detector in (parse(name).source, None)


@pytest.mark.parametrize("name", ["", "fid", "fid_full", "fidk", "fid50m", "pr50k", "pr50k0", "fid0_full", "is5",
                                  "ppl2_xend", "eqt50k", "eqr50k_int", "kid1", "fid50k_per_class", "FID50k", "pr2_3",
                                  "fd_lite1_full", "fd_lite2", "kd_", "mind", "fd_lite15k", "dc_lite1", "kd_lite1_1",
                                  "dc1k5_per_class", "dc1k0_full_per_class", "dc_lite1_3_3_full_per_class"])
def test_others_are_not(name: str) -> None:
    with pytest.raises(UsageError):
        parse(name)


@pytest.mark.parametrize(("name", "words"), [("is5", "is5: needs at least 10 generated images"),
                                             ("pr3_3", "pr3_3: needs at least 4 generated images"),
                                             ("dc10_0", "dc10_0: needs at least 1 neighbour")])
def test_too_few(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(name)
