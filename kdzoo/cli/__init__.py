"""The ``kdzoo`` command. Its modules import torch only when a subcommand needs it, so that ``--help`` stays fast."""
