"""A service's `logging:` section → a LogDriver. Whether the driver and its options exist is for `validate` to say."""

from pyswarm.proto.codec.stack_file.document import failure
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.codec.stack_file.vocabulary import LOGGING
from pyswarm.proto.model.spec import LogDriver


def log_driver_of(service: Section, warnings: list[str]) -> LogDriver:
    """Return where the service's output goes. Raises InvalidStackFile."""
    section = service.section("logging")
    section.check_keys(LOGGING, warnings)
    options = {}
    for name, value, place in section.pairs("options"):
        if value is None:
            raise failure(place, f"{section.name('options')}.{name} has no value", "Write NAME: VALUE.")
        options[name] = value
    return LogDriver(name=section.text("driver"), options=options)
