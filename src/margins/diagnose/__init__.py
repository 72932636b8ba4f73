"""What data, features and trained models are like, measured: before training and after it."""

from margins.diagnose.appearance import AppearanceCluster, appearance_clusters
from margins.diagnose.collapse import NeuralCollapse, collapse_of, neural_collapse
from margins.diagnose.collapse_prediction import CollapsePrediction, predict_collapse
from margins.diagnose.gaussian_classes import GaussianClasses
from margins.diagnose.generators import local_target, manifold_classes, shifted_patterns
from margins.diagnose.hierarchical_kernels import hierarchical_kernel, kernel_of
from margins.diagnose.kernel_learning import (
    LearningExponent,
    LearningExponents,
    learning_exponent,
    learning_exponents,
)
from margins.diagnose.linear_separation import Separability, separability
from margins.diagnose.minimizability import (
    comp_sum_infimum,
    consistency_transform,
    error_bound,
    minimizability_gap,
)
from margins.diagnose.near_enemies import LabelSharpness, label_sharpness, nearest_enemy_sharpness
from margins.diagnose.neighbour_distances import IntrinsicDimension, intrinsic_dimension
from margins.diagnose.noncentral import NoncentralChiSquared
from margins.diagnose.power_laws import PowerLaw, power_law
from margins.diagnose.prior_knowledge import InductiveBias, inductive_bias, probability_points
from margins.diagnose.probing import LayerProbe, layer_outputs, layer_probe
from margins.diagnose.quadratic_form import QuadraticForm
from margins.diagnose.random_functions import KernelErrors, kernel_errors, median_width, rbf_kernel
from margins.diagnose.random_networks import NetworkErrors, cnn, mlp, network_errors
from margins.diagnose.regimes import LearningCurve, TwoRegimes, two_regimes
from margins.diagnose.representations import Richness, effective_rank, linear_cka, richness
from margins.diagnose.scaling import ScalingLaw, scaling_law
from margins.diagnose.small_moves import Fragility, fragility
from margins.diagnose.wrong_labels import NoiseScores, noise_scores

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
