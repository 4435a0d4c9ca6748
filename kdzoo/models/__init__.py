"""Teachers and students: plain modules with `logits = model(input)`, graphical models, autoencoders.

Each is usable as either.

The sizes `in_shape` (one input without the batch), `num_classes` and, of language models, `vocab_size` come from
the data; everything else has a default that its file in `conf/student/` repeats.
"""

from kdzoo.models.autoencoder import Autoencoder
from kdzoo.models.bert import Bert
from kdzoo.models.causal_lm import CausalLM
from kdzoo.models.conv_hvae import ConvHVAE
from kdzoo.models.convnet import ConvNet
from kdzoo.models.diffusion import Diffusion
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.gan import GAN
from kdzoo.models.helmholtz import HelmholtzMachine, kl_by_quadrature
from kdzoo.models.hf import HFModel
from kdzoo.models.hvae import HVAE
from kdzoo.models.lenet import LeNet
from kdzoo.models.lm_ensemble import LMEnsemble
from kdzoo.models.mlp import MLP
from kdzoo.models.mps import MPS
from kdzoo.models.mps_classifier import MPSClassifier
from kdzoo.models.patch_mps import PatchMPS
from kdzoo.models.pretrained import load_weights, read_weights
from kdzoo.models.resnet import ResNet
from kdzoo.models.rnn_lm import RNNLM
from kdzoo.models.stacked_mps import StackedMPS
from kdzoo.models.transformer import Transformer
from kdzoo.models.transformer_lm import TransformerLM
from kdzoo.models.truncated import TruncatedTransformer
from kdzoo.models.vae import VAE
from kdzoo.models.vrnn import VRNN, StrokeVRNN, VectorVRNN

__all__ = [
    "GAN",
    "HVAE",
    "MLP",
    "MPS",
    "RNNLM",
    "VAE",
    "VRNN",
    "Autoencoder",
    "Bert",
    "CausalLM",
    "ConvHVAE",
    "ConvNet",
    "Diffusion",
    "Ensemble",
    "HFModel",
    "HelmholtzMachine",
    "LMEnsemble",
    "LeNet",
    "MPSClassifier",
    "PatchMPS",
    "ResNet",
    "StackedMPS",
    "StrokeVRNN",
    "Transformer",
    "TransformerLM",
    "TruncatedTransformer",
    "VectorVRNN",
    "kl_by_quadrature",
    "load_weights",
    "read_weights",
]
