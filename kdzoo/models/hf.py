"""Pretrained transformers of text and image classifiers, from a local folder or the cache of the Hugging Face hub.

Needs the optional extra ``kdzoo[text]``, which is not imported until a model is built.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import CheckpointError, ConfigError, in_one_line
from kdzoo.layer_init.hugging_face import attribute
from kdzoo.models.class_order import align_classes
from kdzoo.models.transformer import TASKS, Transformer
from kdzoo.text.tokenizers import fingerprint, import_library, load_tokenizer

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AUTO_CLASSES = {
    "mlm": "AutoModelForMaskedLM",
    "classification": "AutoModelForSequenceClassification",
    "embedding": "AutoModel",
}


class HFModel(Transformer):
    """A pretrained model of text, or an image classifier, whose forward returns one tensor.

    Nothing is downloaded and no code from the folder is run. Whether a classifier is one of text or of images follows
    from the folder's configuration.

    Args:
        path: A local folder with ``config.json`` and weights, or the name of a model in the local cache.
        task: ``classification``; ``mlm`` for logits of every token; ``embedding`` for one vector of norm 1 per text.
        num_classes: Number of logits of a classifier, >= 1; None for the folder's own. A folder without a head gets a
            new one with random weights.
        vocab_size: Number of tokens of the data; an error if it is more than the folder's. None for any.
        tokenizer: Fingerprint of the tokenizer that makes the data's ids (``kdzoo.text.tokenizers.fingerprint``); an
            error if the folder has another tokenizer. None for any.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        classes: Names of the data's classes in their order. If the folder has the same names in another order, its
            logits are reordered, with a warning. None, and names that only number the classes, compare nothing.

    Attributes:
        model: The transformers model.
        new_parameters: Names of the parameters that the folder lacks, which have random weights; empty for a teacher
            that needs no training.

    Raises:
        ConfigError: The extra is not installed, an argument is outside its range, ``path`` is a URL, the folder's head
            has another number of classes or other names of them, or data and folder have different tokens.
        CheckpointError: The folder is missing or damaged, or its model cannot do the task.

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
        classes: Sequence[str] | None = None,
    ) -> None:
        reject_url(path, "a local folder or a cached name")
        validation.choice("task", task, TASKS)
        if num_classes is not None:
            num_classes = validation.integer("num_classes", num_classes)
        torch_dtype = DTYPES[validation.choice("dtype", dtype, tuple(DTYPES))]
        transformers = import_transformers(type(self).__name__)
        try:
            config, takes_images = _configuration(transformers, path, task, num_classes)
            model, loading = _model(transformers, path, config, task, takes_images, torch_dtype)
        except Exception as error:  # the readers behind transformers have no common base error
            reason = in_one_line(error)
            raise CheckpointError(f"{path} cannot be loaded for task {task!r}: {reason}") from error
        _check_head(path, loading["mismatched_keys"])
        super().__init__(model, task, tokenizer)
        self.takes_images = takes_images
        self.new_parameters = tuple(sorted(loading["missing_keys"]))
        if not takes_images:
            _check_tokens(path, int(config.vocab_size), vocab_size, tokenizer)
        # A new head has no order of its own.
        if task == "classification" and classes is not None and not self.new_parameters:
            align_classes(model, self.model_arguments(self._example()), classes, path)

    def _example(self) -> Tensor:
        """Return one input of the model: a few tokens, or an image of noise."""
        config = self.model.config
        if not self.takes_images:
            return torch.arange(min(4, self.vocab_size))[None]
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return torch.randn(1, config.num_channels, height, width, generator=torch.Generator().manual_seed(0))

    def model_arguments(self, input: Tensor) -> dict[str, Tensor]:
        """Return the wrapped model's arguments for token ids ``[batch, length]`` or images ``[batch, channels, h, w]``.

        Raises:
            ConfigError: The input is neither, or too long.
        """
        if not self.takes_images:
            return super().model_arguments(input)
        if input.dim() != 4 or not input.is_floating_point():
            raise ConfigError(f"input must be 4-D float images, got {input.dtype} {list(input.shape)}")
        return {"pixel_values": input.to(self.model.dtype)}


