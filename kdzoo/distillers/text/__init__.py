"""Methods for transformers of text."""
