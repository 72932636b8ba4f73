"""One reader for each form that rows come in; each hands over a raw table and notes on what was odd."""
