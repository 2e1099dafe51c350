"""`python -m fedprune_client VERB`, for machines and images that hold the client only."""

import sys

from fedprune_client.app import main

sys.exit(main())
