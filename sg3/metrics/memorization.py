"""Whether generated images are copies of training images: `auth` (authenticity and the ratio test) and `ct` (C_T).

Stein et al. (arXiv 2306.04675) found that no such number tells copying from underfitting or lost modes. They are read
beside the values of real images that training has not seen, and beside the sheet of nearest neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.metrics.copying import CELLS, COMPONENTS, copying_test
from sg3.metrics.detectors import Detector
from sg3.metrics.features import Examples, Findings, RealComparison
from sg3.metrics.intervals import share
from sg3.metrics.nearest import Nearest, Training, memorised, scores
from sg3.metrics.real_images import RealImages, RealSelection
from sg3.metrics.statistics import Statistics, TrainingSet

SHOWN = 8  # rows of the sheet, of each kind
NEIGHBOURS = 3


@dataclass(frozen=True)
class TrainingSetMetric(RealComparison):
    """A metric of training images, mirrored ones too if training saw them, and of images that it has not seen."""

    detector: str = "inception"

    most_real: ClassVar[int | None] = 1_000_000
    needs_held_out: ClassVar[bool] = False

    @property
    def real(self) -> RealSelection:
        """All of them; which ones training saw is found out later."""
        return RealSelection(mirrored=True, most=None, least=self.least_real)

    @property
    def least_real(self) -> int:
        """Neighbours of an image and of its neighbour."""
        return 4


@dataclass(frozen=True)
class Authenticity(TrainingSetMetric):
    """The share of generated images that are authentic, and of those that are memorised, in per cent; and the same of
    held-out real images, if there are any."""

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """The shares, and for the sheet which images are nearest to which."""
        assert isinstance(real, TrainingSet)
        assert isinstance(gen, torch.Tensor)
        kept, training, facts = deduplicated(real)
        between, _ = training.nearest_others()
        values, found = {}, {}
        examples: dict[str, list[Examples]] = {"generated": [], "held out": []}
        for kind, rows in (("generated", gen), ("held out", real.held_out)):
            if rows is None:
                continue
            near = training.nearest(rows, min(NEIGHBOURS, len(training)))
            score = scores(near, between)
            suffix = "" if kind == "generated" else "_held_out"
            for name, flags in (("authenticity", score > 1), ("memorised", memorised(near))):
                values[f"{self.name}_{name}{suffix}"] = 100 * float(flags.double().mean())
                if intervals:
                    found[f"{self.name}_{name}{suffix}"] = share(flags, f"{kind} images", "training set", 100)
            examples[kind] = most_alike(near, score, real.places[kept], kind, real)
        notes = [] if real.held_out is not None else [
            "no held-out images to compare with (train with --holdout, or name some with --test-data): by itself the "
            "value says nothing"
        ]  # fmt: skip
        if facts["duplicates"]:
            notes.append(f"{facts['duplicates']} training images are duplicates of others and were left out")
        return Findings(values, tuple(notes), facts, found, examples["generated"] + examples["held out"])

    def definition(self, detector: Detector) -> dict[str, Any]:
        """What memorised means."""
        return {"memorised_ratio": "1/3"}


@dataclass(frozen=True)
class CopyingTest(TrainingSetMetric):
    """C_T: far below 0 copies, far above 0 is far off."""

    needs_held_out: ClassVar[bool] = True

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """C_T, with the cells that it is the average of."""
        assert isinstance(real, TrainingSet)
        assert isinstance(gen, torch.Tensor)
        assert real.held_out is not None
        _, training, facts = deduplicated(real)
        found = copying_test(training, real.held_out, gen, seed)
        cells = [{"generated": m, "held_out": n, "z": z} for m, n, z in found.cells]
        notes = () if cells else ("no cell has enough generated and held-out images; take more",)
        return Findings({self.name: found.c_t}, notes, {**facts, "cells_that_count": cells})

    def definition(self, detector: Detector) -> dict[str, Any]:
        """Of cells and components."""
        return {"cells": CELLS, "components": COMPONENTS}


def deduplicated(real: TrainingSet) -> tuple[torch.Tensor, Training, dict[str, Any]]:
    """Places of the training images that are no duplicates, these images, and facts for the record."""
    training = Training(real.train, real.mirrored)
    kept = training.without_duplicates()
    facts = {
        "training_images": len(training), "duplicates": len(training) - len(kept),
        "held_out": 0 if real.held_out is None else len(real.held_out), "held_out_from": real.held_out_from,
        "mirror_images_too": real.mirrored is not None,
    }  # fmt: skip
    return kept, training.part(kept), facts


def most_alike(
    near: Nearest, score: torch.Tensor, places: torch.Tensor, kind: str, real: TrainingSet
) -> list[Examples]:
    """The images nearest to the training set, for how dense that is there; the worst first. `places`: of the training
    images in the data set."""
    found = []
    for index in score.argsort()[:SHOWN].tolist():
        neighbours = [
            (int(places[place]), bool(flipped), float(distance))
            for place, flipped, distance in zip(near.places[index].tolist(), near.mirrored[index].tolist(),
                                                near.distances[index].tolist(), strict=True)
        ]  # fmt: skip
        where = index if kind == "generated" or real.held_out_places is None else int(real.held_out_places[index])
        found.append(Examples(kind, where, float(score[index]), neighbours))
    return found


def training_set(
    dataset: RealImages, data: ImageFolderDataset, features: torch.Tensor, tests: Statistics | None,
    test_data: ImageFolderDataset | None,
) -> TrainingSet:  # fmt: skip
    """From the features of all images of the data set, [N, D] or with those of all mirror images [2 N, D]; held out are
    others that training has not seen, if somebody has named them, else those that it left out."""
    count = len(data)
    seen, left_out = (torch.from_numpy(places) for places in dataset.split(count))
    mirrored = features[count:][seen.to(features.device)] if len(features) > count else None
    train = features[seen.to(features.device)]
    if isinstance(tests, torch.Tensor) and test_data is not None:
        return TrainingSet(train, mirrored, seen, tests, None, test_data.name)
    if not len(left_out):
        return TrainingSet(train, mirrored, seen, None, None, None)
    unseen = features[left_out.to(features.device)]
    return TrainingSet(train, mirrored, seen, unseen, left_out, "left out of training")
