"""Softmax regression trained by inner steps, and the derivatives of its final weights, by hand in float64 NumPy.

Weights are W (D, C), images X (M, D), labels Y (M, C), which need not sum to 1. With P the softmax of XW and s the sums
of the labels, the loss -sum(Y log P) / M has the gradient G = X'(sP - Y) / M. For a constant A and V = XA,
<G, A> = sum(s <P, V> - <Y, V>) / M, of which the derivatives below are taken.
"""

import numpy as np

Array = np.ndarray


def softmax(Z: Array) -> Array:
    E = np.exp(Z - Z.max(1, keepdims=True))
    return E / E.sum(1, keepdims=True)


def gradient(W: Array, X: Array, Y: Array) -> Array:
    return X.T @ (Y.sum(1, keepdims=True) * softmax(X @ W) - Y) / len(X)


def products(W: Array, X: Array, Y: Array, A: Array) -> tuple[Array, Array, Array]:
    """Derivatives of <G, A> with respect to W, X and Y."""
    s, P, V = Y.sum(1, keepdims=True), softmax(X @ W), X @ A
    mean = (P * V).sum(1, keepdims=True)
    R = s * P * (V - mean) / len(X)
    return X.T @ R, (s * P - Y) @ A.T / len(X) + R @ W.T, (mean - V) / len(X)


class SGD:
    """w -= eta g."""

    def forward(self, w, g, eta, k):
        self.g, self.eta = g, eta
        return w - eta * g

    def tape(self):
        return self.g, self.eta

    def backward(self, lam, tape):
        g, eta = tape
        return -eta * lam, -(lam * g).sum()


class Momentum:
    """b = mu b + g, w -= eta b; the adjoint of b is carried from step to step."""

    def __init__(self, momentum):
        self.momentum, self.b, self.nu = momentum, 0.0, 0.0

    def forward(self, w, g, eta, k):
        self.b = self.momentum * self.b + g
        self.eta = eta
        return w - eta * self.b

    def tape(self):
        return self.b, self.eta

    def backward(self, lam, tape):
        b, eta = tape
        a = self.nu - eta * lam
        self.nu = self.momentum * a
        return a, -(lam * b).sum()


class Adam:
    """Means m and v of g and g^2, corrected by 1 - beta^(k + 1); w -= eta m / (sqrt(v + eps_root) + eps)."""

    def __init__(self, betas, eps, eps_root):
        self.betas, self.eps, self.eps_root = betas, eps, eps_root
        self.m = self.v = self.mu = self.nu = 0.0

    def forward(self, w, g, eta, k):
        b1, b2 = self.betas
        self.m, self.v = b1 * self.m + (1 - b1) * g, b2 * self.v + (1 - b2) * g * g
        self.g, self.eta, self.c1, self.c2 = g, eta, 1 - b1 ** (k + 1), 1 - b2 ** (k + 1)
        return w - eta * (self.m / self.c1) / (np.sqrt(self.v / self.c2 + self.eps_root) + self.eps)

    def tape(self):
        return self.g, self.eta, self.m, self.v, self.c1, self.c2

    def backward(self, lam, tape):
        g, eta, m, v, c1, c2 = tape
        b1, b2 = self.betas
        root = np.sqrt(v / c2 + self.eps_root)
        below = root + self.eps
        self.mu = self.mu - lam * eta / (c1 * below)
        self.nu = self.nu + lam * eta * (m / c1) / below**2 / (2 * root * c2)
        a = (1 - b1) * self.mu + 2 * (1 - b2) * g * self.nu
        self.mu, self.nu = b1 * self.mu, b2 * self.nu
        return a, -(lam * (m / c1) / below).sum()


def unroll(W: Array, X: Array, Y: Array, sizes: Array, optimizer, adjoint: Array) -> tuple[Array, list[Array]]:
    """Final weights, and the derivatives of <final weights, adjoint> with respect to X, Y, the sizes and W."""
    tapes = []
    for k, eta in enumerate(sizes):
        g = gradient(W, X, Y)
        after = optimizer.forward(W, g, eta, k)
        tapes.append((W, optimizer.tape()))
        W = after
    end, dX, dY, d_sizes = W, np.zeros_like(X), np.zeros_like(Y), np.zeros_like(sizes)
    for k in reversed(range(len(sizes))):
        W, tape = tapes[k]
        a, d_sizes[k] = optimizer.backward(adjoint, tape)
        HA, AX, AY = products(W, X, Y, a)
        adjoint, dX, dY = adjoint + HA, dX + AX, dY + AY
    return end, [dX, dY, d_sizes, adjoint]
