"""The version of this build, as the package metadata has it."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("pyswarm-cluster")
except PackageNotFoundError:  # a source tree that was never installed
    VERSION = "0.0.0+source"
