"""Run the command ``asyncapy`` as ``python -m asyncapy_cli``."""

from asyncapy_cli.main import main

main()
