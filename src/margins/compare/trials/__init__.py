"""The trainings of a comparison: what is searched, in what order it runs, and what runs it."""
