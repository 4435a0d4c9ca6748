"""DistilBERT: a shallow masked language model that starts from its teacher's layers and matches its outputs.

Sanh, Debut, Chaumond & Wolf 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
section 3. With the student's logits z ``[vocab]`` and the teacher's logits v of a token, the token y that was masked,
last hidden states s and t ``[width]``, and the temperature T:

    soft   = T^2 KL(softmax(v / T) || softmax(z / T))    at every token, or at the masked ones
    hard   = -log softmax(z)_y                           at every masked token
    cosine = 1 - cos(s, t)                               at every token

With ``top_k``, ``soft`` is the divergence between distributions over the k tokens that are most likely under the
teacher and all others as one. Where each text is masked once and for all (``data.copies``), these few numbers of every
token are cached, and the teacher runs over the texts once.
"""

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import normalize

from kdzoo.core.abilities import HasVocabularySize
from kdzoo.core.batch import Batch, labelled_selection, labels, valid_positions
from kdzoo.core.frozen_teacher import TeacherOutputs
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import flag, integer, positive
from kdzoo.distillers.text.positions import select_positions
from kdzoo.distillers.text.transformer_kd import TransformerKD
from kdzoo.errors import ConfigError
from kdzoo.functional import hard_target_ce, most_likely, soft_target_kl, top_k_kl
from kdzoo.text.transformer import TransformerOutput

# Outputs of the teacher that can be cached, and the term that each is for. All hidden states would be too large.
TERM_OF_CACHED = {"output": "soft", "tokens": "soft", "last": "cosine"}


class DistilBERT(TransformerKD):
    """The triple loss between two masked language models, and further terms on hidden layers.

    Args:
        student: A masked language model, such as :class:`kdzoo.models.TruncatedTransformer`.
        teacher: Another one with the same tokens; see :class:`kdzoo.distillers.text.transformer_kd.TransformerKD`.
        temperature: T of the soft targets, finite and > 0.
        only_masked: Whether ``soft`` compares the masked tokens only.
        top_k: Number of tokens that ``soft`` names, in 1..vocab_size-1; None compares all.
        **options: See :class:`kdzoo.Distiller`.

    Raises:
        ConfigError: An argument is out of its range, or a model is not a masked language model.
    """

    task: ClassVar[str] = "mlm"
    info: ClassVar[MethodInfo] = replace(
        TransformerKD.info,
        # 5, 2, 1 and T = 2 are from the single-GPU command of the authors' code; the paper gives no weights.
        terms={"soft": 5.0, "hard": 2.0, "cosine": 1.0, "hidden": 0.0, "attention": 0.0, "embedding": 0.0},
        teacher_kinds=("masked_lm",),
        student_kinds=("masked_lm",),
        # Short blocks and few of them are set aside, which makes the contract checks quick.
        contract_settings={
            "data.vocab_size": 400,
            "data.block_size": 12,
            "data.val_size": 0.002,
            "data.test_size": 0.002,
        },
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        temperature: float = 2.0,
        only_masked: bool = False,
        top_k: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.temperature = positive("temperature", temperature)
        self.only_masked = flag("only_masked", only_masked)
        if self.only_masked:
            self.label_terms = self.label_terms | {"soft"}
        self.top_k = None if top_k is None else integer("top_k", top_k)
        for role, model in (("student", student), ("teacher", teacher)):
            if self.top_k is not None and isinstance(model, HasVocabularySize) and self.top_k >= model.vocab_size:
                raise ConfigError(f"top_k must be less than the {model.vocab_size} tokens of the {role}, got {top_k}")
        cached_terms = self.weighted_terms & set(TERM_OF_CACHED.values())
        needs_all_layers = self.weighted_terms & {"hidden", "attention", "embedding"}
        if self.top_k is not None and cached_terms and not needs_all_layers:
            self.frozen_teacher.cache_key = {
                "top_k": self.top_k,
                "temperature": self.temperature,
                "terms": sorted(cached_terms),
            }

    def teacher_outputs(self, batch: Batch) -> TeacherOutputs:
        """Return the tensors that the terms use; with ``top_k``, ``output`` are those of the top ``tokens``."""
        outputs = super().teacher_outputs(batch)
        if self.top_k is not None:
            outputs["output"], tokens = most_likely(outputs["output"], self.top_k, temperature=self.temperature)
            outputs["tokens"] = tokens.int()
        if self.frozen_teacher.cache_key is None:
            return outputs
        # Only the direction counts. Half precision changes a cosine by some 1e-4, either way, at half of the memory.
        outputs["last"] = normalize(outputs["last"], dim=-1).half()
        return {name: outputs[name] for name, term in TERM_OF_CACHED.items() if term in self.weighted_terms}

    def output_terms(
        self, batch: Batch, student_output: TransformerOutput, teacher_outputs: TeacherOutputs
    ) -> dict[str, Tensor]:
        """Return ``soft``, one value per token (or per masked one), and ``hard``, one value per masked token."""
        masked = labelled_selection(batch)
        terms: dict[str, Tensor] = {}
        if "soft" in self.weighted_terms:
            positions = masked if self.only_masked else valid_positions(batch)
            student_logits = select_positions(student_output.output, positions)
            teacher_logits = select_positions(teacher_outputs["output"], positions)
            if self.top_k is None:
                terms["soft"] = soft_target_kl(student_logits, teacher_logits, temperature=self.temperature)
            else:
                tokens = select_positions(teacher_outputs["tokens"], positions).long()
                terms["soft"] = top_k_kl(student_logits, teacher_logits, tokens, temperature=self.temperature)
        terms["hard"] = hard_target_ce(student_output.output[masked], labels(batch))
        return terms
