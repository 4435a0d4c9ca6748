"""Methods that distil text transformers: masked language models, classifiers and encoders."""
