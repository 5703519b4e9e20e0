"""`python -m fastfit_watch.worker`: the engine process."""

import os

from fastfit_watch.worker.process import main

if __name__ == "__main__":
    # Threads may hang in a library for good; what matters is on disk, so nothing is waited for.
    os._exit(main())
