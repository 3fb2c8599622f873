"""`python -m electra`, which is what torchrun starts."""

import sys

from electra.cli import main

sys.exit(main())
