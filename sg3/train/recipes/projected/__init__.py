"""Projected GAN: FastGAN or StyleGAN generators against a projected discriminator."""
