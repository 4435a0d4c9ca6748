"""Tokenizers in the Hugging Face format: loading, training, applying and fingerprinting them.

Needs the optional extra ``kdzoo[text]``, which is not imported until a function is called.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from kdzoo.core.validation import flag, integer
from kdzoo.errors import CheckpointError, ConfigError, in_one_line

# Tokens 0..4 of a vocabulary that is trained here: BERT's own special tokens, so that its models work unchanged.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Only the most frequent characters enter a trained vocabulary; the others become [UNK]. 1,000 is the default of
# ``limit_alphabet`` in the BERT tokenizer of the library tokenizers. Every character takes two entries (at the start of
# a word and inside of one), so without a limit a text with rare scripts would fill a small vocabulary.
MAX_CHARACTERS = 1000


def load_tokenizer(path: Any) -> Any:
    """Return the tokenizer of a local folder or of a model in the local cache; nothing is downloaded.

    Args:
        path: A local folder, or the name of a model in the local cache of the Hugging Face hub.

    Returns:
        A ``transformers.PreTrainedTokenizerFast``.

    Raises:
        ConfigError: The extra is not installed, or the path is empty or a URL.
        CheckpointError: There is no tokenizer, or not one that the library ``tokenizers`` runs.
    """
    path = str(path)
    if not path or "://" in path:
        raise ConfigError(f"tokenizer must be a local folder or a cached name, got {path!r}")
    transformers = import_library("transformers", "a tokenizer")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the readers behind transformers have no common base error
        reason = in_one_line(error)
        problem = f"no tokenizer can be loaded from {path} ({reason})"
        raise CheckpointError(f"{problem}; allowed: a local folder with its files, or a cached name") from error
    # Only the fast tokenizers can be told not to interpret special tokens in a text (split_special_tokens), and can be
    # trained here.
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise CheckpointError(
            f"{path} has the slow tokenizer {type(tokenizer).__name__}; allowed: one with tokenizer.json"
        )
    # transformers builds such an empty tokenizer, without a warning, from a folder that has only a config.json.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise CheckpointError(f"{path} has no vocabulary; allowed: a folder with tokenizer.json or vocab.txt")
    return tokenizer


def fingerprint(tokenizer: Any) -> str:
    """Return a name of a tokenizer's vocabulary: 16 hex digits of the SHA-256 of its sorted (token, id) pairs.

    Models and data store it, so that a model is never fed the ids of another vocabulary.
    """
    pairs = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def special_token_id(tokenizer: Any, name: str) -> int:
    """Return the id of a tokenizer's special token ``name``, one of pad, cls, sep and mask.

    Raises:
        ConfigError: The tokenizer has no such token.
    """
    token = tokenizer.special_tokens_map.get(f"{name}_token")
    if token is None:
        where = tokenizer.name_or_path or type(tokenizer).__name__
        raise ConfigError(f"the tokenizer {where} has no {name} token; allowed: a tokenizer with one")
    return int(tokenizer.convert_tokens_to_ids(str(token)))


def check_length(name: str, value: int, tokenizer: Any) -> None:
    """Check that a length in tokens, special ones included, is not more than a tokenizer's model can read.

    Args:
        name: Name of the argument, for the error message.
        value: The length.
        tokenizer: See :func:`load_tokenizer`.

    Raises:
        ConfigError: Names the argument, its value and the largest one.
    """
    longest = int(tokenizer.model_max_length)
    if value > longest:
        raise ConfigError(
            f"{name}={value} is more than the tokenizer {tokenizer.name_or_path} allows; allowed: at most {longest}"
        )


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of every text, without special tokens.

    Args:
        tokenizer: See :func:`load_tokenizer`.
        texts: Any number of texts. A special token that is spelt out in a text, such as "[MASK]", is ordinary text.
    """
    if not texts:  # the library rejects an empty list
        return []
    return list(_encoded(tokenizer, texts, add_special_tokens=False)["input_ids"])


