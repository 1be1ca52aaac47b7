"""``python -m cst_operator`` is the command ``cst``."""

import sys

from cst_operator.cli import main

if __name__ == "__main__":
    sys.exit(main())
