"""What the metrics of reports mean: for ``kdzoo explain``, the tables and the HTML report.

Importing this module does not import torch. A metric of a user's kind need not be listed; it is shown without a unit
and without a direction.
"""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """What a metric means.

    Attributes:
        name: Its name in reports; ``<...>`` stands for a part that varies, such as the name of a feature extractor.
        meaning: What is measured, in one sentence.
        unit: Unit, or range of values without one; empty for numbers that have neither.
        better: Whether higher or lower values are better; None if neither is.
    """

    name: str
    meaning: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None

    @property
    def arrow(self) -> str:
        """An arrow in the better direction, for the headings of tables; empty if there is none."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]


GROUPS: dict[str, tuple[Metric, ...]] = {
    "Models": (
        Metric("parameters", "Number of parameters of the model."),
        Metric("layer_parameters", "Number of parameters of a text transformer without embeddings and head."),
        Metric("generative_parameters", "Number of parameters on which the samples of a generative model depend."),
        Metric("cpu_ms_per_1000", "CPU time of 1,000 predictions on one thread.", "ms", "lower"),
    ),
    "Classifiers": (
        Metric("accuracy", "Share of correct predictions.", "in [0, 1]", "higher"),
        Metric("errors", "Number of wrong predictions.", "samples", "lower"),
        Metric("cross_entropy", "Mean cross entropy of the predicted probabilities and the labels.", "nats", "lower"),
        Metric("calibration_error", "Expected calibration error with 15 bins of equal width.", "in [0, 1]", "lower"),
        Metric(
            "unseen_recall",
            "Share of the test samples of classes in data.exclude_classes that are recognised.",
            "in [0, 1]",
            "higher",
        ),
        Metric(
            "unseen_shift", "Number that is added to the logits of these classes; it is chosen on the validation split."
        ),
        Metric("unseen_recall_shifted", "Recall of these classes with that shift.", "in [0, 1]", "higher"),
        Metric("errors_shifted", "Number of wrong predictions with that shift.", "samples", "lower"),
    ),
    "Closeness to the teacher": (
        Metric("agreement", "Share of predictions that are equal to the teacher's.", "in [0, 1]", "higher"),
        Metric("kl", "Mean divergence of the model's distribution from the teacher's.", "nats", "lower"),
        Metric(
            "cosine", "Mean cosine similarity of the vectors of an encoder and its teacher.", "in [-1, 1]", "higher"
        ),
        Metric(
            "similarity_correlation",
            "Spearman's correlation of the similarities of all pairs of 500 texts under the model and the teacher.",
            "in [-1, 1]",
            "higher",
        ),
        Metric("share_of_teacher", "Accuracy divided by that of a network trained on all data.", better="higher"),
        Metric(
            "hard_label_gap",
            "Accuracy of a network trained on all data minus hard_label_accuracy.",
            "in [-1, 1]",
            "lower",
        ),
    ),
    "Autoencoders": (
        Metric("reconstruction_error", "Mean squared error of a pixel of the reconstructions.", better="lower"),
        Metric(
            "explained_variance",
            "Share of the variance of the test split that the reconstructions explain.",
            "at most 1",
            "higher",
        ),
        Metric("code_size", "Number of values of a code."),
        Metric(
            "pca_angle",
            "Largest principal angle between the span of a linear decoder and as many principal components.",
            "degrees",
        ),
        Metric(
            "reconstruction_distance",
            "Mean squared difference of a pixel from the teacher's reconstructions.",
            better="lower",
        ),
        Metric(
            "code_explained",
            "Share of the variance of the teacher's codes that a linear map of the codes explains on unseen images.",
            "at most 1",
            "higher",
        ),
    ),
    "Language models and automata": (
        Metric("log_prob", "Mean log-probability of a symbol, with the ends of strings.", "nats per symbol", "higher"),
        Metric("perplexity", "Exponential of the mean loss per symbol.", "at least 1", "lower"),
        Metric(
            "kl_from_truth",
            "Mean divergence of the next-symbol distribution from that of the known source.",
            "nats per symbol",
            "lower",
        ),
        Metric(
            "pautomac_score",
            "Two to the cross entropy of the true and the model's probabilities, normalised over the test strings.",
            better="lower",
        ),
        Metric(
            "oracle_nll",
            "Mean negative log-probability of generated symbols under the model that the data were drawn from.",
            "nats per symbol",
            "lower",
        ),
        Metric(
            "test_nll",
            "Mean negative log-probability of a symbol of the test strings under the model.",
            "nats per symbol",
            "lower",
        ),
        Metric("states", "Number of states of an automaton."),
        Metric("total_mass", "Total probability of all strings; 1 for a consistent automaton.", "in [0, 1]"),
        Metric("expected_length", "Mean length of a string.", "tokens"),
    ),
    "Text transformers": (
        Metric("masked_loss", "Mean cross entropy of masked tokens.", "nats", "lower"),
        Metric("masked_accuracy", "Share of masked tokens that are predicted correctly.", "in [0, 1]", "higher"),
        Metric(
            "probe_accuracy",
            "Accuracy of logistic regression on the vectors of an encoder, trained on at most 5,000 training texts.",
            "in [0, 1]",
            "higher",
        ),
    ),
    "Generative models": (
        Metric("frechet", "Frechet distance between the features of samples and data.", better="lower"),
        Metric("frechet_low", "Lower end of the 95 % bootstrap interval of frechet."),
        Metric("frechet_high", "Upper end of the 95 % bootstrap interval of frechet."),
        Metric("frechet_squared", "Square of frechet.", better="lower"),
        Metric("emd", "Earth mover's distance between the features of samples and data.", better="lower"),
        Metric("mmd", "Maximum mean discrepancy between the features of samples and data.", better="lower"),
        Metric(
            "one_nn",
            "Accuracy of a nearest-neighbour classifier that separates samples from data; 0.5 is ideal.",
            "in [0, 1]",
        ),
        Metric("kid", "Kernel distance with a cubic polynomial kernel.", better="lower"),
        Metric("precision", "Share of samples in the neighbourhood of data.", "in [0, 1]", "higher"),
        Metric("recall", "Share of data in the neighbourhood of samples.", "in [0, 1]", "higher"),
        Metric("density", "Mean number of neighbourhoods of data that hold a sample.", better="higher"),
        Metric("coverage", "Share of data whose neighbourhood holds a sample.", "in [0, 1]", "higher"),
        Metric("modes", "Number of modes of the data at which there is a sample.", better="higher"),
        Metric("mode_kl", "Divergence of the samples' shares of the modes from equal ones.", "nats", "lower"),
        Metric("mode_share", "Share of samples within three deviations of a mode.", "in [0, 1]", "higher"),
        Metric(
            "missed_classes",
            "Number of classes of the data that almost no sample has, as the evaluation classifier sees them.",
            better="lower",
        ),
        Metric(
            "gan_test_accuracy",
            "Share of samples whose class, as a classifier trained on the data sees it, is the one that was asked for.",
            "in [0, 1]",
            "higher",
        ),
        Metric(
            "gan_train_accuracy",
            "Accuracy on the test split of a classifier that was trained on the model's samples.",
            "in [0, 1]",
            "higher",
        ),
        Metric("classifier_accuracy", "Accuracy of the evaluation classifier on the test split.", "in [0, 1]"),
        Metric("negative_bound", "Negative evidence lower bound of the test split.", "nats", "lower"),
        Metric(
            "negative_weighted_bound",
            "Negative importance-weighted bound with 50 samples of the latents, of the first 1,000 test samples.",
            "nats",
            "lower",
        ),
        Metric(
            "active_units",
            "Share of the values of latents whose posterior mean varies over the data, with a variance above 0.01.",
            "in [0, 1]",
        ),
        Metric("negative_log_density", "Exact negative log density of the test split.", "nats", "lower"),
        Metric("<distance>_paired", "Distance to the teacher's samples under the same noise.", better="lower"),
        Metric("<distance>_independent", "Distance to the teacher's samples under other noise.", better="lower"),
        Metric(
            "surrogate", "Surrogate loss: the divergence of targets and latents given shared noise.", "nats", "lower"
        ),
        Metric("marginal", "Estimated divergence of the marginal distributions, from moments.", "nats", "lower"),
        Metric("bound_gap", "Surrogate loss minus the marginal divergence.", "nats"),
        Metric(
            "paired_error",
            "Mean squared difference of the targets under shared noise, as a fraction of the teacher's variance.",
            better="lower",
        ),
        Metric("dispersion", "Total variance of the samples, as a fraction of the teacher's; 1 is ideal."),
        Metric("frechet_old", "Mean frechet of all tasks but the last, after the last task.", better="lower"),
        Metric("one_nn_old", "Mean one_nn of all tasks but the last, after the last task.", "in [0, 1]"),
        Metric("forgetting", "Mean growth of the old tasks' frechet since they were learned.", better="lower"),
        Metric("frechet_step<i>_task<j>", "Frechet distance on task j after task i, counted from 0.", better="lower"),
        # After the other patterns, which it would match too.
        Metric("frechet_<extractor>", "Frechet distance in the features of another network.", better="lower"),
    ),
    "Synthetic sets": (
        Metric("accuracy_std", "Standard deviation of the accuracy over initial weights.", better="lower"),
        Metric("accuracy_worst", "Lowest accuracy of the networks that are trained on the set.", "in [0, 1]", "higher"),
        Metric("accuracy_<inner_network>", "Mean accuracy of one inner network.", "in [0, 1]", "higher"),
        Metric("diverged", "Share of networks whose training diverged.", "in [0, 1]", "lower"),
        Metric(
            "hard_label_accuracy", "Accuracy of networks trained on the set with one-hot labels.", "in [0, 1]", "higher"
        ),
        Metric("accuracy_before", "Accuracy before the step on a poisoned set.", "in [0, 1]"),
        Metric("modified_accuracy", "Accuracy by the changed labels of a poisoned set.", "in [0, 1]", "higher"),
        Metric(
            "source_as_target",
            "Share of the attacked class that is predicted as the target class after the step.",
            "in [0, 1]",
            "higher",
        ),
        Metric("source_as_target_before", "The same share before the step.", "in [0, 1]"),
        Metric("others_lost", "Mean recall that the other classes lose.", "in [0, 1]", "lower"),
        Metric("examples", "Number of examples of the set."),
        Metric("inner_steps", "Number of training steps on the set."),
        Metric("bytes", "Size of the exported arrays.", "bytes", "lower"),
    ),
    "Queries": (
        Metric("queries", "Number of evaluations of the teacher.", better="lower"),
        Metric("queries_asked", "Number of evaluations of the teacher, with those whose result was known."),
        Metric("query_error", "Relative error of the student at the last queries.", better="lower"),
    ),
}
"""All metrics, by the heading under which they are listed."""


KINDS: dict[str, tuple[str, ...]] = {
    "Generative models": ("graphical_model",),
    "Synthetic sets": ("synthetic_set", "poison"),
}
"""The kinds of models whose metrics the names with varying parts describe, by heading."""


def find(name: str, kind: str | None = None) -> Metric | None:
    """Return the metric of that name, also if a part of it varies; None if it is not listed.

    Args:
        name: Name in a report.
        kind: The report's kind, which decides whether a name with a varying part is meant: ``accuracy_top3`` of another
            kind than synthetic sets is not the accuracy of an inner network. None: it may be of any kind.

    Example:
        >>> find("accuracy").arrow, find("frechet_pca").name, find("frechet_low").name
        ('↑', 'frechet_<extractor>', 'frechet_low')
        >>> find("accuracy_top3", kind="classifier") is None
        True
    """
    for metrics in GROUPS.values():
        for metric in metrics:
            if metric.name == name:
                return metric
    for title, metrics in GROUPS.items():
        if kind is None or kind in KINDS.get(title, ()):
            for metric in metrics:
                if "<" in metric.name and re.fullmatch(re.sub(r"<\w+>", r"\\w+", metric.name), name):
                    return metric
    return None
