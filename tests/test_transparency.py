"""Straight alpha in files, premultiplied in networks, and pictures over backgrounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg3.errors import UsageError
from sg3.sampling import to_uint8
from sg3.transparency import (
    BLACK,
    SQUARES,
    WHITE,
    checkerboard,
    colour,
    network_values,
    opaque,
    over,
    possible,
    straight,
)
from tests.helpers.image_files import pixels, soft_discs


def batch(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [2, 4])
def test_there_and_back(channels: int) -> None:
    """Exact where alpha is 0 or 255; elsewhere alpha is, and colours up to what 8 bits of them are worth."""
    image = pixels(0, side=64, channels=channels)
    image[:32, :, -1] = np.random.default_rng(1).choice([0, 255], (32, 64))
    image[image[:, :, -1] == 0, :-1] = 0
    back = straight(network_values(batch(image)))
    np.testing.assert_array_equal(back[0, -1], image[:, :, -1])
    np.testing.assert_array_equal(back[0, :, :32].permute(1, 2, 0), image[:32])
    premultiplied = [x[:, :-1].double() * x[:, -1:] / 255 for x in (back, batch(image))]
    assert (premultiplied[0] - premultiplied[1]).abs().max() <= 0.5
    np.testing.assert_array_equal(to_uint8(network_values(batch(image)))[0], back[0].permute(1, 2, 0))


def test_opaque_images_are_what_they_were() -> None:
    """RGB and gray as always; with an alpha that is 1 everywhere, the same colours bit for bit."""
    image = batch(pixels(0))
    expected = image.float() / 127.5 - 1
    assert torch.equal(network_values(image), expected)
    assert torch.equal(network_values(image[:, :1]), expected[:, :1])
    with_alpha = torch.cat([image, torch.full_like(image[:, :1], 255)], dim=1)
    assert torch.equal(network_values(with_alpha)[:, :3], expected)
    assert torch.equal(network_values(with_alpha)[:, 3:], torch.ones(1, 1, 8, 8))


def test_what_does_not_show_does_not_matter() -> None:
    same, other = (network_values(batch(*soft_discs(4, invisible=colour))) for colour in (7, None))
    assert torch.equal(same, other)
    assert (same[:, :3] == -1)[(same[:, 3:] == -1).expand(-1, 3, -1, -1)].all()


def test_over_a_background() -> None:
    """Over black are the premultiplied colours, over white c + 1 - a, over a gray what both say."""
    images = network_values(batch(*soft_discs(2)))
    assert torch.equal(over(images, BLACK), images[:, :3])
    c, a = (images[:, :3] + 1) / 2, (images[:, 3:] + 1) / 2
    torch.testing.assert_close((over(images, WHITE) + 1) / 2, c + 1 - a)
    lilac = torch.tensor([0.5, 0.25, 1.0]).view(3, 1, 1)
    torch.testing.assert_close((over(images, (0.5, 0.25, 1.0)) + 1) / 2, c + (1 - a) * lilac)
    gray = network_values(batch(*soft_discs(2, channels=2)))
    assert over(gray, WHITE).shape == (2, 1, 16, 16)
    assert over(gray, (1.0, 0.0, 0.0)).shape == (2, 3, 16, 16)
    torch.testing.assert_close(over(gray, (1.0, 0.0, 0.0))[:, 0], over(gray, WHITE)[:, 0])


def test_impossible_values_are_brought_back() -> None:
    """0 <= c <= a <= 1, which a network need not keep."""
    images = torch.randn(3, 4, 9, 9) * 2
    got = possible(images)
    assert got.min() >= -1
    assert got[:, 3].max() <= 1
    assert (got[:, :3] <= got[:, 3:]).all()
    assert torch.equal(possible(got), got)
    shown = straight(images)
    assert (shown[:, :3][(shown[:, 3:] == 0).expand(-1, 3, -1, -1)] == 0).all()


def test_checkerboard() -> None:
    board = checkerboard(16, 24)
    assert board.shape == (16, 24, 1)
    assert [board[y, x, 0] for y, x in ((0, 0), (7, 7), (0, 8), (8, 8))] == [SQUARES[k] for k in (0, 0, 1, 0)]
    image = soft_discs(1)[0]
    shown = opaque(image)
    hidden, visible = image[:, :, 3] == 0, image[:, :, 3] == 255
    np.testing.assert_array_equal(shown[hidden], checkerboard(16, 16)[hidden].repeat(3, axis=1))
    np.testing.assert_array_equal(shown[visible], image[visible][:, :3])
    assert opaque(soft_discs(1, channels=2)[0]).shape == (16, 16, 1)
    assert opaque(soft_discs(1, channels=2)[0], (1.0, 0.0, 0.0)).shape == (16, 16, 3)
    rgb = pixels(0)
    assert opaque(rgb) is rgb
    on_white = opaque(image, WHITE)
    np.testing.assert_array_equal(on_white[hidden], 255)


def test_colours() -> None:
    assert colour("white") == WHITE
    assert colour("#ff8000") == (1.0, 128 / 255, 0.0)
    with pytest.raises(UsageError, match="--background=whyte: not a colour"):
        colour("whyte")
