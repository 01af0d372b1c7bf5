"""What flags mean: click types, and flags → specs (pure)."""
