"""Edge: loops that live while this manager leads. Entered when elected and caught up, cancelled at once on loss."""
