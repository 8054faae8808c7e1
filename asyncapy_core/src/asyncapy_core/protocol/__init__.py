"""The protocol without I/O: framing, codecs, encodings, packets and PROXY headers."""
