"""Text for transformers: blocks of tokens with masks, and labelled sentences."""
