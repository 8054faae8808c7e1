"""API keys: stores, their URLs, and the factory that issues and checks keys."""
