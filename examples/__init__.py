"""Worked examples; this file makes the folder a package that takes precedence over an installed ``examples``."""
