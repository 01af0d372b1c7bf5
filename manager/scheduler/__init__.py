"""Pure: filters, scores, spread, placement and why no node fits."""
