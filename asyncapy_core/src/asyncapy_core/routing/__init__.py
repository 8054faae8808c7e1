"""From a packet to its handlers: filters, handlers and dispatch."""
