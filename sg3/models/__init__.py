"""Networks: StyleGAN3 and StyleGAN2 generators and the StyleGAN2 discriminator, with the original's state_dict names."""
