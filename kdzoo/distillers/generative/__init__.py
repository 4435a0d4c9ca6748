"""Methods for directed graphical models."""
