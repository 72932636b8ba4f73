"""The commands and their options, as a user meets them in `--help`. The work is done elsewhere."""
