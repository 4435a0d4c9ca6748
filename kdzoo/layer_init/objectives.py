"""Objectives of a search for layers: similarity to the teacher, accuracy of a linear probe, loss of the task.

Each factory evaluates the teacher once on held-out batches and returns a function that scores a shortened model, larger
being better. The objectives disagree: the layers most similar to the teacher need not separate classes best. (On MiniLM
and TREC, over all 20 ways to keep 3 of 6 layers, probe accuracy and cosine to the teacher correlate with -0.79.)

A batch is a dictionary with ``input``, token ids int64 ``[batch, length]``, and ``target`` where it is needed. Models
are those of the library transformers; positions with the padding id are masked.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE
from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError, DataError
from kdzoo.layer_init.hugging_face import attribute

Batches = Iterable[Mapping[str, Tensor]]
Score = Callable[[Any], float]

# Folds of the cross-validated probe: the fewest with which two thirds of the texts train, since every fold is one more
# regression for each of the selections that are tried.
FOLDS = 3
# Iterations of the logistic regression. The 100 of scikit-learn do not suffice for vectors of several hundred numbers
# that are not standardised, and it would warn for every selection of layers.
MAX_ITERATIONS = 1000


def fidelity_objective(batches: Batches, teacher: Any, *, pad_id: int | None) -> Score:
    """Score a model by the mean cosine of its last hidden states to the teacher's, in [-1, 1].

    The mean is over all tokens; for an encoder without a head over texts, whose vectors are the means of their tokens.
    The teacher is evaluated by this call, so the score may be asked of the same model with fewer layers.

    Args:
        batches: Held-out texts, at least one.
        teacher: The model with all of its layers.
        pad_id: Id of the padding token; None if there is none.

    Raises:
        ConfigError: The teacher is not a model of transformers.
        DataError: There are no texts, or one has no tokens.

    Example:
        >>> score = fidelity_objective([{"input": ids}], teacher, pad_id=0)  # doctest: +SKIP
        >>> score(teacher)  # doctest: +SKIP
        1.0
    """
    texts = _texts(batches, pad_id)
    _check_model(teacher, "fidelity")
    # ``base_model`` of a model without a head is the model itself. Such an encoder is used for its vectors of texts.
    vectors = _text_vectors if teacher.base_model is teacher else _token_vectors
    teacher_vectors = vectors(teacher, texts, pad_id)

    def score(model: Any) -> float:
        return float(cosine_similarity(vectors(model, texts, pad_id), teacher_vectors, dim=1).mean())

    return score


def probe_objective(batches: Batches, teacher: Any, *, pad_id: int | None) -> Score:
    """Score a model by the accuracy in [0, 1] of logistic regression on the mean last hidden states of texts.

    The accuracy is the mean of three folds, which have the same share of each class and are the same for every model.

    Args:
        batches: Held-out texts with ``target``, the class of each, int64 ``[batch]``; at least three of each class.
        teacher: The model with all of its layers.
        pad_id: Id of the padding token; None if there is none.

    Raises:
        ConfigError: The teacher is not a model of transformers.
        DataError: There are no texts or one has no tokens, targets are not classes of texts, there is only one class,
            or a class is too rare.
    """
    held_out = list(batches)
    texts = _texts(held_out, pad_id)
    _check_model(teacher, "probe")
    classes = torch.cat(_targets(held_out, "probe", shapes=lambda ids: [ids.shape[:1]]))
    counts = classes.unique(return_counts=True)[1]
    if len(counts) < 2 or counts.min() < FOLDS:
        raise DataError(
            f"probe needs two or more classes with at least {FOLDS} texts each, got {counts.tolist()} texts by class"
        )

    def score(model: Any) -> float:
        # Imported here: scikit-learn takes longer to import than this whole package.
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_score

        vectors = _text_vectors(model, texts, pad_id).cpu().numpy()
        regression = LogisticRegression(max_iter=MAX_ITERATIONS)
        return float(cross_val_score(regression, vectors, classes.cpu().numpy(), cv=FOLDS).mean())

    return score


def loss_objective(batches: Batches, teacher: Any, *, pad_id: int | None) -> Score:
    """Score a model by minus the cross-entropy in nats of its own head, averaged over all targets.

    Args:
        batches: Held-out texts with ``target``, int64: the class of each text ``[batch]``, or of each position
            ``[batch, length]`` with ``IGNORE`` where there is none.
        teacher: The model with all of its layers and its head.
        pad_id: Id of the padding token; None if there is none.

    Raises:
        ConfigError: The teacher has no head, or one of another shape or number of classes than the targets.
        DataError: There are no texts, one has no tokens, or there are no targets.
    """
    held_out = list(batches)
    texts = _texts(held_out, pad_id)
    targets = _targets(held_out, "loss", shapes=lambda ids: [ids.shape[:1], ids.shape])
    count = sum(int((target != IGNORE).sum()) for target in targets)
    if not count:
        raise DataError(f"loss needs targets, got {IGNORE} (none) at every position")
    _check_model(teacher, "loss")
    with inference(teacher):
        _check_head(teacher, _forward(teacher, texts[0], pad_id), targets)

    def score(model: Any) -> float:
        total = 0.0
        with inference(model):
            for ids, target in zip(texts, targets, strict=True):
                logits = _forward(model, ids, pad_id).logits
                target = target.to(logits.device)
                has_target = target != IGNORE
                # float64, so that sums over many targets do not decide between close selections by rounding
                total += float(cross_entropy(logits[has_target].double(), target[has_target], reduction="sum"))
        return -total / count

    return score


def _texts(batches: Batches, pad_id: int | None) -> list[Tensor]:
    """Return the token ids of the batches after checking them."""
    if pad_id is not None:
        validation.integer("pad_id", pad_id, 0)
    texts = [batch["input"] for batch in batches]
    if not sum(len(ids) for ids in texts):
        raise DataError("held-out batches must have at least one text, got none")
    for index, ids in enumerate(texts):
        if ids.dim() != 2 or ids.dtype != torch.int64:
            raise DataError(f"input of batch {index} must be int64 [batch, length], got {ids.dtype} {list(ids.shape)}")
        if not _is_token(ids, pad_id).any(1).all():  # the mean over no tokens would be NaN
            raise DataError(f"input of batch {index} has a text without tokens, only padding {pad_id}")
    return texts


def _targets(
    batches: list[Mapping[str, Tensor]], objective: str, shapes: Callable[[Tensor], list[torch.Size]]
) -> list[Tensor]:
    """Return the targets of the batches after comparing them with the shapes allowed for their token ids."""
    for index, batch in enumerate(batches):
        if "target" not in batch:
            raise DataError(f"{objective} needs a 'target' in every batch, batch {index} has {sorted(batch)}")
        allowed, target = shapes(batch["input"]), batch["target"]
        if target.shape not in allowed or target.dtype != torch.int64:
            expected = " or ".join(str(list(shape)) for shape in allowed)
            raise DataError(
                f"{objective} needs targets of dtype int64 and shape {expected}, "
                f"batch {index} has {target.dtype} {list(target.shape)}"
            )
    return [batch["target"] for batch in batches]


def _check_model(model: Any, objective: str) -> None:
    if attribute(model, "base_model") is None:
        raise ConfigError(
            f"{objective} needs a model of transformers, got {type(model).__name__}; allowed for other models: your "
            "own score function"
        )


def _check_head(model: Any, output: Any, targets: list[Tensor]) -> None:
    """Compare the logits of a model with the targets."""
    name, logits = type(model).__name__, attribute(output, "logits")
    if logits is None:
        raise ConfigError(f"loss needs a teacher with a head that gives logits, got {name}")
    for target in targets:
        if target.dim() != logits.dim() - 1:
            expected = "[batch]" if logits.dim() == 2 else "[batch, length]"
            raise ConfigError(f"loss needs targets {expected} for the head of {name}, got {list(target.shape)}")
    used = torch.cat([target[target != IGNORE] for target in targets])
    if used.min() < 0 or used.max() >= logits.shape[-1]:
        raise ConfigError(
            f"targets must be in 0..{logits.shape[-1] - 1}, the classes of {name}, "
            f"got {int(used.min())}..{int(used.max())}"
        )


def _is_token(ids: Tensor, pad_id: int | None) -> Tensor:
    return torch.ones_like(ids, dtype=torch.bool) if pad_id is None else ids.ne(pad_id)


def _forward(model: Any, ids: Tensor, pad_id: int | None) -> Any:
    ids = ids.to(model.device)
    return model(input_ids=ids, attention_mask=_is_token(ids, pad_id).long(), return_dict=True)


def _hidden_states(model: Any, texts: list[Tensor], pad_id: int | None) -> list[tuple[Tensor, Tensor]]:
    """Return last hidden states, float64 ``[batch, length, hidden]``, and which positions are tokens."""
    with inference(model):
        outputs = [_forward(model.base_model, ids, pad_id).last_hidden_state.double() for ids in texts]
    return [(hidden, _is_token(ids, pad_id).to(hidden.device)) for hidden, ids in zip(outputs, texts, strict=True)]


def _token_vectors(model: Any, texts: list[Tensor], pad_id: int | None) -> Tensor:
    """Return the last hidden states ``[tokens, hidden]`` of all tokens."""
    return torch.cat([hidden[is_token] for hidden, is_token in _hidden_states(model, texts, pad_id)])


def _text_vectors(model: Any, texts: list[Tensor], pad_id: int | None) -> Tensor:
    """Return for each text the mean last hidden state of its tokens, ``[texts, hidden]``."""
    return torch.cat(
        [
            (hidden * is_token[:, :, None]).sum(1) / is_token.sum(1, keepdim=True)
            for hidden, is_token in _hidden_states(model, texts, pad_id)
        ]
    )
