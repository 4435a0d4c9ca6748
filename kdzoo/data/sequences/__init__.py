"""Sequences: token sequences of formal languages and text, pen strokes and music."""
