"""The server: its life, its connections and sessions."""
