"""The command line of AsyncAPY: ``asyncapy keys``."""
