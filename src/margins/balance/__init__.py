"""Weights of rows and ways to draw them, for what is rare."""

from margins.balance.appearance import Appearance, AppearanceEquity, equity_weights

__all__ = ["Appearance", "AppearanceEquity", "equity_weights"]
