"""`python -m limner.cli`, for launchers such as torchrun that want a module."""

from limner.cli import main

main()
