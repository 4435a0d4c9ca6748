"""Methods whose student is a small synthetic data set."""
