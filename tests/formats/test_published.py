"""Short names of published networks."""

from __future__ import annotations

from sg3.published import closest, published, published_names, published_url


def test_published_names() -> None:
    names = published_names()
    assert len(names) == len(set(names)) == 12 + 15 + 20
    for c in "tr":
        for data in ("ffhq", "ffhqu", "metfaces", "metfacesu"):
            assert f"stylegan3-{c}-{data}-1024x1024" in names
        assert f"stylegan3-{c}-ffhqu-256x256" in names
        assert f"stylegan3-{c}-afhqv2-512x512" in names
    stylegan2 = (
        "ffhq-1024 ffhq-512 ffhq-256 ffhqu-1024 ffhqu-256 metfaces-1024 metfacesu-1024 celebahq-256 lsundog-256 "
        "afhqcat-512 afhqdog-512 afhqwild-512 afhqv2-512 brecahad-512 cifar10-32"
    )
    for data, size in (entry.split("-") for entry in stylegan2.split()):
        assert f"stylegan2-{data}-{size}x{size}" in names


def test_published_addresses() -> None:
    folder = "https://api.ngc.nvidia.com/v2/models/nvidia/research"
    assert published_url("stylegan3-r-afhqv2-512x512") == (
        f"{folder}/stylegan3/versions/1/files/stylegan3-r-afhqv2-512x512.pkl"
    )
    assert published_url("stylegan2-cifar10-32x32") == (
        f"{folder}/stylegan2/versions/1/files/stylegan2-cifar10-32x32.pkl"
    )
    assert published_url("stylegan3-r-afhqv2-512x512.pkl") is None
    assert published_url("net.pkl") is None


def test_networks_of_mmagic() -> None:
    car = published()["mmagic-stylegan2-lsun-car-384x512"]
    assert car.url == (
        "https://download.openmmlab.com/mmediting/stylegan2/stylegan2_c2_lsun-car_384x512_b4x8_1800k_"
        "20210424_160929-fc9072ca.pth"
    )
    assert "not stated" in car.terms
    assert "NVIDIA" in published()["mmagic-stylegan3-t-ffhq-1024"].terms
    assert {network.by for network in published().values()} == {"NVIDIA", "mmagic"}


def test_near_misses() -> None:
    assert closest("stylegan3-r-afhqv2-512") == "stylegan3-r-afhqv2-512x512"
    assert closest("StyleGAN3-T-FFHQ-1024x1024.pkl") == "stylegan3-t-ffhq-1024x1024"
    assert closest("stylegan2-lsundogs-256x256") == "stylegan2-lsundog-256x256"
    assert closest("net.pkl") is None
    assert closest("") is None
