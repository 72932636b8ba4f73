"""What data, features and trained models are like, measured: before training and after it."""

from margins.diagnose.appearance import AppearanceCluster, appearance_clusters
from margins.diagnose.collapse_prediction import CollapsePrediction, predict_collapse
from margins.diagnose.fragility import Fragility, fragility
from margins.diagnose.gaussian_classes import GaussianClasses
from margins.diagnose.generators import local_target, manifold_classes, shifted_patterns
from margins.diagnose.hierarchical_kernels import hierarchical_kernel, kernel_of
from margins.diagnose.inductive_bias import InductiveBias, inductive_bias, probability_points
from margins.diagnose.intrinsic_dimension import IntrinsicDimension, intrinsic_dimension
from margins.diagnose.kernel_errors import KernelErrors, kernel_errors, median_width, rbf_kernel
from margins.diagnose.label_sharpness import LabelSharpness, label_sharpness, nearest_enemy_sharpness
from margins.diagnose.layer_probe import LayerProbe, layer_outputs, layer_probe
from margins.diagnose.learning_exponents import (
    LearningExponent,
    LearningExponents,
    learning_exponent,
    learning_exponents,
)
from margins.diagnose.minimizability import (
    comp_sum_infimum,
    consistency_transform,
    error_bound,
    minimizability_gap,
)
from margins.diagnose.network_errors import NetworkErrors, cnn, mlp, network_errors
from margins.diagnose.neural_collapse import NeuralCollapse, collapse_of, neural_collapse
from margins.diagnose.noise_scores import NoiseScores, noise_scores
from margins.diagnose.noncentral import NoncentralChiSquared
from margins.diagnose.power_law import PowerLaw, power_law
from margins.diagnose.quadratic_form import QuadraticForm
from margins.diagnose.richness import Richness, effective_rank, linear_cka, richness
from margins.diagnose.scaling_law import ScalingLaw, scaling_law
from margins.diagnose.separability import Separability, separability
from margins.diagnose.two_regimes import LearningCurve, TwoRegimes, two_regimes

__all__ = [
    "AppearanceCluster",
    "CollapsePrediction",
    "Fragility",
    "GaussianClasses",
    "InductiveBias",
    "IntrinsicDimension",
    "KernelErrors",
    "LabelSharpness",
    "LayerProbe",
    "LearningCurve",
    "LearningExponent",
    "LearningExponents",
    "NetworkErrors",
    "NeuralCollapse",
    "NoiseScores",
    "NoncentralChiSquared",
    "PowerLaw",
    "QuadraticForm",
    "Richness",
    "ScalingLaw",
    "Separability",
    "TwoRegimes",
    "appearance_clusters",
    "cnn",
    "collapse_of",
    "comp_sum_infimum",
    "consistency_transform",
    "effective_rank",
    "error_bound",
    "fragility",
    "hierarchical_kernel",
    "inductive_bias",
    "intrinsic_dimension",
    "kernel_errors",
    "kernel_of",
    "label_sharpness",
    "layer_outputs",
    "layer_probe",
    "learning_exponent",
    "learning_exponents",
    "linear_cka",
    "local_target",
    "manifold_classes",
    "median_width",
    "minimizability_gap",
    "mlp",
    "nearest_enemy_sharpness",
    "network_errors",
    "neural_collapse",
    "noise_scores",
    "power_law",
    "predict_collapse",
    "probability_points",
    "rbf_kernel",
    "richness",
    "scaling_law",
    "separability",
    "shifted_patterns",
    "two_regimes",
]
