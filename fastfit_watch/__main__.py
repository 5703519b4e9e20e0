"""`python -m fastfit_watch`."""

import sys

from fastfit_watch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
