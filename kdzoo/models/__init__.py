"""Teachers and students: plain modules with `logits = model(input)`, each usable as either.

The sizes `in_shape` (one input without the batch), `num_classes` and, of language models, `vocab_size` come from
the data; everything else has a default that its file in `conf/student/` repeats.
"""

from kdzoo.models.causal_lm import CausalLM
from kdzoo.models.committee import Committee
from kdzoo.models.convnet import ConvNet
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.hf import HFClassifier
from kdzoo.models.lenet import LeNet
from kdzoo.models.mlp import MLP
from kdzoo.models.pretrained import load_weights, read_weights
from kdzoo.models.resnet import ResNet
from kdzoo.models.rnn_lm import RNNLM
from kdzoo.models.transformer_lm import TransformerLM

__all__ = [
    "MLP",
    "RNNLM",
    "CausalLM",
    "Committee",
    "ConvNet",
    "Ensemble",
    "HFClassifier",
    "LeNet",
    "ResNet",
    "TransformerLM",
    "load_weights",
    "read_weights",
]
