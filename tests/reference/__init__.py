"""Slow float64 references of the losses, from their definitions alone: nothing of margins, no torch."""
