"""Transformers in the Hugging Face format, from a local folder or the local cache.

Needs the optional extra `kdzoo[text]`; nothing is imported from it until a model is built.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models.transformer import TASKS, Transformer
from kdzoo.text.tokenizers import fingerprint, import_library, load_tokenizer

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AUTO = {"mlm": "AutoModelForMaskedLM", "classification": "AutoModelForSequenceClassification", "embedding": "AutoModel"}


class HFModel(Transformer):
    """A transformers model of text, or an image classifier, whose forward gives one plain tensor.

    Nothing is downloaded and no code from the folder is run. Whether a classifier is one of text or images follows
    from the folder's configuration.

    Args:
        path: A local folder with config.json and weights, or the name of a model in the local cache.
        task: `classification`; `mlm` for the logits of every token; `embedding` for one vector of norm 1 per text.
        num_classes: Of a classifier, the number of logits, >= 1; None for the folder's own. Without a head in
            the folder there is a new one.
        vocab_size: Number of tokens that the data have; refused if it is more than the folder's. None for any.
        tokenizer: Fingerprint of the tokenizer that makes the data's ids (`kdzoo.text.tokenizers.fingerprint`); refused if
            the folder has another one. None for any.
        dtype: float32, float16 or bfloat16.

    Attributes:
        model: The transformers model.
        new_parameters: Names of parameters that the folder lacks and that so start at random; empty for a
            finished teacher.

    Raises:
        ConfigError: If the extra is not installed, an argument is outside its range, `path` is a URL, the
            folder's head has another number of classes, or data and folder have different tokens.
        CheckpointError: If the folder is missing, damaged, or of no model that does the task.

    Example:
        >>> model = HFModel("models/my-bert", num_classes=2)  # doctest: +SKIP
        >>> model({"input_ids": ids, "attention_mask": mask}).shape  # doctest: +SKIP
        torch.Size([8, 2])

    References:
        Wolf et al.: Transformers, state-of-the-art natural language processing. EMNLP 2020, arXiv:1910.03771.
    """

    def __init__(
        self,
        path: str,
        task: str = "classification",
        num_classes: int | None = None,
        vocab_size: int | None = None,
        tokenizer: str | None = None,
        dtype: str = "float32",
    ) -> None:
        refuse_url(path, "a local folder or a cached name")
        validation.choice("task", task, TASKS)
        if num_classes is not None:
            num_classes = validation.integer("num_classes", num_classes)
        torch_dtype = DTYPES[validation.choice("dtype", dtype, tuple(DTYPES))]
        transformers = import_transformers(type(self).__name__)
        try:
            config, takes_images = _configuration(transformers, path, task, num_classes)
            model, loading = _model(transformers, path, config, task, takes_images, torch_dtype)
        except Exception as error:  # the readers behind transformers share no base error
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} cannot be loaded for task {task!r}: {reason}") from error
        _refuse_mismatch(path, loading["mismatched_keys"])
        super().__init__(model, task, tokenizer)
        self.takes_images = takes_images
        self.new_parameters = tuple(sorted(loading["missing_keys"]))
        if not takes_images:
            _refuse_tokens(path, int(config.vocab_size), vocab_size, tokenizer)

    def named(self, input: Tensor) -> dict[str, Tensor]:
        """Return the wrapped model's arguments for token ids (batch, length) or images (batch, channels, h, w).

        Raises:
            ConfigError: The input is neither, or too long.
        """
        if not self.takes_images:
            return super().named(input)
        if input.dim() != 4 or not input.is_floating_point():
            raise ConfigError(f"input must be 4-D float images, got {input.dtype} {list(input.shape)}")
        return {"pixel_values": input.to(self.model.dtype)}


def refuse_url(path: str, allowed: str) -> None:
    """Refuse a path that is a URL: nothing is downloaded by the way.

    Raises:
        ConfigError: naming the path and what is allowed.
    """
    if "://" in str(path):
        raise ConfigError(f"path must be {allowed}, got the URL {str(path)!r}")


def import_transformers(who: str) -> Any:
    """Return the optional library.

    Raises:
        ConfigError: it is not installed.
    """
    transformers = import_library("transformers", who)
    transformers.utils.logging.disable_progress_bar()  # they tear the lines of a run
    transformers.utils.logging.set_verbosity_error()  # what a folder lacks is in new_parameters
    return transformers


def _configuration(transformers: Any, path: str, task: str, num_classes: int | None) -> tuple[Any, bool]:
    """Return the folder's configuration and whether it is that of an image classifier."""
    if Path(path).is_dir() and not Path(path, "config.json").is_file():
        raise FileNotFoundError("the folder has no config.json")
    labels = {} if num_classes is None or task != "classification" else {"num_labels": num_classes}
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False, **labels)
    if task != "classification":
        mapping = {"mlm": "MODEL_FOR_MASKED_LM_MAPPING", "embedding": "MODEL_MAPPING"}[task]
        if type(config) not in getattr(transformers, mapping):
            raise ValueError(f"model type {config.model_type!r} has no model for it")
        return config, False
    named = (config.architectures or [""])[0]
    takes_images = type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    takes_text = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if not (takes_images or takes_text):
        raise ValueError(f"model type {config.model_type!r} classifies neither text nor images")
    return config, takes_images and not (takes_text and named.endswith("ForSequenceClassification"))


def _model(
    transformers: Any, path: str, config: Any, task: str, takes_images: bool, dtype: torch.dtype
) -> tuple[Any, Mapping[str, Any]]:
    auto = "AutoModelForImageClassification" if takes_images else AUTO[task]
    options: dict[str, Any] = {}
    if task == "embedding":  # what pools the first token alone is of no use, and often missing
        wrapped = inspect.signature(transformers.MODEL_MAPPING[type(config)].__init__).parameters
        options = {"add_pooling_layer": False} if "add_pooling_layer" in wrapped else {}
    return getattr(transformers, auto).from_pretrained(
        path,
        config=config,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # so that the error below can name both shapes
        output_loading_info=True,
        **options,
    )


def _refuse_tokens(path: str, own: int, vocab_size: int | None, tokenizer: str | None) -> None:
    if vocab_size is not None and vocab_size > own:
        raise ConfigError(f"vocab_size does not fit {path}: it has {own} tokens, the data have {vocab_size}")
    if tokenizer is None:
        return
    try:
        found = fingerprint(load_tokenizer(path))
    except CheckpointError:  # the folder has weights alone
        return
    if found != tokenizer:
        raise ConfigError(
            f"tokenizer of {path} ({found}) is not the one that makes the data's ids ({tokenizer}); "
            "set data.tokenizer to this folder"
        )


def _refuse_mismatch(path: str, mismatched: Any) -> None:
    if mismatched:
        name, saved, wanted = sorted(mismatched)[0]
        raise ConfigError(f"num_classes does not fit {path}: {name} is {list(saved)} there, wanted {list(wanted)}")
