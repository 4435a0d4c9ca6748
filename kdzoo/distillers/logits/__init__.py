"""Methods that compare the logits of classifiers."""
