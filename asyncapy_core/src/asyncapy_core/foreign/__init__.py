"""Exceptions of foreign code: `inspection` reads them, and `cancellation` leaves a cancel scope with them."""
