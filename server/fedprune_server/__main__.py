"""`python -m fedprune_server VERB`, for machines and images that hold the coordinator only."""

import sys

from fedprune_server.app import main

sys.exit(main())
