"""Labels that are not one a row: of bags and sets, aggregated, private."""

__all__: list[str] = []
