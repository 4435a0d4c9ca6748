"""Matrix product states: their contraction, canonical form, compression, construction and what is in them."""
