"""The command line of AsyncAPY: the command ``asyncapy``."""
