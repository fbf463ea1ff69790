"""Networks: generators and discriminators of StyleGAN2 and 3, Projected GAN with FastGAN, and R3GAN.

All have the original's state_dict names. Every generator has z_dim, c_dim, img_resolution and img_channels and is
called as G(z, c, truncation_psi=..., noise_mode=...); only `StyleGenerator`s have a w, which tools move and mix.
"""

from sg3.models import fastgan, projected, r3gan, stylegan2, stylegan3

StyleGenerator = stylegan2.Generator | stylegan3.Generator
Generator = StyleGenerator | fastgan.Generator | r3gan.Generator
Discriminator = stylegan2.Discriminator | projected.ProjectedDiscriminator | r3gan.Discriminator

# The systems by the module of a network's class.
_FAMILIES = {
    "sg3.models.stylegan3": "StyleGAN3", "sg3.models.stylegan2": "StyleGAN2", "sg3.models.discriminator": "StyleGAN2",
    "sg3.models.fastgan": "FastGAN", "sg3.models.projected": "Projected GAN", "sg3.models.r3gan": "R3GAN",
}  # fmt: skip


def family_of(network: Generator | Discriminator) -> str:
    """The system that a network belongs to, by its name."""
    return _FAMILIES[type(network).__module__]


__all__ = [
    "Discriminator", "Generator", "StyleGenerator", "family_of", "fastgan", "projected", "r3gan", "stylegan2",
    "stylegan3",
]  # fmt: skip
