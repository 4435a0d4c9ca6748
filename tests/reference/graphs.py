"""Directed graphical models by definition, in float64 NumPy: sums over states, and normal distributions by their maps.

A normal chain is a list of layers (weight, bias, deviation): first the top, whose weight is None, last the target.
A binary chain z1 -> z2 -> y1 -> z3 -> y2 holds probabilities of 1: one number, and four pairs indexed by the parent.
"""

from math import log

import numpy as np


def noise_to_mean(layers):
    """Return offset [d] and matrix [d, k] that map the noise of all latents to the mean of the target."""
    offset, matrix = None, None
    for weight, bias, deviation in layers[:-1]:
        if weight is None:
            offset, matrix = bias, np.diag(deviation)
        else:
            offset, matrix = weight @ offset + bias, np.hstack([weight @ matrix, np.diag(deviation)])
    weight, bias, _ = layers[-1]
    return weight @ offset + bias, weight @ matrix


def moments(layers):
    """Return mean and covariance of the target."""
    offset, matrix = noise_to_mean(layers)
    return offset, matrix @ matrix.T + np.diag(layers[-1][2] ** 2)


def normal_kl(mean, covariance, other_mean, other_covariance, spread=0.0):
    """Return KL of normal distributions, plus half of tr(other^-1 spread)."""
    inverse = np.linalg.inv(other_covariance)
    shift = other_mean - mean
    log_ratio = np.linalg.slogdet(other_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(inverse @ (covariance + spread)) + shift @ inverse @ shift - len(mean) + log_ratio)


def surrogate(teacher, student):
    """Return the mean over the noise of KL of the target given the noise."""
    (teacher_offset, teacher_matrix), (student_offset, student_matrix) = noise_to_mean(teacher), noise_to_mean(student)
    difference = teacher_matrix - student_matrix
    deviations = [np.diag(layers[-1][2] ** 2) for layers in (teacher, student)]
    return normal_kl(teacher_offset, deviations[0], student_offset, deviations[1], spread=difference @ difference.T)


def posterior_gap(teacher, student):
    """Return the mean over the teacher's targets of KL(p_teacher(noise | target) || p_student(noise | target)).

    Given y the noise is N(G (y - m), C), where C = (I + A' D^-1 A)^-1, G = C A' D^-1 and D are the squared deviations.
    """
    posteriors = []
    for layers in (teacher, student):
        offset, matrix = noise_to_mean(layers)
        weighted = matrix.T / layers[-1][2] ** 2
        covariance = np.linalg.inv(np.eye(matrix.shape[1]) + weighted @ matrix)
        posteriors.append((offset, covariance, covariance @ weighted))
    (mean, covariance, gain), (other_mean, other_covariance, other_gain) = posteriors
    spread = (other_gain - gain) @ moments(teacher)[1] @ (other_gain - gain).T
    shift = other_gain @ (mean - other_mean)
    return normal_kl(np.zeros(len(covariance)), covariance, shift, other_covariance, spread=spread)


def cells(p, q):
    """Return (mass, teacher's bit, student's bit) of each interval of a shared uniform number.

    A bit is 1 if the uniform number is below its probability, p for the teacher and q for the student.
    """
    low, high = min(p, q), max(p, q)
    return [(low, 1, 1), (1 - high, 0, 0), (high - low, int(p > q), int(q > p))]


def probability(p, bit):
    """Return the probability of a bit whose probability of 1 is p."""
    return p if bit else 1 - p


def binary_chain(teacher, student):
    """Return the surrogate bound, KL of the targets, and the mean KL of the noise given the targets."""
    above = [
        (mass * more, z, own)
        for mass, first, own_first in cells(teacher[0], student[0])
        for more, z, own in cells(teacher[1][first], student[1][own_first])
    ]
    bound = marginal = gap = 0.0
    for y1 in (0, 1):
        below = cells(teacher[3][y1], student[3][y1])
        for mass, z, own in above:
            p, q = probability(teacher[2][z], y1), probability(student[2][own], y1)
            bound += mass * p * log(p / q)
        for y2 in (0, 1):
            joint = []
            for mass, z, own in above:
                for more, last, own_last in below:
                    p = probability(teacher[2][z], y1) * probability(teacher[4][last], y2)
                    q = probability(student[2][own], y1) * probability(student[4][own_last], y2)
                    joint.append((mass * more, p, q))
                    p2, q2 = probability(teacher[4][last], y2), probability(student[4][own_last], y2)
                    bound += mass * more * p * log(p2 / q2)
            total, own_total = sum(m * p for m, p, _ in joint), sum(m * q for m, _, q in joint)
            marginal += total * log(total / own_total)
            gap += sum(m * p * log(p / total / (q / own_total)) for m, p, q in joint)
    return bound, marginal, gap


def quantile_distance(p, q, grid):
    """Return the integral of the squared difference of two quantile functions, by moving mass in increasing order."""
    p, q, i, j, total = list(p), list(q), 0, 0, 0.0
    while i < len(p) and j < len(q):
        moved = min(p[i], q[j])
        total += moved * (grid[i] - grid[j]) ** 2
        p[i], q[j] = p[i] - moved, q[j] - moved
        i, j = i + (p[i] <= 1e-15), j + (q[j] <= 1e-15)
    return total
