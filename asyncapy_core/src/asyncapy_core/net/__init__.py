"""Bytes over sockets: listening, plain and encrypted transports, output, deadlines."""
