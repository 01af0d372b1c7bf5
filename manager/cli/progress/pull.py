"""What to print of an image pull: a line whenever a layer's status changes (pure)."""

from pyswarm.manager.cli.view.human import size


class PullLines:
    """Remembers what was told of each layer."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def news(self, layer: str, status: str, current_bytes: int, total_bytes: int) -> list[str]:
        """Return the lines to print for one progress message; bytes alone are no news."""
        if not status or self._told.get(layer) == status:
            return []
        self._told[layer] = status
        short = layer.removeprefix("sha256:")[:12]
        amount = f" ({size(total_bytes)})" if total_bytes and current_bytes < total_bytes else ""
        return [f"{short}: {status}{amount}" if short else f"{status}{amount}"]
