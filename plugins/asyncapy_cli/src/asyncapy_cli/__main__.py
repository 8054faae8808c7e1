"""``python -m asyncapy_cli`` is ``asyncapy``."""

from asyncapy_cli.main import main

main()
