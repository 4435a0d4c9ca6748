"""Relational losses in float64 NumPy, one pair and one triple at a time."""

import numpy as np


def huber(gap: float) -> float:
    """Huber's loss with delta 1."""
    return gap**2 / 2 if abs(gap) <= 1 else abs(gap) - 0.5


def distance_relation(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Mean Huber loss of relative distances over the pairs of each sample."""
    n = len(student)
    relative = []
    for points in (student.astype(float).reshape(n, -1), teacher.astype(float).reshape(n, -1)):
        distances = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in points] for a in points])
        relative.append(distances / distances[~np.eye(n, dtype=bool)].mean())
    s, t = relative
    return np.array([np.mean([huber(s[i, j] - t[i, j]) for j in range(n) if j != i]) for i in range(n)])


def angle_relation(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Mean Huber loss of the cosines at each sample over the pairs of the others."""

    def cosine(points: np.ndarray, i: int, j: int, k: int) -> float:
        a, b = points[i] - points[j], points[k] - points[j]
        lengths = np.sqrt((a @ a) * (b @ b))
        return a @ b / lengths if lengths > 0 else 0.0

    n = len(student)
    s, t = student.astype(float).reshape(n, -1), teacher.astype(float).reshape(n, -1)
    triples = [[(i, j, k) for i in range(n) for k in range(n) if len({i, j, k}) == 3] for j in range(n)]
    return np.array(
        [np.mean([huber(cosine(s, *triple) - cosine(t, *triple)) for triple in at_vertex]) for at_vertex in triples]
    )
