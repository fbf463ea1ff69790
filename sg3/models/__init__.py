"""Networks: StyleGAN3 and StyleGAN2 generators, the StyleGAN2 discriminator; the original's state_dict names."""

from sg3.models import stylegan2, stylegan3

Generator = stylegan2.Generator | stylegan3.Generator  # the two share attributes and arguments
Discriminator = stylegan2.Discriminator

__all__ = ["Discriminator", "Generator", "stylegan2", "stylegan3"]
