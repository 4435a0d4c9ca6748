"""Text and image classifiers in the Hugging Face format, from a local folder or the local cache.

Needs the optional extra `kdzoo[text]`; nothing is imported from it until a classifier is built.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo import checks
from kdzoo.errors import CheckpointError, ConfigError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class HFClassifier(nn.Module):
    """A transformers sequence or image classifier whose forward gives plain logits.

    Nothing is downloaded and no code from the folder is run. Which of the two it is follows from the folder's
    configuration. The wrapped model is `model`, so all of its submodules can be hooked below that name.

    Args:
        path: A local folder with config.json and weights, or the name of a model in the local cache.
        num_classes: Number of logits, >= 1; None for the folder's own. Without a head in
            the folder there is a new one.
        dtype: float32, float16 or bfloat16.

    Attributes:
        model: The transformers model.
        new_parameters: Names of parameters that the folder lacks and that so start at random; empty for a
            finished teacher.

    Raises:
        ConfigError: If the extra is not installed, an argument is outside its range, `path` is a URL, or the
            folder's head has another number of classes.
        CheckpointError: If the folder is missing, damaged, or of no model that classifies text or images.

    Example:
        >>> model = HFClassifier("models/my-bert", num_classes=2)  # doctest: +SKIP
        >>> model({"input_ids": ids, "attention_mask": mask}).shape  # doctest: +SKIP
        torch.Size([8, 2])

    References:
        Wolf et al.: Transformers, state-of-the-art natural language processing. EMNLP 2020, arXiv:1910.03771.
    """

    def __init__(self, path: str, num_classes: int | None = None, dtype: str = "float32") -> None:
        super().__init__()
        refuse_url(path, "a local folder or a cached name")
        if num_classes is not None:
            num_classes = checks.integer("num_classes", num_classes)
        torch_dtype = DTYPES[checks.choice("dtype", dtype, tuple(DTYPES))]
        transformers = import_transformers(type(self).__name__)
        try:
            config, self._takes_images = _configuration(transformers, path, num_classes)
            model, loading = _model(transformers, path, config, self._takes_images, torch_dtype)
        except Exception as error:  # the readers behind transformers share no base error
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} cannot be loaded as a classifier: {reason}") from error
        _refuse_mismatch(path, loading["mismatched_keys"])
        self.model: Any = model
        self.new_parameters = tuple(sorted(loading["missing_keys"]))
        self.model.train()  # like any new module; transformers hands it over in eval mode
        self._takes_mask = "attention_mask" in inspect.signature(self.model.forward).parameters

    def forward(self, input: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, num_classes).

        Args:
            input: Arguments of the wrapped model by name; or token ids (batch, length), where the padding
                token, if the model has one, is masked; or images (batch, channels, height, width).
        """
        named = input if isinstance(input, Mapping) else self._named(input)
        return self.model(**named, return_dict=True).logits

    def _named(self, input: Tensor) -> dict[str, Tensor]:
        if self._takes_images:
            if input.dim() != 4 or not input.is_floating_point():
                raise ConfigError(f"input must be 4-D float images, got {input.dtype} {list(input.shape)}")
            return {"pixel_values": input.to(self.model.dtype)}
        if input.dim() != 2 or input.dtype not in (torch.int64, torch.int32):
            raise ConfigError(f"input must be 2-D int token ids, got {input.dtype} {list(input.shape)}")
        padding = getattr(self.model.config, "pad_token_id", None)
        mask = {"attention_mask": input.ne(padding).long()} if self._takes_mask and padding is not None else {}
        return {"input_ids": input, **mask}


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
    try:
        return import_module("transformers")
    except ImportError as error:
        raise ConfigError(f"{who} needs transformers: pip install 'kdzoo[text]'") from error


def _configuration(transformers: Any, path: str, num_classes: int | None) -> tuple[Any, bool]:
    if Path(path).is_dir() and not Path(path, "config.json").is_file():
        raise FileNotFoundError("the folder has no config.json")
    labels = {} if num_classes is None else {"num_labels": num_classes}
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False, **labels)
    named = (config.architectures or [""])[0]
    takes_images = type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    takes_text = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if not (takes_images or takes_text):
        raise ValueError(f"model type {config.model_type!r} classifies neither text nor images")
    return config, takes_images and not (takes_text and named.endswith("ForSequenceClassification"))


def _model(transformers: Any, path: str, config: Any, takes_images: bool, dtype: torch.dtype) -> tuple[Any, Any]:
    auto = "AutoModelForImageClassification" if takes_images else "AutoModelForSequenceClassification"
    return getattr(transformers, auto).from_pretrained(
        path,
        config=config,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # so that the error below can name both shapes
        output_loading_info=True,
    )


def _refuse_mismatch(path: str, mismatched: Any) -> None:
    if mismatched:
        name, saved, wanted = sorted(mismatched)[0]
        raise ConfigError(f"num_classes does not fit {path}: {name} is {list(saved)} there, wanted {list(wanted)}")
