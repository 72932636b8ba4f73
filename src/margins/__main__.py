"""`python -m margins` is the command `margins`."""

from margins.cli.main import run

if __name__ == "__main__":
    run()
