"""Ready-made options: the demos, and every published StyleGAN by the name of its data set and network.

Batches are those of the publications; `--gpus` and `--batch-gpu` are yours. A preset that fine-tunes starts from the
published network that it names.
"""

from __future__ import annotations

from sg3.train.recipes.recipe import Preset
from sg3.train.recipes.stylegan.options import StyleGANOptions

_DEMO = StyleGANOptions(
    cfg="stylegan2", data="openmoji:faces:white:32", mirror=True, batch=8, gamma=0.2, mbstd_group=4, cbase=1024,
    cmax=64, latent=64, map_depth=2, layer_noise=False, clamp_images=True, pl_weight=0.0, style_mix=0.0, ema_kimg=2.0,
    kimg=80, minutes=9.0, tick=1, snap=8, grid=(8, 8), workers=0, aug="noaug", fp32=True, nhwc=True,
    metrics="fd_efflite500_full",
)  # fmt: skip
_DEMO_STYLEGAN3 = StyleGANOptions(
    cfg="stylegan3-t", data="openmoji:faces:white:32", mirror=True, batch=8, gamma=0.2, mbstd_group=4, cbase=1024,
    cmax=64, latent=64, layers=4, margin=4, clamp_images=True, ema_kimg=2.0, kimg=56, tick=1, snap=8, grid=(8, 8),
    workers=0, aug="noaug", metrics="fd_efflite500_full",
)  # fmt: skip


