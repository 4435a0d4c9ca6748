"""The Hydra configuration groups, shipped as the package ``kdzoo.conf``."""
