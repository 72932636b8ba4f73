"""Shapes in signatures are checked at run time in tests, and only there; every test uses one thread."""

import torch
from jaxtyping import install_import_hook

# Not the taxonomy: what it refuses, it refuses by name for values of any type, and its own tests show it.
install_import_hook(["margins.engine", "margins.losses", "margins.targets"], "typecheck.checked")

# Many small tensors: threads of several test processes would only wait for each other.
torch.set_num_threads(1)
