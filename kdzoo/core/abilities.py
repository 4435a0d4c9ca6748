"""Optional abilities of data modules and models, as protocols that callers test with ``isinstance``.

Most code needs only the required interface of an object: :class:`kdzoo.core.data_module.BatchData` for data and
``forward`` for models. An *optional ability* is one more attribute or method that some objects have and that a caller
can do without: a data set of images knows how its pixels were scaled, a data set of words names its tokens. Each
ability is a small ``@runtime_checkable`` protocol here. A class has the ability as soon as it has the members of the
protocol; it need not inherit from it. Callers write ``isinstance(data, HasPixelScaling)`` and never probe with
``getattr`` or ``hasattr``, so that the type checker finds a misspelt name and this file lists everything that may be
implemented.

``isinstance`` checks that the members are there, not their types, and may evaluate a property to do so. Data modules
are therefore tested after ``setup()``.

Example:
    >>> from kdzoo.data import Digits
    >>> isinstance(Digits(), HasPixelScaling), isinstance(Digits(), HasTokenNames)
    (True, False)
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Scaling = dict[str, tuple[float, ...]]
"""``mean`` and ``std`` of each channel: a pixel in 0..255 becomes ``(pixel / 255 - mean) / std``."""

# ---------------------------------------------------------------- data modules


@runtime_checkable
class DeclaresAugmentation(Protocol):
    """Data that say whether their training samples differ from epoch to epoch.

    Every :class:`kdzoo.core.data_module.BatchData` does. A user's own Lightning data module may: if nothing changes,
    the outputs of the teacher can be cached.
    """

    @property
    def is_augmented(self) -> bool:
        """False if a training sample is the same in every epoch."""


@runtime_checkable
class DeclaresClassCount(Protocol):
    """A user's Lightning data module that states its number of classes, which saves a pass over all labels."""

    @property
    def num_classes(self) -> int:
        """Number of classes, >= 1."""


@runtime_checkable
class DeclaresIgnoreIndex(Protocol):
    """A user's Lightning data module that states which label stands for a missing one, such as 255 or -1."""

    @property
    def ignore_index(self) -> int:
        """The label of samples without one."""


@runtime_checkable
class HasPixelScaling(Protocol):
    """Images that know how their pixels were scaled, so that figures and exported files can undo it."""

    @property
    def pixels(self) -> Scaling:
        """``mean`` and ``std`` of each channel; see :data:`Scaling`."""


@runtime_checkable
class HasTokenNames(Protocol):
    """Token sequences whose tokens have names, which figures and exported automata show."""

    @property
    def symbols(self) -> Sequence[str]:
        """Names of the tokens 0..S-1; the end token S has none."""


@runtime_checkable
class HasClassNames(Protocol):
    """Labelled data whose classes have names, which an exported classifier carries with it."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes 0..C-1."""


@runtime_checkable
class HasTokenizer(Protocol):
    """Texts that know the tokenizer of their ids, which is exported next to a student."""

    @property
    def tokenizer(self) -> Any:
        """The ``transformers.PreTrainedTokenizerFast``."""


@runtime_checkable
class HasLengths(Protocol):
    """Sequences of different lengths, from which the lengths of generated sequences are drawn."""

    @property
    def lengths(self) -> Tensor:
        """Number of steps of each training sequence, int64 ``[n_train]``."""


@runtime_checkable
class DrawsPictures(Protocol):
    """Sequences that can be drawn as images, such as handwriting; figures and image metrics use the drawings."""

    def pictures(self, samples: Tensor, lengths: Tensor | None = None, size: int = 28) -> Tensor:
        """Return images ``[n, 1, size, width]`` in [0, 1] of samples ``[n, T, d]`` with ``lengths`` ``[n]`` steps."""


