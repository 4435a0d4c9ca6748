"""Selections by definition, in float64 NumPy and by search through all subsets."""

from itertools import combinations

import numpy as np


def herding(points: np.ndarray, count: int) -> list[int]:
    """Try every sample that is not chosen yet, and choose the one with the smallest error of the mean."""
    chosen: list[int] = []
    for _ in range(count):
        candidates = [i for i in range(len(points)) if i not in chosen]
        chosen.append(min(candidates, key=lambda i: mean_error(points, [*chosen, i])))
    return chosen


def mean_error(points: np.ndarray, chosen: list[int]) -> float:
    """Distance of the mean of the chosen samples from the mean of all."""
    return float(np.linalg.norm(points[chosen].mean(0) - points.mean(0)))


def radius(points: np.ndarray, chosen: list[int]) -> float:
    """Largest distance of a sample to its nearest chosen one."""
    return max(min(float(np.linalg.norm(p - points[c])) for c in chosen) for p in points)


def least_radius(points: np.ndarray, count: int) -> float:
    """Smallest radius of any ``count`` samples."""
    return min(radius(points, list(chosen)) for chosen in combinations(range(len(points)), count))
