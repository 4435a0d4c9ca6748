"""What layers can be chosen for: likeness to the teacher, a linear probe, or the loss of the task.

Each function looks at held-out batches and returns a score of a shortened model, larger being better. They disagree:
the layers most like the teacher need not be those whose vectors separate classes best.

A batch is a dictionary with "input", token ids (batch, length) of dtype int64, and where it is needed "target".
Models are of the library transformers; positions with the padding id are masked.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from kdzoo.core import validation
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError, DataError

Batches = Iterable[Mapping[str, Tensor]]
Score = Callable[[Any], float]

FOLDS = 3
IGNORED = -100


def fidelity(batches: Batches, teacher: Any, *, pad_id: int | None) -> Score:
    """Mean cosine of last hidden states to the teacher's, in [-1, 1].

    It is the mean over all tokens; for an encoder without a head over texts, whose vectors are the means of their
    tokens. The teacher is asked here, so a score may be called with the same model when layers are missing.

    Args:
        batches: Held-out texts, at least one.
        teacher: The model with all of its layers.
        pad_id: Token id that is no token; None if there is none.

    Raises:
        ConfigError: If the teacher has no hidden states to ask for.
        DataError: If there are no texts, or one has no tokens.

    Example:
        >>> score = fidelity([{"input": ids}], teacher, pad_id=0)  # doctest: +SKIP
        >>> score(teacher)  # doctest: +SKIP
        1.0
    """
    texts = _texts(batches, pad_id)
    _refuse_other(teacher, "fidelity")
    read = _pooled if teacher.base_model is teacher else _tokens
    wanted = read(teacher, texts, pad_id)

    def score(model: Any) -> float:
        return float(cosine_similarity(read(model, texts, pad_id), wanted, dim=1).mean())

    return score


def probe(batches: Batches, teacher: Any, *, pad_id: int | None) -> Score:
    """Accuracy in [0, 1] of logistic regression on the mean of a text's last hidden states, over three folds.

    The folds have the same share of each class and are the same for every model.

    Args:
        batches: Held-out texts with "target", the class of each (batch,); at least three of each class.
        teacher: The model with all of its layers.
        pad_id: Token id that is no token; None if there is none.

    Raises:
        ConfigError: If the teacher has no hidden states to ask for.
        DataError: If there are no texts or one has no tokens, targets are no classes of texts, there is only one
            class, or one is too rare.
    """
    held_out = list(batches)
    texts = _texts(held_out, pad_id)
    _refuse_other(teacher, "probe")
    classes = torch.cat(_targets(held_out, "probe", shapes=lambda ids: [ids.shape[:1]]))
    counts = classes.unique(return_counts=True)[1]
    if len(counts) < 2 or counts.min() < FOLDS:
        raise DataError(
            f"probe needs two or more classes with at least {FOLDS} texts each, got {counts.tolist()} texts by class"
        )

    def score(model: Any) -> float:
        from sklearn.linear_model import LogisticRegression  # imported here: it takes longer than all of this room
        from sklearn.model_selection import cross_val_score

        vectors = _pooled(model, texts, pad_id).cpu().numpy()
        regression = LogisticRegression(max_iter=1000)
        return float(cross_val_score(regression, vectors, classes.cpu().numpy(), cv=FOLDS).mean())

    return score


def loss(batches: Batches, teacher: Any, *, pad_id: int | None) -> Score:
    """Minus the cross entropy in nats of the model's own head, mean over all targets.

    Args:
        batches: Held-out texts with "target": the class of each text (batch,), or of each position (batch, length),
            -100 where there is none.
        teacher: The model with all of its layers and its head.
        pad_id: Token id that is no token; None if there is none.

    Raises:
        ConfigError: If the teacher has no head, or one of another shape or number of classes than the targets.
        DataError: If there are no texts, one has no tokens, or there are no targets.
    """
    held_out = list(batches)
    texts = _texts(held_out, pad_id)
    targets = _targets(held_out, "loss", shapes=lambda ids: [ids.shape[:1], ids.shape])
    count = sum(int((target != IGNORED).sum()) for target in targets)
    if not count:
        raise DataError(f"loss needs targets, got {IGNORED} (none) at every position")
    _refuse_other(teacher, "loss")
    with inference(teacher):
        _refuse_misfit(teacher, _call(teacher, texts[0], pad_id), targets)

    def score(model: Any) -> float:
        total = 0.0
        with inference(model):
            for ids, target in zip(texts, targets, strict=True):
                logits = _call(model, ids, pad_id).logits
                found = target.to(logits.device)
                known = found != IGNORED
                total += float(cross_entropy(logits[known].double(), found[known], reduction="sum"))
        return -total / count

    return score


def _texts(batches: Batches, pad_id: int | None) -> list[Tensor]:
    if pad_id is not None:
        validation.integer("pad_id", pad_id, 0)
    texts = [batch["input"] for batch in batches]
    if not sum(len(ids) for ids in texts):
        raise DataError("held-out batches must have at least one text, got none")
    for number, ids in enumerate(texts):
        if ids.dim() != 2 or ids.dtype != torch.int64:
            raise DataError(f"input of batch {number} must be int64 (batch, length), got {ids.dtype} {list(ids.shape)}")
        if not _valid(ids, pad_id).any(1).all():
            raise DataError(f"input of batch {number} has a text without tokens, only padding {pad_id}")
    return texts


def _targets(
    batches: list[Mapping[str, Tensor]], who: str, shapes: Callable[[Tensor], list[torch.Size]]
) -> list[Tensor]:
    for number, batch in enumerate(batches):
        if "target" not in batch:
            raise DataError(f"{who} needs a 'target' in every batch, batch {number} has {sorted(batch)}")
        allowed, found = shapes(batch["input"]), batch["target"]
        if found.shape not in allowed or found.dtype != torch.int64:
            wanted = " or ".join(str(list(shape)) for shape in allowed)
            raise DataError(
                f"{who} needs targets of dtype int64 and shape {wanted}, "
                f"batch {number} has {found.dtype} {list(found.shape)}"
            )
    return [batch["target"] for batch in batches]


def _refuse_other(model: Any, who: str) -> None:
    if not hasattr(model, "base_model"):
        raise ConfigError(f"{who} needs a model of transformers, got {type(model).__name__}; write a score of your own")


def _refuse_misfit(model: Any, answer: Any, targets: list[Tensor]) -> None:
    name, logits = type(model).__name__, getattr(answer, "logits", None)
    if logits is None:
        raise ConfigError(f"loss needs a teacher with a head that gives logits, got {name}")
    for target in targets:
        if target.dim() != logits.dim() - 1:
            wanted = "(batch,)" if logits.dim() == 2 else "(batch, length)"
            raise ConfigError(f"loss needs targets {wanted} for the head of {name}, got {list(target.shape)}")
    used = torch.cat([target[target != IGNORED] for target in targets])
    if used.min() < 0 or used.max() >= logits.shape[-1]:
        raise ConfigError(
            f"targets must be in 0..{logits.shape[-1] - 1}, the classes of {name}, "
            f"got {int(used.min())}..{int(used.max())}"
        )


def _valid(ids: Tensor, pad_id: int | None) -> Tensor:
    return torch.ones_like(ids, dtype=torch.bool) if pad_id is None else ids.ne(pad_id)


def _call(model: Any, ids: Tensor, pad_id: int | None) -> Any:
    ids = ids.to(model.device)
    return model(input_ids=ids, attention_mask=_valid(ids, pad_id).long(), return_dict=True)


def _hidden(model: Any, texts: list[Tensor], pad_id: int | None) -> list[tuple[Tensor, Tensor]]:
    """Return last hidden states (batch, length, hidden) as float64 and which of them are of tokens."""
    with inference(model):
        return [
            (_call(model.base_model, ids, pad_id).last_hidden_state.double(), _valid(ids, pad_id).to(model.device))
            for ids in texts
        ]


def _tokens(model: Any, texts: list[Tensor], pad_id: int | None) -> Tensor:
    """Return the last hidden states (tokens, hidden) of all tokens."""
    return torch.cat([hidden[valid] for hidden, valid in _hidden(model, texts, pad_id)])


def _pooled(model: Any, texts: list[Tensor], pad_id: int | None) -> Tensor:
    """Return the mean last hidden states (texts, hidden) of the tokens of each text."""
    return torch.cat(
        [
            (hidden * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True)
            for hidden, valid in _hidden(model, texts, pad_id)
        ]
    )
