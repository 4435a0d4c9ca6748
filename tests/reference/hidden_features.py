"""Feature losses in float64 NumPy, one sample and one position at a time."""

import numpy as np


def hint_mse(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Mean squared difference per sample."""
    return np.array([np.mean((a.astype(float) - b.astype(float)) ** 2) for a, b in zip(student, teacher, strict=True)])


def attention_map(features: np.ndarray) -> np.ndarray:
    """F_sum^2 of Zagoruyko and Komodakis, each row divided by its Euclidean norm."""
    rows = []
    for sample in features.astype(float):
        energy = np.einsum("khw,khw->hw", sample, sample).ravel()
        norm = np.sqrt(energy @ energy)
        rows.append(energy / norm if norm > 0 else energy)
    return np.array(rows)


def attention_transfer(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Mean squared difference of the maps per sample."""
    return np.mean((attention_map(student) - attention_map(teacher)) ** 2, axis=1)


def pooled(features: np.ndarray, height: int, width: int) -> np.ndarray:
    """Adaptive average pooling: output row i averages input rows floor(i H / h) to ceil((i + 1) H / h)."""
    b, c, H, W = features.shape
    out = np.zeros((b, c, height, width))
    for i in range(height):
        for j in range(width):
            rows = slice(i * H // height, -(-(i + 1) * H // height))
            columns = slice(j * W // width, -(-(j + 1) * W // width))
            out[:, :, i, j] = features[:, :, rows, columns].astype(float).mean((2, 3))
    return out
