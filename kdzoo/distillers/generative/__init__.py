"""Methods for directed graphical models, adversarial generators, diffusion models and autoencoders.

The methods are :mod:`.semi_auxiliary`, :mod:`.continual` and :mod:`.elbo`; for generators with a discriminator
:mod:`.adversarial`, :mod:`.vae_gan`, :mod:`.adversarial_autoencoder` and :mod:`.generator_kd`; for diffusion models
:mod:`.progressive` and :mod:`.consistency`; for autoencoders :mod:`.autoencoder_kd` and :mod:`.reconstruction`. Each of
the other modules holds one decision that a method leaves to its user, such as how nodes are compared or how gradients
reach discrete latents.
"""