def truncated_ids(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
    """Return the token ids of every text with the special tokens, cut to a length, and how many texts were cut.

    Args:
        tokenizer: See :func:`load_tokenizer`.
        texts: Any number of texts; see :func:`token_ids`.
        max_length: Largest number of tokens, special ones included.
    """
    if not texts:
        return [], 0
    encoded = _encoded(tokenizer, texts, add_special_tokens=True, truncation=True, max_length=max_length)
    return list(encoded["input_ids"]), sum(bool(text.overflowing) for text in encoded.encodings or ())


def _encoded(tokenizer: Any, texts: Sequence[str], **options: Any) -> Any:
    """Return what the tokenizer makes of at least one text."""
    return tokenizer(
        list(texts),
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no warning about long texts: the caller cuts them into blocks, or they are truncated here
        **options,
    )


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, lowercase: bool = True) -> Any:
    """Return a WordPiece tokenizer like BERT's, trained on texts; the same texts always give the same tokenizer.

    Args:
        texts: Training texts; they are read twice, so an iterator is held in memory.
        vocab_size: Largest number of tokens, >= 6.
        lowercase: Ignore capital letters and accents.

    Returns:
        A ``transformers.BertTokenizer`` whose tokens 0..4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Raises:
        ConfigError: The extra is not installed, or the vocabulary has no room for the characters of the texts.

    References:
        Devlin et al.: BERT, pre-training of deep bidirectional transformers. NAACL 2019, arXiv:1810.04805.
    """
    integer("vocab_size", vocab_size, len(SPECIAL_TOKENS) + 1)
    tokenizers = import_library("tokenizers", "a tokenizer")
    texts = list(texts) if iter(texts) is texts else texts  # an iterator can be read only once
    wordpiece = bert_tokenizer(SPECIAL_TOKENS, lowercase).backend_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    by_count = sorted(counts, key=lambda character: (-counts[character], character))
    rare = str.maketrans(dict.fromkeys(by_count[MAX_CHARACTERS:], " "))
    characters = _normalised_characters(wordpiece.normalizer, by_count[:MAX_CHARACTERS])
    # The library's trainer numbers characters in the order of a hash table, which differs from process to process, and
    # this order decides which word pieces it learns. As "special" tokens they keep the given, sorted order.
    first_tokens = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters)]
    if vocab_size < len(first_tokens):
        raise ConfigError(
            f"vocab_size={vocab_size} has no room for {len(characters)} characters; allowed: >= {len(first_tokens)}"
        )
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=first_tokens, show_progress=False
    )
    wordpiece.train_from_iterator((text.translate(rare) for text in texts), trainer)
    ids = wordpiece.get_vocab(with_added_tokens=True)
    # Built again from the list of tokens, because in the trained object the characters would stay special.
    return bert_tokenizer(sorted(ids, key=lambda token: ids[token]), lowercase)


def _normalised_characters(normalizer: Any, characters: Sequence[str]) -> list[str]:
    """Return the different characters, in the order of their code points, that a normalizer leaves of others."""
    return sorted(set("".join(normalizer.normalize_str("".join(characters)).split())))


def bert_tokenizer(tokens: Sequence[str], lowercase: bool = True) -> Any:
    """Return the ``transformers.BertTokenizer`` with the given tokens in the order of their ids.

    Args:
        tokens: The vocabulary; it begins with ``SPECIAL_TOKENS``.
        lowercase: Ignore capital letters and accents.
    """
    return import_library("transformers", "a tokenizer").BertTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        do_lower_case=flag("lowercase", lowercase),
        # No token types: the output is then also valid input of models that have none, such as DistilBERT.
        model_input_names=["input_ids", "attention_mask"],
    )


def import_library(name: str, required_by: str) -> Any:
    """Return a library of the extra ``kdzoo[text]``.

    Raises:
        ConfigError: The library is not installed; the message names what requires it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{required_by} needs {name}: pip install 'kdzoo[text]'") from error