@runtime_checkable
class SummarisesSamples(Protocol):
    """Sequences of any length that can be compared by summary statistics of one length."""

    def summaries(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return statistics ``[n, k]`` of samples ``[n, T, d]`` with ``lengths`` ``[n]`` steps."""


@runtime_checkable
class HasModes(Protocol):
    """Points of a known distribution with modes of equal probability, so that mode collapse can be measured."""

    def mode_counts(self, points: Tensor) -> Tensor:
        """Return the number of points ``[n, d]`` that lie at each mode, int64 ``[modes]``."""


@runtime_checkable
class HasOracle(Protocol):
    """Strings of a language model whose weights are known, under which the strings of other models can be scored."""

    @property
    def oracle(self) -> Any:
        """The language model that the strings were drawn from."""

    def oracle_nll(self, model: Any) -> float:
        """Return the mean negative log-probability under the oracle of a token that ``model`` generates, in nats."""


# ---------------------------------------------------------------- models

# Results of classes that packages above this one define are Any: nothing here imports them.


@runtime_checkable
class CalibratesOnInputs(Protocol):
    """A model that adjusts itself to the scale of its inputs before it is trained."""

    def calibrate(self, inputs: Tensor) -> None:
        """Adjust the model to the first training inputs ``[n, ...]``."""


@runtime_checkable
class EncodesAndDecodes(Protocol):
    """A model that turns its inputs into codes and codes into inputs, as autoencoders do."""

    def encode(self, input: Tensor) -> Tensor:
        """Return the codes ``[n, ...]`` of inputs ``[n, ...]``."""

    def decode(self, code: Tensor) -> Tensor:
        """Return inputs for codes."""


@runtime_checkable
class FoldsNorms(Protocol):
    """A model whose batch norms can be folded into the layers before them, which makes its forward pass cheaper."""

    def fold_norms(self) -> Any:
        """Return a copy in eval mode without batch norms and with the same outputs; the model does not change."""


@runtime_checkable
class HasLogDensity(Protocol):
    """A generative model of points whose density can be computed exactly."""

    def log_density(self, points: Tensor) -> Tensor:
        """Return the log density of points ``[n, d]`` in nats, ``[n]``."""


@runtime_checkable
class HasExactDivergence(HasLogDensity, Protocol):
    """A generative model of points whose divergence from a student of the same class can be computed exactly."""

    def divergence_from(self, student: Any) -> float:
        """Return KL(this model || student) in nats."""


@runtime_checkable
class TracesInParallel(Protocol):
    """A language model that reads all positions of its inputs at once, which is faster than step by step."""

    def trace(self, input: Tensor) -> Any:
        """Return the :class:`kdzoo.text.language_model.Trace` of inputs ``[b, T]``."""


@runtime_checkable
class HasVocabularySize(Protocol):
    """A model of tokens that states how many it knows; the data may use fewer of them."""

    # Data modules have an attribute of this name too: only models are tested for this ability.

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""


@runtime_checkable
class DeclaresTokenizer(Protocol):
    """A model of texts that knows which tokenizer made the ids it was trained on."""

    # The name is that of :class:`HasTokenizer`, and isinstance sees names only: data are never tested for this ability,
    # and models never for the other one.
    tokenizer: str | None
    """``kdzoo.text.tokenizers.fingerprint`` of the tokenizer; None if it is not known."""


@runtime_checkable
class DescribesArchitecture(Protocol):
    """A model whose architecture can be written down, so that a student can be built from its teacher's."""

    @property
    def architecture(self) -> dict[str, Any]:
        """Class and configuration as plain values that JSON can hold."""


@runtime_checkable
class LoadsPretrained(Protocol):
    """A model that loads weights when it is built; it needs no training if they were complete."""

    new_parameters: tuple[str, ...]
    """Names of the parameters that were not among the weights and start at random."""


@runtime_checkable
class InitialisesFromTeacher(Protocol):
    """A student that takes weights from its teacher once the teacher is trained."""

    def init_from_teacher(self, teacher: Any, data: Any) -> None:
        """Take the weights; ``data`` is the data module, after ``setup()``."""

    # Separate, because a wrong setting is to be found before hours of training the teacher, not after them.
    def check_init_from_teacher(self, teacher: Any, data: Any) -> None:
        """Raise a ConfigError if ``init_from_teacher`` will fail; called before the teacher is trained."""


@runtime_checkable
class StartsFromLayers(Protocol):
    """A student that starts from some layers of its teacher, which a method can compare and a report can name."""

    chosen_layers: tuple[int, ...] | None
    """Indices of the teacher's layers; None before they are known, or if nothing was copied."""

    search: Any
    """The :class:`kdzoo.layer_init.LayerSearch` that chose the layers; None if they were given."""

    init_note: str
    """One line for the report about what the student starts from; empty if there is nothing to say."""


@runtime_checkable
class HasLearnedSizes(Protocol):
    """A model whose sizes are found during the run, such as a number of states or the layers that it starts from."""

    @property
    def learned_sizes(self) -> dict[str, Any]:
        """Constructor arguments with which an exported model is built again; empty before they are known."""


@runtime_checkable
class CombinesMembers(Protocol):
    """A model that is a weighted combination of models, which a method may want to use one by one."""

    def weighted_members(self) -> list[tuple[Any, float]]:
        """Return each member with its weight; the weights are >= 0 and sum to 1."""
