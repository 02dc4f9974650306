"""`python -m alpagym` and `torchrun -m alpagym`: the `alpagym` command."""

import sys

from alpagym.cli import main

sys.exit(main())
