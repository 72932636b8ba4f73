"""The run-time checker of signatures in tests: an int is taken where a float is wanted, as type checkers do."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