def reject_url(path: str, allowed: str) -> None:
    """Reject a path that is a URL, since nothing is downloaded.

    Args:
        path: The path.
        allowed: What a path may be, for the error message.

    Raises:
        ConfigError: The path is a URL.
    """
    if "://" in str(path):
        raise ConfigError(f"path must be {allowed}, got the URL {str(path)!r}")


def import_transformers(required_by: str) -> Any:
    """Return the library transformers, with its progress bars and warnings switched off.

    Raises:
        ConfigError: The library is not installed; the message names what requires it.
    """
    transformers = import_library("transformers", required_by)
    transformers.utils.logging.disable_progress_bar()  # its bars would break the lines of a run's own output
    transformers.utils.logging.set_verbosity_error()  # missing parameters are in new_parameters, not in a warning
    return transformers


def _configuration(transformers: Any, path: str, task: str, num_classes: int | None) -> tuple[Any, bool]:
    """Return the folder's configuration and whether it is that of an image classifier."""
    if Path(path).is_dir() and not Path(path, "config.json").is_file():
        raise FileNotFoundError("the folder has no config.json")
    labels = {} if num_classes is None or task != "classification" else {"num_labels": num_classes}
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False, **labels)
    if task != "classification":
        mapping = {"mlm": "MODEL_FOR_MASKED_LM_MAPPING", "embedding": "MODEL_MAPPING"}[task]
        if type(config) not in attribute(transformers, mapping):
            raise ValueError(f"model type {config.model_type!r} has no model for it")
        return config, False
    saved_class = (config.architectures or [""])[0]
    takes_images = type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    takes_text = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if not (takes_images or takes_text):
        raise ValueError(f"model type {config.model_type!r} classifies neither text nor images")
    # Few model types (such as Perceiver) classify both; then the class that was saved decides.
    return config, takes_images and not (takes_text and saved_class.endswith("ForSequenceClassification"))


def _model(
    transformers: Any, path: str, config: Any, task: str, takes_images: bool, dtype: torch.dtype
) -> tuple[Any, Mapping[str, Any]]:
    """Return the folder's model and what transformers reports about loading it."""
    auto_class = "AutoModelForImageClassification" if takes_images else AUTO_CLASSES[task]
    options: dict[str, Any] = {}
    if task == "embedding":  # the pooler sees the first token only; the mean needs none, and many folders lack it
        parameters = inspect.signature(transformers.MODEL_MAPPING[type(config)].__init__).parameters
        options = {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}
    return attribute(transformers, auto_class).from_pretrained(
        path,
        config=config,
        dtype=dtype,  # its default is the precision of the file
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # so that our error can name both shapes
        output_loading_info=True,
        **options,
    )


def _check_tokens(path: str, model_vocab_size: int, vocab_size: int | None, tokenizer: str | None) -> None:
    """Reject data with more tokens than the model, or with ids of another tokenizer than the folder's."""
    if vocab_size is not None and vocab_size > model_vocab_size:
        raise ConfigError(
            f"vocab_size does not fit {path}: it has {model_vocab_size} tokens, the data have {vocab_size}"
        )
    if tokenizer is None:
        return
    try:
        folder_tokenizer = fingerprint(load_tokenizer(path))
    except CheckpointError:  # the folder has no tokenizer, only weights
        return
    if folder_tokenizer != tokenizer:
        raise ConfigError(
            f"tokenizer of {path} ({folder_tokenizer}) is not the one that makes the data's ids ({tokenizer}); "
            "set data.tokenizer to this folder"
        )


def _check_head(path: str, mismatched: Any) -> None:
    """Reject a saved head with another number of classes than the model."""
    if mismatched:
        name, saved_shape, expected_shape = sorted(mismatched)[0]
        raise ConfigError(
            f"num_classes does not fit {path}: {name} is {list(saved_shape)} there, wanted {list(expected_shape)}"
        )
