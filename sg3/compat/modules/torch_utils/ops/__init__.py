"""The ops of StyleGAN2 and StyleGAN3, answered by `sg3.kernels`."""
