"""Options of mounts, as the specification's table has them."""

from pyswarm.agent_runtime.bundle.mount_options import Attributes, Propagation, known, parse
from pyswarm.agent_runtime.kernel import numbers as n


def test_options_are_sorted_out() -> None:
    found = parse(("rbind", "ro", "rnosuid", "rslave", "size=4k", "noatime", "uid=5"))
    assert found.binds
    assert found.attributes == Attributes(n.MOUNT_ATTR_RDONLY | n.MOUNT_ATTR_NOATIME, n.MOUNT_ATTR_ATIME)
    assert found.recursive == Attributes(n.MOUNT_ATTR_NOSUID)
    assert found.propagation == Propagation(n.MS_SLAVE, recursive=True)
    assert found.data == ("size=4k", "uid=5")


def test_the_later_of_two_that_contradict_wins() -> None:
    assert parse(("ro", "rw")).attributes == Attributes(0, n.MOUNT_ATTR_RDONLY)
    assert parse(("rw", "ro")).attributes == Attributes(n.MOUNT_ATTR_RDONLY, 0)
    assert parse(("noatime", "relatime")).attributes == Attributes(0, n.MOUNT_ATTR_ATIME)


def test_every_option_of_the_specification_is_known() -> None:
    specified = """async atime bind defaults dev diratime exec noatime nodev nodiratime noexec norelatime nostrictatime
    nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec
    rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid
    rsymfollow runbindable rw shared slave strictatime suid symfollow tmpcopyup unbindable idmap ridmap"""
    file_systems = {"async"}
    assert set(specified.split()) - file_systems - known() == set()
