"""`alpagym bench`, from a checkout: python benchmarks/run.py [what] [key=value ...]."""

import sys

from alpagym.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
