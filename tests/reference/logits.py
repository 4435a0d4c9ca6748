"""Logit losses written from the papers, with as many digits as each case needs (mpmath, no torch)."""

import math

import numpy as np
from mpmath import mp, mpf

NEGLIGIBLE = 900  # a class whose exponents lie this far below the greatest, in both, has no effect


def soft_target_kl(student: np.ndarray, teacher: np.ndarray, temperature: float) -> mpf:
    """T^2 sum_i p_i log(p_i / q_i) of one position, by the definition.

    The definition cancels, so the digits grow until thirty are left; what 450 digits do not show is 0 in
    float64.
    """
    for digits in (50, 150, 450):
        with mp.workdps(digits):
            value = _kl_by_definition(student, teacher, temperature)
            if not mp.isfinite(value) or abs(value) > mpf(10) ** (30 - digits):
                break
    return value


def _kl_by_definition(student: np.ndarray, teacher: np.ndarray, temperature: float) -> mpf:
    T = mpf(float(temperature))
    s, t = student.astype(np.float64), teacher.astype(np.float64)
    relevant = ~(np.isneginf(s) & np.isneginf(t))
    relevant &= ((s - s.max()) / temperature > -NEGLIGIBLE) | ((t - t.max()) / temperature > -NEGLIGIBLE)
    if np.any(np.isneginf(s) & ~np.isneginf(t)):
        return mpf("inf")
    student_exponents = [mpf(float(z)) / T for z in s[relevant]]
    teacher_exponents = [mpf(float(z)) / T for z in t[relevant]]
    student_log_sum, teacher_log_sum = _log_sum(student_exponents), _log_sum(teacher_exponents)
    total = mpf(0)
    for a, b in zip(student_exponents, teacher_exponents, strict=True):
        if b != mpf("-inf"):
            total += mp.exp(b - teacher_log_sum) * ((b - teacher_log_sum) - (a - student_log_sum))
    return T * T * total


def _log_sum(exponents: list[mpf]) -> mpf:
    top = max(exponents)
    return top + mp.log(mp.fsum(mp.exp(e - top) for e in exponents if e != mpf("-inf")))


def hard_target_ce(student: np.ndarray, label: int) -> mpf:
    """The negative log-probability of the label, one position, with digits for values down to 1e-300."""
    with mp.workdps(400):
        logits = [mpf(float(z)) for z in student]
        return _log_sum(logits) - logits[label]


def centred_mse(student: np.ndarray, teacher: np.ndarray) -> mpf:
    """Mean over the unmasked classes of 0.5 ((s - mean s) - (t - mean t))^2, one position."""
    with mp.workdps(60):
        both = zip(student, teacher, strict=True)
        pairs = [(mpf(float(a)), mpf(float(b))) for a, b in both if a > -math.inf]
        s_mean = mp.fsum(a for a, _ in pairs) / len(pairs)
        t_mean = mp.fsum(b for _, b in pairs) / len(pairs)
        return mp.fsum(((a - s_mean) - (b - t_mean)) ** 2 for a, b in pairs) / (2 * len(pairs))


def decoupled_kl(student: np.ndarray, teacher: np.ndarray, label: int, temperature: float) -> tuple[mpf, mpf]:
    """TCKD and NCKD of Zhao et al. 2022, times T^2, by their definitions; one position, finite logits."""
    with mp.workdps(150):
        T = mpf(float(temperature))
        p, q = _softmax(teacher, T), _softmax(student, T)
        rest_p = mp.fsum(x for i, x in enumerate(p) if i != label)
        rest_q = mp.fsum(x for i, x in enumerate(q) if i != label)
        target_class = p[label] * mp.log(p[label] / q[label]) + rest_p * mp.log(rest_p / rest_q)
        other_classes = mp.fsum(
            a / rest_p * mp.log((a / rest_p) / (b / rest_q))
            for i, (a, b) in enumerate(zip(p, q, strict=True))
            if i != label
        )
        return T * T * target_class, T * T * other_classes


def _softmax(logits: np.ndarray, T: mpf) -> list[mpf]:
    exponents = [mpf(float(z)) / T for z in logits]
    log_sum = _log_sum(exponents)
    return [mp.exp(e - log_sum) for e in exponents]
