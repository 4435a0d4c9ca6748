"""Vectors of real numbers, one per sample."""
