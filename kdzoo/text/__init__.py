"""What language models and text transformers have in common: their protocols, token sequences and tokenizers."""
