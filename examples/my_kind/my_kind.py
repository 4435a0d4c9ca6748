"""A kind of model: classifiers that are compared by how often the target is among the three most likely classes."""

from kdzoo.kinds import ClassifierKind


class TopThreeKind(ClassifierKind):
    """Classifiers with a further metric, which is also their score."""

    name = "top_three"
    score = "top_3_accuracy"

    def metrics(self, predictions):
        """Return the metrics of classifiers and ``top_3_accuracy``, in [0, 1]."""
        likeliest = predictions.logits.topk(3, dim=1).indices
        is_hit = (likeliest == predictions.target[:, None]).any(1)
        return {**super().metrics(predictions), "top_3_accuracy": float(is_hit.double().mean())}
