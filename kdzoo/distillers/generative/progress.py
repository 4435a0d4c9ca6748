"""Schedules that run over a first part of the training."""

from kdzoo.core.base import Distiller


def elapsed_share(distiller: Distiller, part: float) -> float:
    """Return how much of the first part of the training is over, in [0, 1].

    Args:
        distiller: The method.
        part: Length of the first part as a share of the whole training, in [0, 1].

    Returns:
        0 before the first step, 1 after the first part. It is also 1 outside of training, so that validation measures
        what the schedule ends with and its curve is comparable over epochs.
    """
    # Lightning's ``trainer`` raises without a trainer; the private attribute is None then.
    if not (part and distiller.training and distiller._trainer is not None):
        return 1.0
    steps = float(distiller.trainer.estimated_stepping_batches)
    return min(1.0, distiller.trainer.global_step / (part * steps))
