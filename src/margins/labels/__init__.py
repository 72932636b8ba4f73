"""Labels that are not one a row: of bags and sets, aggregated, private."""

from margins.labels.bag_sampler import BagSampler, local_bags
from margins.labels.bags import make_bags, privatise_bags, privatise_proportions
from margins.labels.linear_bags import LinearOfBags, RhoChoice, choose_rho, fit_linear_bags
from margins.labels.sets import SetBatch, SetDataset

__all__ = [
    "BagSampler",
    "LinearOfBags",
    "RhoChoice",
    "SetBatch",
    "SetDataset",
    "choose_rho",
    "fit_linear_bags",
    "local_bags",
    "make_bags",
    "privatise_bags",
    "privatise_proportions",
]
