"""`python -m annealsubnet`: the command."""

import sys

from annealsubnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
