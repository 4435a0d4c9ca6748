"""Tokenizers in the Hugging Face format: loaded, trained, used, and named by what is in them.

Needs the optional extra `kdzoo[text]`; nothing is imported from it until a function is called.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from kdzoo.core.validation import flag, integer
from kdzoo.errors import CheckpointError, ConfigError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The tokens 0..4 of a vocabulary that is trained here."""
MOST_CHARACTERS = 1000
"""Characters that a trained vocabulary knows at most, the most frequent ones."""


def load_tokenizer(path: Any) -> Any:
    """Return the tokenizer of a local folder or of a model in the local cache; nothing is downloaded.

    Returns:
        A ``transformers.PreTrainedTokenizerFast``.

    Raises:
        ConfigError: the extra is not installed, or the path is no text or a URL.
        CheckpointError: there is no tokenizer, or none that the library `tokenizers` runs.
    """
    path = str(path)
    if not path or "://" in path:
        raise ConfigError(f"tokenizer must be a local folder or a cached name, got {path!r}")
    transformers = import_library("transformers", "a tokenizer")
    try:
        found = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the readers behind transformers share no base error
        reason = " ".join(str(error).split())[:160]
        problem = f"no tokenizer can be loaded from {path} ({reason})"
        raise CheckpointError(f"{problem}; allowed: a local folder with its files, or a cached name") from error
    if not isinstance(found, transformers.PreTrainedTokenizerFast):
        raise CheckpointError(f"{path} has the slow tokenizer {type(found).__name__}; allowed: one with tokenizer.json")
    if len(found) <= len(found.all_special_ids):  # what transformers makes of a folder with nothing but config.json
        raise CheckpointError(f"{path} has no vocabulary; allowed: a folder with tokenizer.json or vocab.txt")
    return found


def fingerprint(tokenizer: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of all (token, id) pairs, sorted."""
    pairs = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def special_token_id(tokenizer: Any, name: str) -> int:
    """Return the id of the token that a tokenizer uses as ``name``, one of pad, cls, sep and mask.

    Raises:
        ConfigError: it has none.
    """
    number = getattr(tokenizer, f"{name}_token_id")
    if number is None:
        where = tokenizer.name_or_path or type(tokenizer).__name__
        raise ConfigError(f"the tokenizer {where} has no {name} token; allowed: one that has")
    return int(number)


def check_length(name: str, value: int, tokenizer: Any) -> None:
    """Check that sequences of a number of tokens, special ones included, are not too long for a tokenizer's model.

    Raises:
        ConfigError: naming the argument, its value and the largest one.
    """
    most = int(tokenizer.model_max_length)
    if value > most:
        raise ConfigError(
            f"{name}={value} is more than the tokenizer {tokenizer.name_or_path} allows; allowed: ..{most}"
        )


def token_ids(tokenizer: Any, texts: Sequence[str], most: int | None = None) -> list[list[int]]:
    """Return the ids of every text.

    What reads like a special token in a text, such as "[MASK]", is text.

    Args:
        tokenizer: see :func:`load_tokenizer`.
        texts: any number of texts.
        most: cut to so many tokens, special ones included, which are added; None neither cuts nor adds.
    """
    if not texts:
        return []
    cut = {} if most is None else {"truncation": True, "max_length": most}
    found = tokenizer(
        list(texts),
        add_special_tokens=most is not None,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # texts longer than the model's positions are cut into blocks, or here
        **cut,
    )
    return list(found["input_ids"])


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, lowercase: bool = True) -> Any:
    """Return a WordPiece tokenizer as BERT has it, a function of the texts alone.

    The trainer of the library numbers characters in the order of a hash table, which differs from process to process,
    and so learns different words; here they are numbered in the order of their codes.

    Args:
        texts: what to learn from; read twice, an iterator is held in memory.
        vocab_size: number of tokens at most, >= 6.
        lowercase: whether capital letters and accents make no difference.

    Returns:
        A ``transformers.BertTokenizer`` whose tokens 0..4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Raises:
        ConfigError: the extra is not installed, or the vocabulary has no room for the characters of the texts.

    References:
        Devlin et al.: BERT, pre-training of deep bidirectional transformers. NAACL 2019, arXiv:1810.04805.
    """
    integer("vocab_size", vocab_size, len(SPECIAL) + 1)
    tokenizers = import_library("tokenizers", "a tokenizer")
    texts = list(texts) if iter(texts) is texts else texts
    inner_network = bert_tokenizer(SPECIAL, lowercase).backend_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    by_count = sorted(counts, key=lambda one: (-counts[one], one))
    rare = str.maketrans(dict.fromkeys(by_count[MOST_CHARACTERS:], " "))
    known = sorted(set("".join(inner_network.normalizer.normalize_str("".join(by_count[:MOST_CHARACTERS])).split())))
    first = [*SPECIAL, *known, *(f"##{one}" for one in known)]
    if vocab_size < len(first):
        raise ConfigError(f"vocab_size={vocab_size} has no room for {len(known)} characters; allowed: >= {len(first)}")
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    inner_network.train_from_iterator((text.translate(rare) for text in texts), trainer)
    numbers = inner_network.get_vocab(with_added_tokens=True)
    return bert_tokenizer(sorted(numbers, key=lambda token: numbers[token]), lowercase)


def bert_tokenizer(tokens: Sequence[str], lowercase: bool = True) -> Any:
    """Return the ``transformers.BertTokenizer`` whose tokens, by number, are given; they begin with SPECIAL.

    Its answers hold no segments, so that they are arguments of models that have none, such as DistilBERT.
    """
    return import_library("transformers", "a tokenizer").BertTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        do_lower_case=flag("lowercase", lowercase),
        model_input_names=["input_ids", "attention_mask"],
    )


def import_library(name: str, who: str) -> Any:
    """Return a library of the extra `kdzoo[text]`.

    Raises:
        ConfigError: it is not installed; ``who`` needs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{who} needs {name}: pip install 'kdzoo[text]'") from error
