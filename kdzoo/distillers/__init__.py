"""The methods: one file each, wiring and no mathematics."""

from kdzoo.distillers.automata.baum_welch import BaumWelch
from kdzoo.distillers.automata.fgw_pfa import FGWPFA
from kdzoo.distillers.automata.online_pfa import OnlinePFA
from kdzoo.distillers.automata.ot_pfa import OTPFA
from kdzoo.distillers.datasets.coreset import Coreset
from kdzoo.distillers.datasets.dataset_distillation import DatasetDistillation
from kdzoo.distillers.datasets.dataset_poisoning import DatasetPoisoning
from kdzoo.distillers.features.feature_kd import FeatureKD
from kdzoo.distillers.features.relational_kd import RelationalKD
from kdzoo.distillers.generative.adversarial import Adversarial
from kdzoo.distillers.generative.adversarial_autoencoder import AdversarialAutoencoder
from kdzoo.distillers.generative.autoencoder_kd import AutoencoderKD
from kdzoo.distillers.generative.consistency import ConsistencyDistillation
from kdzoo.distillers.generative.continual import Continual
from kdzoo.distillers.generative.elbo import ELBO
from kdzoo.distillers.generative.generator_kd import GeneratorKD
from kdzoo.distillers.generative.progressive import ProgressiveDistillation
from kdzoo.distillers.generative.reconstruction import Reconstruction
from kdzoo.distillers.generative.semi_auxiliary import SemiAuxiliary
from kdzoo.distillers.generative.sequence_gan import SequenceGAN
from kdzoo.distillers.generative.vae_gan import VAEGAN
from kdzoo.distillers.logits.dkd import DKD
from kdzoo.distillers.logits.logit_kd import LogitKD
from kdzoo.distillers.logits.logit_mse import LogitMSE
from kdzoo.distillers.logits.supervised import Supervised
from kdzoo.distillers.tensor_networks.growing_mps import GrowingMPS
from kdzoo.distillers.tensor_networks.mps_distance import MPSDistance
from kdzoo.distillers.tensor_networks.sketch import Sketch
from kdzoo.distillers.tensor_networks.sketched_kd import SketchedKD
from kdzoo.distillers.tensor_networks.sweep_mps import SweepMPS
from kdzoo.distillers.text.distilbert import DistilBERT
from kdzoo.distillers.text.distilbert_classifier import DistilBERTClassifier
from kdzoo.distillers.text.distilbert_encoder import DistilBERTEncoder

__all__ = [
    "DKD",
    "ELBO",
    "FGWPFA",
    "OTPFA",
    "VAEGAN",
    "Adversarial",
    "AdversarialAutoencoder",
    "AutoencoderKD",
    "BaumWelch",
    "ConsistencyDistillation",
    "Continual",
    "Coreset",
    "DatasetDistillation",
    "DatasetPoisoning",
    "DistilBERT",
    "DistilBERTClassifier",
    "DistilBERTEncoder",
    "FeatureKD",
    "GeneratorKD",
    "GrowingMPS",
    "LogitKD",
    "LogitMSE",
    "MPSDistance",
    "OnlinePFA",
    "ProgressiveDistillation",
    "Reconstruction",
    "RelationalKD",
    "SemiAuxiliary",
    "SequenceGAN",
    "Sketch",
    "SketchedKD",
    "Supervised",
    "SweepMPS",
]
