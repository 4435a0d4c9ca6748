"""Causal language models in the Hugging Face format, from a local folder, the local cache or a configuration.

Needs the optional extra ``kdzoo[text]``, which is not imported until a model is built.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import CheckpointError, ConfigError, in_one_line
from kdzoo.layer_init.hugging_face import attribute
from kdzoo.models.hf import DTYPES, import_transformers, reject_url
from kdzoo.text.language_model import Trace


@dataclass(frozen=True)
class State:
    """State after n prefixes of the same length.

    Attributes:
        ids: The wrapped model's ids of the prefixes, begin marker included, int64 ``[n, length]``.
        cache: The wrapped model's key-value cache of the prefixes; None if it has none.
        output: Last hidden vectors ``[n, H]``.
        log_probs: Log-probabilities of the next symbol in nats ``[n, V]``.
    """

    ids: Tensor
    cache: Any
    output: Tensor
    log_probs: Tensor

    def select(self, index: Tensor) -> "State":
        """Return the state of the prefixes ``index``."""
        cache = copy.deepcopy(self.cache)  # the selection below works in place, and this state must not change
        if cache is not None:
            cache.batch_select_indices(index)
        return State(self.ids[index], cache, self.output[index], self.log_probs[index])


class CausalLM(nn.Module):
    """A causal language model of the library transformers as a distribution over token sequences.

    Nothing is downloaded and no code from the folder is run. Tokens are the wrapped model's own ids with one exception:
    here the end of a sequence is V-1, so V-1 and the wrapped model's end-of-text id are exchanged (for GPT-2 they are
    the same). The first symbol of every input is read as the wrapped model's begin-of-text, or as its end-of-text if it
    has none. The hidden vector of a prefix is the last hidden state. The wrapped model is ``model``, so all of its
    submodules can be hooked below that name.

    Args:
        path: A local folder with ``config.json`` and weights, the name of a model in the local cache, or a
            ``config.json`` itself for a new model with random weights.
        vocab_size: Number V of symbols, >= 2; None for the folder's own. A new model gets V symbols, with begin and end
            V-1.
        dtype: ``float32``, ``float16`` or ``bfloat16``.

    Attributes:
        model: The transformers model.
        new_parameters: Names of the parameters that have random weights; empty for a teacher that needs no training.

    Raises:
        ConfigError: The extra is not installed, an argument is outside its range, or the folder's model has another
            number of symbols.
        CheckpointError: The folder or file is missing or damaged, or not of a causal language model.

    Example:
        >>> model = CausalLM("models/my-gpt2")  # doctest: +SKIP
        >>> kdzoo.text.language_model.sample(model, 100, max_length=64, seed=0)  # doctest: +SKIP

    References:
        Wolf et al.: Transformers, state-of-the-art natural language processing. EMNLP 2020, arXiv:1910.03771.
    """

    def __init__(self, path: str, vocab_size: int | None = None, dtype: str = "float32") -> None:
        super().__init__()
        reject_url(path, "a local folder, a config.json or a cached name")
        if vocab_size is not None:
            vocab_size = validation.integer("vocab_size", vocab_size, least=2)
        torch_dtype = DTYPES[validation.choice("dtype", dtype, tuple(DTYPES))]
        transformers = import_transformers(type(self).__name__)
        build = _new_model if Path(path).is_file() else _saved_model
        try:
            model, self.new_parameters = build(transformers, path, vocab_size, torch_dtype)
        except Exception as error:  # the readers behind transformers have no common base error
            reason = in_one_line(error)
            raise CheckpointError(f"{path} cannot be loaded as a causal language model: {reason}") from error
        self.model: Any = model.train()  # like any new module; transformers may hand it over in eval mode
        config = self.model.config.get_text_config()  # of a model that also takes images, the part about text
        self.vocab_size = int(config.vocab_size)
        if vocab_size not in (None, self.vocab_size):
            raise ConfigError(f"vocab_size does not fit {path}: it has {self.vocab_size} symbols, wanted {vocab_size}")
        self.max_length = attribute(config, "max_position_embeddings")
        end = _symbol(config.eos_token_id, self.vocab_size, self.vocab_size - 1)
        self.begin = _symbol(config.bos_token_id, self.vocab_size, end)
        ids = torch.arange(self.vocab_size)
        ids[[end, self.vocab_size - 1]] = ids[[self.vocab_size - 1, end]]
        # A buffer moves to the device with the weights; it follows from the configuration, so it is not saved.
        self.ids: Tensor
        self.register_buffer("ids", ids, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, length, V]`` of the symbol after each prefix of the input ``[batch, length]``."""
        return self._logits(self._outputs(self._ids_of(input), use_cache=False))

    def trace(self, input: Tensor) -> Trace:
        """Return hidden vectors ``[batch, length, H]`` and next-symbol log-probabilities; differentiable."""
        outputs = self._outputs(self._ids_of(input), use_cache=False, output_hidden_states=True)
        return Trace(outputs.hidden_states[-1], self._logits(outputs).log_softmax(-1))

    def initial_state(self, n: int) -> State:
        """Return the state of n empty prefixes: after the begin marker."""
        ids = torch.full((n, 1), self.begin, device=self.ids.device)
        return self._state(ids, self._outputs(ids, use_cache=True, output_hidden_states=True))

    def step(self, state: State, token: Tensor) -> State:
        """Return the state after one more token ``[n]`` of each prefix."""
        ids = torch.cat([state.ids, self.ids[token][:, None]], 1)
        options: dict[str, Any] = {"use_cache": True, "output_hidden_states": True}
        if state.cache is None:  # such as Mamba, which does not return one: the whole prefix is read again
            return self._state(ids, self._outputs(ids, **options))
        cache = copy.deepcopy(state.cache)  # the wrapped model appends to the cache that it is given
        return self._state(ids, self._outputs(ids[:, -1:], past_key_values=cache, **options))

    def next_log_probs(self, state: State) -> Tensor:
        """Return the log-probabilities ``[n, V]`` of the next symbol."""
        return state.log_probs

    def hidden(self, state: State) -> Tensor:
        """Return the last hidden state ``[n, H]``."""
        return state.output

    def _ids_of(self, input: Tensor) -> Tensor:
        """Return the wrapped model's ids of an input ``[batch, length]``."""
        begin = torch.full_like(input[:, :1], self.begin)
        return torch.cat([begin, self.ids[input[:, 1:]]], 1)

    def _outputs(self, ids: Tensor, **options: Any) -> Any:
        """Call the wrapped model, after checking that it has enough positions."""
        past = options.get("past_key_values")
        length = ids.shape[1] + (0 if past is None else past.get_seq_length())
        if self.max_length is not None and length > self.max_length:
            raise ConfigError(f"{length} symbols are more than the {self.max_length} positions of the model")
        return self.model(input_ids=ids, return_dict=True, **options)

    def _logits(self, outputs: Any) -> Tensor:
        """Return logits in this model's order of symbols."""
        is_identity = self.ids[-1] == self.vocab_size - 1  # then a copy of the logits of a large vocabulary is saved
        # An exchange of two symbols is its own inverse, so the same index serves in both directions.
        return outputs.logits if is_identity else outputs.logits.index_select(-1, self.ids)

    def _state(self, ids: Tensor, outputs: Any) -> State:
        hidden = outputs.hidden_states[-1][:, -1]
        log_probs = self._logits(outputs)[:, -1].log_softmax(-1)
        return State(ids, attribute(outputs, "past_key_values"), hidden, log_probs)


def _symbol(configured: Any, vocab_size: int, default: int) -> int:
    """Return the id of a begin or end marker in a configuration, the first of several, or the default."""
    if isinstance(configured, list | tuple) and configured:
        configured = configured[0]
    return configured if isinstance(configured, int) and 0 <= configured < vocab_size else default


def _new_model(transformers: Any, path: str, vocab_size: int | None, dtype: torch.dtype) -> tuple[Any, tuple[str, ...]]:
    """Return a new model that a ``config.json`` describes, and the names of all of its parameters."""
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()
    if vocab_size is not None:
        text.vocab_size = vocab_size
    text.bos_token_id = text.eos_token_id = text.vocab_size - 1
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return model, tuple(sorted(name for name, _ in model.named_parameters()))


def _saved_model(transformers: Any, path: str, _: int | None, dtype: torch.dtype) -> tuple[Any, tuple[str, ...]]:
    """Return the model of a folder, and the names of the parameters that the folder lacks."""
    if Path(path).is_dir() and not Path(path, "config.json").is_file():
        raise FileNotFoundError("the folder has no config.json")
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    return model, tuple(sorted(loading["missing_keys"]))
