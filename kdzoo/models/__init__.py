"""Teachers and students: plain modules with `logits = model(input)`, each usable as either.

The sizes `in_shape` (one input without the batch) and `num_classes` come from the data; everything else has a
default that its file in `conf/student/` repeats.
"""

from kdzoo.models.convnet import ConvNet
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.hf import HFClassifier
from kdzoo.models.mlp import MLP
from kdzoo.models.pretrained import load_weights, read_weights
from kdzoo.models.resnet import ResNet

__all__ = ["MLP", "ConvNet", "Ensemble", "HFClassifier", "ResNet", "load_weights", "read_weights"]
