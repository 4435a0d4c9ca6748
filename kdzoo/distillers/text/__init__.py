"""Methods for text transformers: masked language models, classifiers and encoders."""
