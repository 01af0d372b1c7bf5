"""The images that this node's tasks need, pulled once for all tasks that ask at the same time."""

from weakref import WeakValueDictionary

from pyswarm.proto.errors import Internal, SwarmError
from pyswarm.proto.log import get_logger
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.turns import SharedTurns
from pyswarm.worker.runtime.port import RuntimePort

log = get_logger(__name__)


class Images:
    """Every pull asks the registry what a tag means now; fifty replicas that start together ask it once or twice."""

    def __init__(self, runtime: RuntimePort) -> None:
        self._runtime = runtime
        self._turns: WeakValueDictionary[str, SharedTurns[pb.Image]] = WeakValueDictionary()

    async def pull(self, reference: str) -> pb.Image:
        """Make an image present and return it: what the registry has now, else the one that is here.

        Raises SwarmError when it cannot be had and is not here.
        """
        turns = self._turns.get(reference)
        if turns is None:
            turns = self._turns[reference] = SharedTurns(lambda: self._pulled(reference))
        return await turns.outcome()

    async def with_id(self, image_id: str) -> pb.Image | None:
        """Return an image that is here by its id."""
        return next((image for image in await self._runtime.images() if image.id == image_id), None)

    async def _pulled(self, reference: str) -> pb.Image:
        try:
            async for progress in self._runtime.pull(reference):
                if progress.HasField("image"):
                    return progress.image
            raise Internal(f"the runtime ended the pull of {reference} without an image")
        except SwarmError as error:
            for image in await self._runtime.images():
                if any(_names(name, reference) for name in (*image.references, image.id)):
                    log.warning("using the image that is here", image=reference, reason=error.message)
                    return image
            raise


def _names(name: str, reference: str) -> bool:
    """Whether an image's name is what `reference` means; the runtime stores normalised ones."""
    return name == reference or name.endswith(f"/{reference}") or name.split("@")[0] == reference
