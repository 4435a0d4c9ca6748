"""The measures of a poisoning attack, sample by sample in plain Python (Wang et al. 2018, section 4.3)."""


def confusion(predicted, targets, num_classes):
    """Return rows of shares [C][C] of one network; a target below 0 is missing."""
    table = [[0.0] * num_classes for _ in range(num_classes)]
    for truth in range(num_classes):
        of_class = [prediction for prediction, label in zip(predicted, targets, strict=True) if label == truth]
        for prediction in of_class:
            table[truth][prediction] += 1 / len(of_class)
    return table


def measures(predicted, targets, source, target):
    """Return accuracy, accuracy on modified labels, and the share of the source that is classified as the target."""
    correct, modified, misled, n_known, n_source = 0, 0, 0, 0, 0
    for prediction, truth in zip(predicted, targets, strict=True):
        if truth < 0:
            continue
        n_known += 1
        correct += prediction == truth
        modified += prediction == (target if truth == source else truth)
        if truth == source:
            n_source += 1
            misled += prediction == target
    return correct / n_known, modified / n_known, misled / n_source
