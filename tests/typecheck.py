"""The run-time checker of signatures in tests: an int passes for a float, as in static checkers."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