def _published() -> dict[str, Preset]:
    presets: dict[str, Preset] = {}

    def add(name: str, title: str, **said: object) -> None:
        presets[name] = Preset(title, StyleGANOptions(**said))  # type: ignore[arg-type]

    # Karras et al. 2021, Appendix G: batch 32 on 8 GPUs. Gamma by network: StyleGAN2, T, R.
    cfgs = ("stylegan2", "stylegan3-t", "stylegan3-r")
    for data, gammas in (("ffhq", (10.0, 32.8, 32.8)), ("ffhqu", (10.0, 32.8, 32.8))):
        for cfg, gamma in zip(cfgs, gammas, strict=True):
            add(f"{data}-1024-{cfg}", "StyleGAN3 paper", cfg=cfg, batch=32, gamma=gamma, mirror=True, aug="noaug")
    for data, source, gammas in (("metfacesu", "ffhqu", (10.0, 16.4, 6.6)), ("metfaces", "ffhq", (5.0, 6.6, 3.3))):
        for cfg, gamma in zip(cfgs, gammas, strict=True):
            add(
                f"{data}-1024-{cfg}", f"StyleGAN3 paper, from {source.upper()}", cfg=cfg, batch=32, gamma=gamma,
                mirror=True, aug="ada", kimg=5000, snap=10, resume=f"{cfg}-{source}-1024x1024",
            )  # fmt: skip
    for cfg, gamma in zip(cfgs, (5.0, 8.2, 16.4), strict=True):
        add(f"afhqv2-512-{cfg}", "StyleGAN3 paper", cfg=cfg, batch=32, gamma=gamma, mirror=True, aug="ada")
    small = {"batch": 64, "gamma": 1.0, "mirror": True, "aug": "noaug", "cbase": 16384, "dlr": 0.0025}
    add("ffhqu-256-stylegan2", "StyleGAN3 paper, ablations", cfg="stylegan2", glr=0.0025, mbstd_group=8, **small)
    for cfg in cfgs[1:]:
        add(f"ffhqu-256-{cfg}", "StyleGAN3 paper, ablations", cfg=cfg, **small)

    # The gammas to begin with on other data, by resolution.
    for size, gamma in ((128, 0.5), (256, 2.0), (512, 8.0), (1024, 32.0)):
        for cfg in cfgs[1:]:
            add(f"any-{size}-{cfg}", f"any data of {size} x {size}", cfg=cfg, batch=32, gamma=gamma)

    # Karras et al. 2020 (ADA): StyleGAN2.
    ada = {"cfg": "stylegan2", "mirror": True, "aug": "ada"}
    add("ada-stylegan2-1024", "StyleGAN2-ADA paper, full size", batch=32, gamma=10.0, ema_rampup=0.0, **ada)
    add("ada-paper256", "StyleGAN2-ADA paper", batch=64, mbstd_group=8, cbase=16384, glr=0.0025, dlr=0.0025,
        gamma=1.0, ema_kimg=20.0, ema_rampup=0.0, **ada)  # fmt: skip
    add("ada-paper512", "StyleGAN2-ADA paper", batch=64, mbstd_group=8, glr=0.0025, dlr=0.0025, gamma=0.5,
        ema_kimg=20.0, ema_rampup=0.0, **ada)  # fmt: skip
    add("ada-paper1024", "StyleGAN2-ADA paper", batch=32, gamma=2.0, ema_kimg=10.0, ema_rampup=0.0, **ada)
    add("ada-cifar", "StyleGAN2-ADA paper, CIFAR-10", batch=64, mbstd_group=32, glr=0.0025, dlr=0.0025, gamma=0.01,
        kimg=100000, ema_kimg=500.0, map_depth=2, pl_weight=0.0, style_mix=0.0, d_arch="orig", cfg="stylegan2",
        aug="ada")  # fmt: skip

    # mmagic's configurations (batch 4 x 8 GPUs; path length regularisation for StyleGAN3 as well, every 4 steps).
    mm3 = {"batch": 32, "mirror": True, "pl_weight": 2.0}
    add("mmagic-stylegan3-t-ffhq-1024", "mmagic", cfg="stylegan3-t", gamma=32.8, aug="noaug", kimg=25600, **mm3)
    add("mmagic-stylegan3-t-ffhq-256", "mmagic", cfg="stylegan3-t", gamma=2.0, aug="noaug", cbase=16384, kimg=25600,
        **mm3)  # fmt: skip
    for letter, gamma in (("t", 6.6), ("r", 3.3)):
        add(f"mmagic-stylegan3-{letter}-metfaces-1024", "mmagic, from FFHQ", cfg=f"stylegan3-{letter}", gamma=gamma,
            aug="ada", kimg=5120, resume=f"stylegan3-{letter}-ffhq-1024x1024", **mm3)  # fmt: skip
    mm2 = {"cfg": "stylegan2", "batch": 32, "gamma": 10.0, "mirror": True, "aug": "noaug", "ema_rampup": 0.0}
    for name in ("ffhq-1024", "ffhq-256", "lsun-cat-256", "lsun-church-256", "lsun-horse-256"):
        add(f"mmagic-stylegan2-{name}", "mmagic", kimg=25600, **mm2)
    # ... its three of half precision, with gradients of R1 and path length never scaled; apex began at 65536.
    static: dict[str, object] = {"g_scaler": "static", "d_scaler": "static", "loss_scale": 512}
    dynamic: dict[str, object] = {"g_scaler": "dynamic", "d_scaler": "dynamic", "loss_scale": 65536}
    for suffix, amp in (
        ("fp16-partial", {"amp": "partial", **static}),
        ("fp16-global-g", {"amp": "global", "d_amp": "partial", **static}),
        ("apex", {"amp": "global", **dynamic}),
    ):
        add(f"mmagic-stylegan2-ffhq-256-{suffix}", "mmagic, half precision", kimg=25600, **mm2, **amp)
    add("mmagic-stylegan2-lsun-car-512", "mmagic, 512 x 384 images padded to squares", kimg=57600, **mm2)
    add("lsun-car-512x384-stylegan2", "StyleGAN2 paper, 512 x 384 images as they are, without bars", kimg=57600, **mm2)

    # Maua's repository trains StyleGANs without a projected discriminator, too, all of them with both regularisations
    # of StyleGAN2.
    maua = {"batch": 32, "aug": "ada", "snap": 25, "style_mix": 0.9, "pl_weight": 2.0}
    add("maua-unprojected-stylegan2", "Maua's variant without --projected", cfg="stylegan2", **maua)
    for cfg in cfgs[1:]:
        add(f"maua-unprojected-{cfg}", "Maua's variant without --projected", cfg=cfg, dlr=0.0025, **maua)
    return presets


PRESETS: dict[str, Preset] = {
    "demo": Preset("StyleGAN2 on faces of emoji, 32 x 32, ten minutes on two CPU cores", _DEMO),
    "demo-stylegan3": Preset("StyleGAN3-T on faces of emoji, 32 x 32, 17 minutes on two CPU cores", _DEMO_STYLEGAN3),
    **_published(),
}  # fmt: skip
